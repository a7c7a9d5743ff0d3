"""Ollama's protocol, by Ollama's own client."""

from __future__ import annotations

import json

import ollama
import pytest

from tests.helpers.cancelling import wait_for_running

WHO = [{"role": "user", "content": "Who are you?"}]
FIXED = {"temperature": 0, "num_predict": 80}
CHOICE = {"type": "object", "required": ["it"], "additionalProperties": False,
          "properties": {"it": {"type": "string", "enum": ["left", "right"]}}}
CHOOSE = {"type": "function", "function": {"name": "choose", "description": "Chooses.", "parameters": CHOICE}}


@pytest.fixture(scope="module")
def client(starter):
    return ollama.Client(host=starter.url)


def test_what_there_is_to_choose_from(client, starter):
    model, = client.list().models
    assert model.model == "starter" and model.details.family == "llama" and model.size > 0
    shown = client.show("starter")
    assert shown.modelinfo["llama.context_length"] == 2048
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert "thinking" not in shown.capabilities  # nothing in its template is about thoughts
    running, = client.ps().models
    assert running.model == "starter" and running.expires_at.year > 2200 and running.size_vram == 0
    assert len(model.digest) == len(running.digest) == 64  # of which its own command shows the first twelve
    major, minor, _ = starter.client().get("/api/version").json["version"].split(".")
    assert (int(major), int(minor)) >= (0, 14)  # Codex asks for 0.13.4
    with pytest.raises(ollama.ResponseError, match="model 'other' not found") as unknown:
        client.show("other")
    assert unknown.value.status_code == 404


def test_a_stream_says_what_the_whole_reply_says(client):
    whole = client.chat("starter", WHO, options=FIXED)
    parts = list(client.chat("starter", WHO, options=FIXED, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content != ""
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    assert last.done_reason == whole.done_reason == "stop"
    assert last.eval_count == whole.eval_count > 3 and last.prompt_eval_count == whole.prompt_eval_count
    assert 0 < last.eval_duration <= last.total_duration and whole.created_at


def test_options_are_taken(client):
    assert client.chat("starter", WHO, options={"num_predict": 3}).done_reason == "length"
    whole = client.chat("starter", WHO, options=FIXED).message.content
    word = whole.split()[2]
    assert client.chat("starter", WHO, options={**FIXED, "stop": [word]}).message.content == \
        whole[:whole.index(word)]
    texts = [client.chat("starter", WHO, options={"seed": 5, "repeat_penalty": 1.1}).message.content
             for _ in range(2)]
    assert texts[0] == texts[1]


def test_log_probabilities_stand_beside_the_text(client):
    options = {"temperature": 0, "num_predict": 6}
    plain = client.chat("starter", WHO, options=options)
    assert plain.logprobs is None
    whole = client.chat("starter", WHO, options=options, logprobs=True, top_logprobs=2)
    assert "".join(token.token for token in whole.logprobs) == whole.message.content == plain.message.content
    assert all(token.logprob == token.top_logprobs[0].logprob <= 0 and len(token.top_logprobs) == 2
               for token in whole.logprobs)
    parts = client.generate("starter", WHO[0]["content"], options=options, logprobs=True, stream=True)
    streamed = [token for part in parts for token in part.logprobs or []]
    assert [token.token for token in streamed] == [token.token for token in whole.logprobs]


def test_a_form_is_kept(client):
    for form in ("json", CHOICE):
        text = client.chat("starter", WHO, format=form, options=FIXED).message.content
        assert text.startswith("{")
    assert json.loads(text)["it"] in ("left", "right")


def test_prompts_are_answered_and_texts_continued(client):
    options = {"temperature": 0, "num_predict": 8}
    asked = client.generate("starter", "Who are you?", options=options)
    assert asked.response == client.chat("starter", WHO, options=options).message.content
    raw = client.generate("starter", "Monday, Tuesday,", raw=True, options=options)
    streamed = client.generate("starter", "Monday, Tuesday,", raw=True, options=options, stream=True)
    assert raw.response == "".join(part.response for part in streamed) and raw.eval_count == 8
    told = client.generate("starter", "Who are you?", system="Be brief.", options=options)
    assert told.prompt_eval_count > asked.prompt_eval_count
    with pytest.raises(ollama.ResponseError, match="suffix"):
        client.generate("starter", "a", suffix="b")


def test_an_empty_request_only_loads(client):
    assert client.generate("starter", "").done_reason == "load"
    assert client.chat("starter", []).done_reason == "load"


def test_calls_come_whole_with_arguments_as_an_object(app, model, client):
    asked = {"model": "any", "messages": WHO, "tools": [CHOOSE], "options": FIXED}
    reply = client.chat("starter", WHO, tools=[CHOOSE], options=FIXED)
    assert reply.message.content or reply.message.tool_calls
    back = [*WHO, {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "choose", "arguments": {"it": "left"}}}]},
        {"role": "tool", "content": "Done.", "tool_name": "choose"}]
    assert client.chat("starter", back, tools=[CHOOSE], options=FIXED).message.content
    app.test_client().post("/api/chat", json={**asked, "messages": back, "stream": False})
    _, called, result = model.started[0]["messages"]
    assert called.calls[0].arguments == {"it": "left"} and result.name == "choose"
    required = {**asked, "tool_choice": "required", "parallel_tool_calls": False}
    for stream in (False, True):
        lines = client._client.post("/api/chat", json={**required, "stream": stream}).text.splitlines()
        calls = [call for line in lines for call in json.loads(line)["message"].get("tool_calls", [])]
        assert [call["function"]["name"] for call in calls] == ["choose"]
        assert calls[0]["function"]["arguments"]["it"] in ("left", "right")


def test_thoughts_stand_beside_the_text(app, model):
    http, body = app.test_client(), {"model": "any", "messages": [{"role": "user", "content": "think aloud"}]}
    whole = http.post("/api/chat", json={**body, "stream": False, "think": True}).json["message"]
    assert whole["thinking"].startswith("The user") and whole["content"] == "After thinking: yes."
    lines = [json.loads(line) for line
             in http.post("/api/chat", json=body).get_data(as_text=True).splitlines()]
    assert "".join(line["message"].get("thinking", "") for line in lines) == whole["thinking"]
    http.post("/api/chat", json={**body, "think": False})
    http.post("/api/chat", json={**body, "think": "max"})
    assert [started["variables"] for started in model.started] == [
        {"enable_thinking": True, "thinking": True, "reasoning_effort": "medium"}, {},
        {"enable_thinking": False, "thinking": False},
        {"enable_thinking": True, "thinking": True, "reasoning_effort": "max"}]


def test_old_messages_may_be_left_out_unless_that_is_not_wanted(client):
    long = [{"role": "user", "content": "word " * 600}, {"role": "assistant", "content": "Yes."}] * 4 + WHO
    assert client.chat("starter", long, options=FIXED).message.content
    with pytest.raises(ollama.ResponseError, match="context holds 2,048"):
        client._request(dict, "POST", "/api/chat",
                        json={"model": "starter", "messages": long, "stream": False,
                                                         "truncate": False})


def test_what_goes_wrong_is_told_in_its_words(client, app):
    for body in ({"messages": [{"role": "king", "content": "x"}]}, {"messages": WHO, "think": "much"},
                 {"messages": WHO, "format": 5}, {"messages": WHO, "options": {"top_p": 3}},
                 {"messages": [{"role": "user", "content": "x", "images": ["eA=="]}]}):
        refused = app.test_client().post("/api/chat", json={"model": "any", **body})
        assert refused.status_code == 400 and isinstance(refused.json["error"], str)
    with pytest.raises(ollama.ResponseError, match="Embeddings need a model made for them"):
        client.embed("starter", "text")
    fail = {"model": "any", "messages": [{"role": "user", "content": "fail"}]}
    lines = app.test_client().post("/api/chat", json=fail).get_data(as_text=True).splitlines()
    assert json.loads(lines[-1]) == {"error": "The engine ran out of pages."}
    assert app.test_client().post("/api/chat", json={**fail, "stream": False}).status_code == 500


@pytest.mark.parametrize(("method", "path"), [("POST", "pull"), ("POST", "push"), ("POST", "create"),
                                              ("POST", "copy"), ("DELETE", "delete")])
def test_models_are_neither_fetched_nor_made_nor_deleted(app, method, path):
    refused = app.test_client().open(f"/api/{path}", method=method, json={"model": "other"})
    assert refused.status_code == 400 and "the model that is loaded answers" in refused.json["error"]


def test_a_body_need_not_say_that_it_is_json(app):
    """As `curl -d` and some libraries send it."""
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
        reply = app.test_client().post("/api/chat", data=json.dumps({"model": "any", "messages": WHO,
                                                                     "stream": False}), content_type=kind)
        assert reply.status_code == 200 and reply.json["message"]["content"]


def test_a_request_names_a_model(app):
    assert app.test_client().post("/api/chat", json={"messages": WHO}).json == {"error": "model is missing."}


def test_closing_a_stream_ends_its_request(slow):
    stream = ollama.Client(host=slow.url).chat("any", [{"role": "user", "content": "something long"}],
                                               stream=True)
    next(stream)
    wait_for_running(slow, 1)
    stream.close()
    wait_for_running(slow, 0)
