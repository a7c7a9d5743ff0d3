"""Anthropic's protocol, by Anthropic's own client."""

from __future__ import annotations

import json

import pytest

from tests.helpers.cancelling import wait_for_running
from webui.api import answering

COLD = {"temperature": 0}
WHO = [{"role": "user", "content": "Who are you?"}]
CHOOSE = {"name": "choose", "description": "Chooses.", "input_schema": {
    "type": "object", "required": ["it"], "additionalProperties": False,
    "properties": {"it": {"enum": ["left", "right"]}}}}
HEADER = "x-anthropic-billing-header: cc_version=2.1.0; cc_entrypoint=cli; cch={};"


def anthropic_client(server):
    import anthropic  # seconds, which no collection should take

    return anthropic.Anthropic(base_url=server.url, api_key="whatever", max_retries=0)


@pytest.fixture(scope="module")
def client(starter):
    with anthropic_client(starter) as client:
        yield client


def ask(client, messages=WHO, **options):
    """At temperature 0, for this protocol has no seed; newer clients leave that to the model."""
    return client.messages.create(**{"model": "any", "messages": messages, "max_tokens": 60,
                                     "extra_body": COLD, **options})


def posted(http, **body):
    return http.post("/v1/messages", json={"model": "any", "messages": WHO, "max_tokens": 9, **body})


def events(response):
    blocks = [block for block in response.get_data(as_text=True).split("\n\n") if block]
    parts = [block.partition("\ndata: ") for block in blocks]
    assert all(name == f"event: {json.loads(data)['type']}" for name, _, data in parts)
    return [json.loads(data) for _, _, data in parts]


def test_a_stream_says_what_the_whole_message_says(client):
    whole = ask(client)
    assert whole.type == "message" and whole.role == "assistant" and whole.stop_reason == "end_turn"
    assert whole.model == "starter" and whole.id.startswith("msg_")
    with client.messages.stream(model="any", messages=WHO, max_tokens=60, extra_body=COLD) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == whole.content[0].text == last.content[0].text and len(text) > 3
    assert last.stop_reason == "end_turn" and last.usage.output_tokens == whole.usage.output_tokens
    total = last.usage.input_tokens + last.usage.cache_read_input_tokens
    assert total == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    assert last.usage.cache_read_input_tokens > 0  # it was asked before


def test_the_events_of_a_stream_come_in_their_order(client):
    kinds = [event.type for event in ask(client, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_why_it_ended_is_told(client):
    assert ask(client, max_tokens=3).stop_reason == "max_tokens"
    word = ask(client).content[0].text.split()[2]
    stopped = ask(client, stop_sequences=["nowhere", word])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert word not in stopped.content[0].text


def test_a_system_text_and_a_begun_reply_count(client):
    text = ask(client, system="Be brief.").content[0].text
    assert ask(client, system=[{"type": "text", "text": "Be brief."}]).content[0].text == text
    whole = ask(client).content[0].text
    begun = whole.split()[0]
    assert begun + ask(client, [*WHO, {"role": "assistant", "content": begun}]).content[0].text == whole


def test_the_header_that_changes_with_every_request_is_left_out(client):
    counts = {client.messages.count_tokens(model="any", messages=WHO, system=system).input_tokens
              for system in ("Be brief.", [{"type": "text", "text": HEADER.format("a1")},
                                           {"type": "text", "text": "Be brief."}],
                             f"{HEADER.format('b2')}\nBe brief.")}
    assert len(counts) == 1
    first = ask(client,
                system=[{"type": "text", "text": HEADER.format("c3")}, {"type": "text", "text": "Hi " * 80}])
    again = ask(client,
                system=[{"type": "text", "text": HEADER.format("d4")}, {"type": "text", "text": "Hi " * 80}])
    assert again.usage.cache_read_input_tokens > first.usage.cache_read_input_tokens
    assert again.usage.input_tokens < 20


def test_tokens_are_counted_as_they_are_read(client):
    for extra in ({}, {"system": "Be brief."}, {"tools": [CHOOSE]}):
        usage = ask(client, max_tokens=1, **extra).usage
        counted = client.messages.count_tokens(model="any", messages=WHO, **extra).input_tokens
        assert counted == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "choose"}])
def test_a_tool_is_called_and_its_result_taken(client, choice):
    choice = {**choice, "disable_parallel_tool_use": True}
    whole = ask(client, tools=[CHOOSE], tool_choice=choice)
    call, = whole.content
    assert (whole.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "choose")
    assert call.input in ({"it": "left"}, {"it": "right"})
    with client.messages.stream(model="any", messages=WHO, max_tokens=60, extra_body=COLD, tools=[CHOOSE],
                                tool_choice=choice) as stream:
        last = stream.get_final_message()
    assert last.content[0].input == call.input and last.stop_reason == "tool_use"
    back = [*WHO, {"role": "assistant", "content": [call.model_dump()]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": [
                {"type": "text", "text": "Done."}]}, {"type": "text", "text": "And now?"}]}]
    assert ask(client, back, tools=[CHOOSE]).content[0].type == "text"


def test_a_form_is_kept(client):
    form = {"type": "json_schema", "schema": CHOOSE["input_schema"]}
    text = ask(client, extra_body=COLD | {"output_config": {"format": form}}).content[0].text
    assert json.loads(text) in ({"it": "left"}, {"it": "right"})


def test_thoughts_are_blocks_of_their_own_and_are_taken_back(app, model):
    http, think = app.test_client(), [{"role": "user", "content": "think aloud"}]
    thought, said = posted(http, messages=think, max_tokens=99).json["content"]
    assert thought["type"] == "thinking" and thought["thinking"].startswith("The user")
    assert said == {"type": "text", "text": "After thinking: yes."}
    kinds = [(event["type"], event["content_block"]["type"] if "content_block" in event else "")
             for event in events(posted(http, messages=think, max_tokens=99, stream=True))
             if event["type"] in ("content_block_start", "content_block_stop")]
    assert kinds == [("content_block_start", "thinking"), ("content_block_stop", ""),
                     ("content_block_start", "text"), ("content_block_stop", "")]
    posted(http, messages=[*think, {"role": "assistant", "content": [thought, said]}, *WHO])
    assert model.started[-1]["messages"][1].thinking == thought["thinking"]


def test_whoever_wants_thoughts_says_so(app, model):
    for thinking in ({"type": "enabled", "budget_tokens": 2000}, {"type": "disabled"}, None):
        posted(app.test_client(), thinking=thinking)
    assert [started["variables"]["enable_thinking"] for started in model.started] == [True, False, False]


def test_what_goes_wrong_is_told_in_its_words(client, app, monkeypatch):
    import anthropic

    for options in ({"messages": []}, {"max_tokens": 0},
                    {"tools": [{"type": "web_search_20250305", "name": "w"}]},
                    {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
                    {"tool_choice": {"type": "all"}}):
        with pytest.raises(anthropic.BadRequestError) as refused:
            ask(client, **options)
        assert refused.value.body["type"] == "error"
        assert refused.value.body["error"]["type"] == "invalid_request_error"
    failed = posted(app.test_client(), messages=[{"role": "user", "content": "fail"}], max_tokens=99)
    assert failed.status_code == 500 and failed.json["error"]["type"] == "api_error"
    *_, last = events(posted(app.test_client(), messages=[{"role": "user", "content": "fail"}], max_tokens=99,
                             stream=True))
    assert last["error"] == {"type": "api_error", "message": "The engine ran out of pages."}
    missing = app.test_client().post("/v1/messages/nothing", json={})
    assert missing.status_code == 404 and missing.json["error"]["type"] == "not_found_error"


def test_while_the_model_reads_there_are_pings(app, model, monkeypatch):
    monkeypatch.setattr(answering, "HEARTBEAT_SECONDS", 0.01)
    model.gate.clear()
    chunks = iter(posted(app.test_client(), stream=True).response)
    assert b"message_start" in next(chunks)
    assert next(chunks).startswith(b"event: ping")
    model.gate.set()
    assert b"message_stop" in list(chunks)[-1]


def test_closing_a_stream_ends_its_request(slow):
    with anthropic_client(slow) as client:
        stream = ask(client, [{"role": "user", "content": "something long"}], max_tokens=400, stream=True)
        next(iter(stream))
        wait_for_running(slow, 1)
        stream.close()
        wait_for_running(slow, 0)


def test_the_models_are_listed_for_it_too(client):
    assert [model.id for model in client.models.list()] == ["starter"]
