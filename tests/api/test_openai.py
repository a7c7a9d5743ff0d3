"""OpenAI's protocol, by OpenAI's own client, against the starter and against scripted replies."""

from __future__ import annotations

import json
import math
import socket
import threading

import openai
import pytest

from model import Catalogue, ModelSlot, SamplingParams, ScoredToken
from model.catalogue.places import Place
from model.config import EngineConfig
from tests.helpers.api import wait_until
from tests.helpers.cancelling import wait_for_running
from tests.helpers.text_samples import write_chat_model
from webui import create_app
from webui.api import answering, completions

WHO = [{"role": "user", "content": "Who are you?"}]
LONG = [{"role": "user", "content": "something long"}]
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["name", "age"], "properties": {
    "name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "minimum": 0, "maximum": 99}}}


def openai_client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="whatever", max_retries=0)


@pytest.fixture(scope="module")
def client(starter):
    with openai_client(starter) as client:
        yield client


@pytest.fixture(scope="module")
def slow_client(slow):
    with openai_client(slow) as client:
        yield client


def chat(client, messages=WHO, **options):
    return client.chat.completions.create(**{"model": "any", "messages": messages, "seed": 1,
                                             "max_tokens": 40,
                                             **options})


def posted(app_client, path="/v1/chat/completions", **body):
    return app_client.post(path, json={"model": "any", "messages": WHO, **body})


def frames(response):
    """The chunks of a stream that Flask's client got."""
    parts = response.get_data(as_text=True).split("\n\n")
    return [part.removeprefix("data: ") for part in parts if part.startswith("data: ")]


# -- what comes back

def test_the_model_is_listed_with_the_length_of_its_context(client):
    model, = client.models.list().data
    assert model.id == "starter" and model.max_model_len == model.context_length == 2048
    assert client.models.retrieve("starter").id == "starter"
    with pytest.raises(openai.NotFoundError, match="There is no model 'other' here; there is 'starter'"):
        client.models.retrieve("other")


def test_a_stream_says_what_the_whole_answer_says(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].id != whole.id
    assert parts[0].choices[0].delta.role == "assistant" and not parts[0].choices[0].delta.content
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content and len(text) > 3
    assert all(len(part.choices) == 1 and part.usage is None for part in parts)
    assert [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason] == ["stop"]
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens > 3
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert last.usage.prompt_tokens_details.cached_tokens > 0  # it was asked before


def test_without_being_asked_a_stream_tells_no_usage(client):
    chunks = list(chat(client, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_reply_that_is_cut_says_so(client):
    for name in ("max_tokens", "max_completion_tokens"):
        reply = chat(client, **{"max_tokens": openai.NOT_GIVEN, name: 3})
        assert reply.choices[0].finish_reason == "length" and reply.usage.completion_tokens == 3
    assert list(chat(client, max_tokens=3, stream=True))[-1].choices[0].finish_reason == "length"


def test_a_reply_ends_before_a_stop_string_given_as_text_or_list(client):
    whole = chat(client).choices[0].message.content
    word = whole.split()[2]
    for stop in (word, [word, "nowhere"]):
        reply = chat(client, stop=stop).choices[0]
        assert reply.message.content == whole[:whole.index(word)] and reply.finish_reason == "stop"


def test_content_may_be_text_or_parts_and_a_developer_is_the_system(client):
    parts = [{"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
             {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]
    plain = [{"role": "system", "content": "Be brief."}, *WHO]
    assert chat(client, parts).choices[0].message.content == chat(client, plain).choices[0].message.content


def test_several_replies_are_those_of_the_seeds_from_the_first_on(client):
    three = chat(client, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert [choice.message.content for choice in three.choices] == [
        chat(client, seed=seed).choices[0].message.content for seed in (1, 2, 3)]
    assert three.usage.prompt_tokens == chat(client).usage.prompt_tokens
    texts = ["", "", ""]
    for chunk in chat(client, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in three.choices]


def test_logprobs_are_those_of_the_tokens_that_are_shown(client):
    choice = chat(client, logprobs=True, top_logprobs=3, temperature=0).choices[0]
    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == choice.message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob <= 0
    streamed = [token for chunk in chat(client, logprobs=True, stream=True, temperature=0)
                if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in tokens]
    assert all(token.top_logprobs == [] for token in streamed)


def test_a_bias_chooses_a_token_and_the_seed_decides(client):
    tokens = chat(client, logit_bias={"300": 100}, max_tokens=3, logprobs=True).choices[0].logprobs.content
    assert len(tokens) == 3 and len({token.token for token in tokens}) == 1
    texts = {chat(client, seed=seed).choices[0].message.content for seed in range(5)}
    assert len(texts) > 1


def test_structured_output_keeps_its_schema(client):
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    for seed in range(3):
        person = json.loads(chat(client, response_format=form, seed=seed,
                                 max_tokens=400).choices[0].message.content)
        assert len(person["name"]) <= 9 and 0 <= person["age"] <= 99 and len(person) == 2
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chat(client, response_format=form,
                                                                          stream=True,
                                                                        max_tokens=400))
    assert json.loads(text).keys() == {"name", "age"}


def test_a_json_object_begins_as_one(client):
    text = chat(client, response_format={"type": "json_object"}, max_tokens=10).choices[0].message.content
    assert text.startswith("{")
    assert chat(client, response_format={"type": "text"}).choices[0].message.content == \
        chat(client).choices[0].message.content


def test_a_begun_reply_goes_on(client):
    whole = chat(client, temperature=0).choices[0].message.content
    begun = whole[:whole.index(" ") + 1]
    rest = chat(client, [*WHO, {"role": "assistant", "content": begun.strip()}], temperature=0)
    assert (begun.strip() + rest.choices[0].message.content) == whole


def test_texts_are_continued(client):
    options = {"model": "any", "max_tokens": 6, "temperature": 0}
    both = client.completions.create(prompt=["Monday, Tuesday,", "One, two,"], logprobs=2, **options)
    assert [choice.index for choice in both.choices] == [0, 1]
    for choice, prompt in zip(both.choices, ("Monday, Tuesday,", "One, two,"), strict=True):
        alone = client.completions.create(prompt=prompt, **options).choices[0]
        assert alone.text == choice.text and choice.finish_reason == "length" and alone.logprobs is None
        assert "".join(choice.logprobs.tokens) == choice.text and choice.logprobs.text_offset[0] == 0
        assert all(len(top) == 2 for top in choice.logprobs.top_logprobs)
        echoed = client.completions.create(prompt=prompt, echo=True, **options).choices[0]
        assert echoed.text == prompt + choice.text and echoed.logprobs is None
        stream = client.completions.create(prompt=prompt, stream=True, echo=True,
                                           stream_options={"include_usage": True}, **options)
        *parts, last = list(stream)
        assert "".join(part.choices[0].text for part in parts) == echoed.text
        assert last.choices == [] and last.usage.completion_tokens == 6
    assert both.usage.completion_tokens == 12
    two = client.completions.create(prompt=["Monday,", "One,"], n=2, seed=1, model="any", max_tokens=3)
    assert len(two.choices) == 4 and two.usage.prompt_tokens < 2 * both.usage.prompt_tokens


def test_an_echoed_prompt_comes_with_its_own_log_probabilities(client):
    """Those of what the model wrote itself, read again, are what they were as it wrote them."""
    options = {"model": "any", "temperature": 0, "logprobs": 2}
    prompt = "Monday, Tuesday,"
    whole = client.completions.create(prompt=prompt, max_tokens=6, echo=True, **options)
    choice, logprobs = whole.choices[0], whole.choices[0].logprobs
    plain = client.completions.create(prompt=prompt, max_tokens=6, **options).choices[0]
    assert choice.text == prompt + plain.text and whole.usage.completion_tokens == 6
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset[0] == 0 and logprobs.text_offset[-6:] == [
        offset + len(prompt) for offset in plain.logprobs.text_offset]
    assert logprobs.token_logprobs[-6:] == plain.logprobs.token_logprobs
    assert all(value is None or value <= 0 for value in logprobs.token_logprobs)
    assert all(len(top) == 2 for top in logprobs.top_logprobs[1:])
    again = client.completions.create(prompt=choice.text, max_tokens=0, echo=True, **options)
    read = again.choices[0]
    assert read.text == choice.text and read.finish_reason == "length"
    assert again.usage.completion_tokens == 0 and again.usage.prompt_tokens == len(read.logprobs.tokens) + 1
    assert read.logprobs.token_logprobs[-6:] == pytest.approx(plain.logprobs.token_logprobs, abs=0.1)
    assert read.logprobs.token_logprobs[:-6] == pytest.approx(logprobs.token_logprobs[:-6], abs=1e-3)


def test_the_offset_of_a_token_that_is_a_part_of_a_character_is_that_characters():
    """By hand: f ü r, the second letter in two tokens; nothing is known of the first one."""
    tokens = [ScoredToken(number, data.decode(errors="replace"), value, data) for number, (data, value) in
              enumerate([(b" f", math.nan), (b"\xc3", -1.0), (b"\xbc", -2.0), (b"r", -3.0)])]
    shown = completions._of_prompt("f\xfcr", tokens).of(tokens)
    assert shown == {"tokens": [" f", "\ufffd", "\ufffd", "r"], "token_logprobs": [None, -1.0, -2.0, -3.0],
                     "top_logprobs": [None, {}, {}, {}], "text_offset": [0, 1, 1, 2]}


@pytest.mark.parametrize("max_tokens", [0, 4])
def test_a_stream_begins_with_its_prompt_and_what_it_is_worth(client, max_tokens):
    options = {"model": "any", "prompt": ["Monday, Tuesday,", "One,"], "n": 2, "seed": 1, "logprobs": 1,
               "echo": True, "max_tokens": max_tokens}
    whole = client.completions.create(**options).choices
    texts, values, offsets, reasons = ([[] for _ in whole] for _ in range(4))
    for chunk in client.completions.create(stream=True, **options):
        choice = chunk.choices[0]
        texts[choice.index].append(choice.text)
        reasons[choice.index].append(choice.finish_reason)
        if choice.logprobs:
            values[choice.index] += choice.logprobs.token_logprobs
            offsets[choice.index] += choice.logprobs.text_offset
    for index, choice in enumerate(whole):
        assert texts[index][0] == options["prompt"][index // 2] and "".join(texts[index]) == choice.text
        assert values[index] == choice.logprobs.token_logprobs
        assert offsets[index] == choice.logprobs.text_offset
        assert reasons[index][-1] == choice.finish_reason and not any(reasons[index][:-1])


# -- thoughts, settings and failures, with scripted replies

def test_thoughts_come_under_both_names_and_never_beside_text(client, app, model):
    http = app.test_client()
    message = posted(http,
                     messages=[{"role": "user", "content": "think aloud"}]).json["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"]
    assert message["reasoning"].startswith("The user")
    assert message["content"] == "After thinking: yes."
    *chunks, done = frames(posted(http, messages=[{"role": "user", "content": "think aloud"}], stream=True))
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert done == "[DONE]"
    assert all(not ({"content", "reasoning"} <= delta.keys()) for delta in deltas)
    assert "".join(delta.get("reasoning", "") for delta in deltas) == message["reasoning"]
    assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in deltas)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_are_taken_back_under_both_names(app, model, name):
    before = {"role": "assistant", "content": "Yes.", name: "Hm."}
    assert posted(app.test_client(), messages=[*WHO, before, *WHO]).status_code == 200
    assert model.started[0]["messages"][1].thinking == "Hm."


def test_settings_reach_the_model_and_unknown_ones_are_ignored(app, model):
    response = posted(
        app.test_client(), temperature=0.5, top_p=0.7, top_k=-1, min_p=0.1, typical_p=0.9, stop=["a", "b"],
        repetition_penalty=1.1, presence_penalty=-1, frequency_penalty=1.5, seed=-1, logit_bias={"5": -100},
        reasoning_effort="high", chat_template_kwargs={"style": "short"}, user="me", store=False,
        metadata={"a": "b"}, parallel_tool_calls=True, top_logprobs=None)
    assert response.status_code == 200
    started = model.started[0]
    params = started["params"]
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0.5, 0.7, 0, 0.1)
    assert (params.typical_p, params.repetition_penalty, params.presence_penalty) == (0.9, 1.1, -1)
    assert (params.frequency_penalty, params.seed, params.stop) == (1.5, (1 << 53) - 1, ("a", "b"))
    assert params.logit_bias == {5: -100} and started["whole"]
    assert started["variables"] == {"enable_thinking": True, "thinking": True, "reasoning_effort": "high",
                                    "style": "short"}


def test_samplers_have_the_names_that_other_engines_have_for_them(app, model):
    response = posted(
        app.test_client(), top_n_sigma=-1, dynatemp_range=0.5, dynatemp_exponent=2, xtc_probability=0.5,
        xtc_threshold=0, dry_multiplier=0.8, dry_base=1.5, dry_allowed_length=3, dry_penalty_last_n=-1,
        dry_sequence_breakers=["\n", "##"], mirostat=2, mirostat_tau=4, mirostat_eta=0.2,
        samplers=["dry", "typ_p", "temperature"])
    assert response.status_code == 200
    params = model.started[0]["params"]
    assert (params.top_n_sigma, params.dynatemp_range, params.dynatemp_exponent) == (0, 0.5, 2)
    assert (params.xtc_probability, params.xtc_threshold) == (0.5, 0.001)
    assert (params.dry_multiplier, params.dry_base, params.dry_allowed_length) == (0.8, 1.5, 3)
    assert (params.dry_penalty_last_n, params.dry_sequence_breakers) == (-1, ("\n", "##"))
    assert (params.mirostat, params.mirostat_tau, params.mirostat_eta) == (2, 4, 0.2)
    assert params.samplers == ("dry", "typical_p", "temperature")
    posted(app.test_client(), dry_penalty_last_n=0, dry_sequence_breakers=[])
    params = model.started[1]["params"]
    assert (params.dry_penalty_last_n, params.dry_sequence_breakers) == (0, ())


def test_guidance_has_the_names_of_the_page(app, model):
    posted(app.test_client(), guidance_scale=1.5, negative_prompt="You are rude.")
    posted(app.test_client())
    params = [started["params"] for started in model.started]
    assert (params[0].guidance_scale, params[0].negative_prompt) == (1.5, "You are rude.")
    assert (params[1].guidance_scale, params[1].negative_prompt) == (1.0, "")
    for fields, said in (({"guidance_scale": 11}, "guidance_scale is 11; expected a number from 0.0 to 10.0"),
                         ({"negative_prompt": "x" * 8001}, "expected a text of at most 8,000 characters.")):
        error = posted(app.test_client(), **fields).json["error"]
        assert said in error["message"] and error["param"] == next(iter(fields))
    assert posted(app.test_client(), negative_prompt=["x"]).status_code == 400


@pytest.mark.parametrize(("fields", "said"), [
    ({"mirostat": 1}, "mirostat is 1; expected 2, or 0 for none: its first version is not supported."),
    ({"samplers": ["top_k", "tfs_z"]}, "samplers holds 'tfs_z'; expected penalties, dry, top_n_sigma, "
     "temperature, top_k, top_p, min_p, typical_p, xtc, each once."),
    ({"samplers": ["top_k", "dry"]}, "samplers is top_k, dry; expected penalties and dry before the others, "
     "since they act on logits."),
    ({"xtc_probability": 1.5}, "xtc_probability is 1.5; expected a number from 0.0 to 1.0.")])
def test_samplers_that_cannot_be_are_refused_by_name(app, fields, said):
    error = posted(app.test_client(), **fields).json["error"]
    assert error["message"] == said and error["param"] == next(iter(fields))


def test_what_is_not_said_is_as_the_models_authors_advise(app, model):
    model.advice = {"temperature": 0.6, "top_k": 20}
    posted(app.test_client(), temperature=0.1)
    params = model.started[0]["params"]
    assert (params.temperature, params.top_k, params.top_p) == (0.1, 20, SamplingParams().top_p)


def test_without_a_model_there_is_none_to_list_and_none_to_ask(store):
    slot = ModelSlot(lambda *_, **__: None, Catalogue([], EngineConfig()), EngineConfig())
    http = create_app(slot, store).test_client()
    assert http.get("/v1/models").json["data"] == []
    assert "none is loaded" in http.get("/v1/models/starter").json["error"]["message"]
    refused = posted(http)
    assert refused.status_code == 503 and "No model is loaded" in refused.json["error"]["message"]


def test_adapters_are_models_that_can_be_listed_and_asked(app, model):
    """In each protocol; any other name stands for the model itself."""
    model.adapters = ["tales"]
    http = app.test_client()
    own, adapter = http.get("/v1/models").json["data"]
    assert (own["id"], adapter["id"], adapter["parent"]) == ("fake-1M", "tales", "fake-1M")
    assert http.get("/v1/models/tales").json == adapter
    messages = [{"role": "user", "content": "hello"}]
    for name in ("tales", "gpt-x"):
        posted(http, model=name)
        http.post("/v1/messages", json={"model": name, "messages": messages, "max_tokens": 9})
        http.post("/v1/responses", json={"model": name, "input": "hello"})
        http.post("/api/chat", json={"model": name, "messages": messages, "stream": False})
    assert [started["adapter"] for started in model.started] == ["tales"] * 4 + [None] * 4


def test_a_model_that_is_asleep_is_listed_and_woken_by_a_request(tmp_path, store, model):
    write_chat_model(tmp_path / "models" / "small")
    catalogue = Catalogue([Place("x", tmp_path / "models")], EngineConfig(max_seq_len=128))
    found = catalogue.look()[0].found
    slot = ModelSlot(lambda *_, **__: model, catalogue, EngineConfig(max_seq_len=128))
    slot.load_first(found, lambda *_: None, print)
    slot.wait()
    http = create_app(slot, store).test_client()
    slot.unload(sleep=True)
    slot.wait()
    assert slot.model is None
    entry, = http.get("/v1/models").json["data"]
    assert entry["id"] == found.name and "context_length" not in entry
    assert http.get("/api/tags").json["models"][0]["name"] == found.name
    woken = posted(http)
    assert woken.status_code == 200 and slot.model is model, woken.text


def test_no_effort_at_reasoning_is_no_thought(app, model):
    posted(app.test_client(), reasoning_effort="none")
    posted(app.test_client())
    assert [started["variables"] for started in model.started] == [
        {"enable_thinking": False, "thinking": False}, {}]


def test_an_engine_that_fails_in_mid_stream_ends_it_with_an_error(app, model):
    http = app.test_client()
    text, error, done = [], None, ""
    for frame in frames(posted(http, messages=[{"role": "user", "content": "fail"}], stream=True)):
        done = frame
        chunk = {} if frame == "[DONE]" else json.loads(frame)
        error = error or chunk.get("error")
        text += [choice["delta"].get("content", "") for choice in chunk.get("choices", [])]
    assert "".join(text).startswith("You said: fail") and done == "[DONE]"
    assert error == {"message": "The engine ran out of pages.", "type": "server_error", "param": None,
                     "code": "engine_failed"}
    whole = posted(http, messages=[{"role": "user", "content": "fail"}])
    assert whole.status_code == 500 and whole.json["error"]["message"] == "The engine ran out of pages."


def test_the_client_takes_an_error_within_a_stream_for_one(slow_client):
    with pytest.raises(openai.APIError, match="The engine ran out of pages"):
        list(chat(slow_client, [{"role": "user", "content": "fail"}], stream=True))


def test_what_breaks_shows_an_id_and_no_trace(app, caplog):
    response = posted(app.test_client(), messages=[{"role": "user", "content": "crash"}])
    assert response.status_code == 500 and response.json["error"]["type"] == "server_error"
    assert "secret" not in response.text and "its log says more" in response.json["error"]["message"]


def test_while_the_model_reads_the_stream_beats(app, model, monkeypatch):
    monkeypatch.setattr(answering, "HEARTBEAT_SECONDS", 0.01)
    model.gate.clear()
    chunks = iter(posted(app.test_client(), stream=True).response)
    assert b'"role":"assistant"' in next(chunks)
    assert next(chunks) == b": beat\n\n"
    model.gate.set()
    assert list(chunks)[-1] == b"data: [DONE]\n\n"


def test_with_too_many_readers_the_answer_says_when_to_come_again(model, store):
    http = create_app(ModelSlot.holding(model), store, max_streams=0).test_client()
    for stream in (False, True):
        response = posted(http, stream=stream)
        assert response.status_code == 503 and int(response.headers["Retry-After"]) > 0
        assert response.json["error"]["type"] == "server_error"
    assert all(started["params"] for started in model.started) and model.running == 0


# -- what is refused

@pytest.mark.parametrize(("body", "param", "said"), [
    ({"messages": []}, "messages", "There are 0 messages"),
    ({"messages": "hi"}, "messages", "not a list"),
    ({"messages": [1]}, "messages", "not an object"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
     "messages[0].content[0].type", "reads text only"),
    ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role", "expected one of system"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing"),
    ({"temperature": "hot"}, "temperature", "not a number"), ({"top_p": 2}, "top_p",
                                                              "expected a number from 0"),
    ({"max_tokens": 0}, "max_tokens", "at least 1"), ({"n": 33}, "n", "expected 1 to 32"),
    ({"n": True}, "n", "not a whole number"), ({"stop": 5}, "stop", "neither a text nor"),
    ({"stop": ["x"] * 2 + [5]}, "stop", "neither"), ({"logit_bias": {"word": 1}}, "logit_bias", "token id"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "expected 0 to 20"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "expected text"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
     "response_format.json_schema.schema", "not an object"),
    ({"messages": [{"role": "user", "content": "refuse"}]}, None, "The prompt needs 9,000 tokens")])
def test_a_bad_request_is_told_by_its_field(app, body, param, said):
    response = posted(app.test_client(), **body)
    error = response.json["error"]
    assert response.status_code == 400 and error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param and said in error["message"] and error["type"] == "invalid_request_error"


def test_errors_have_one_form(starter, client):
    with pytest.raises(openai.BadRequestError, match="Embeddings need a model made for them"):
        client.embeddings.create(model="any", input="text")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.get("/nothing/here", cast_to=object)
    said = unknown.value.body["message"]
    assert unknown.value.body == {"message": said, "type": "invalid_request_error", "param": None,
                                  "code": "not_found"}
    assert "an address that ends in /v1" in said
    with pytest.raises(openai.NotFoundError, match="an address that ends in /v1"):
        chat(client.with_options(base_url=starter.url))
    with pytest.raises(openai.BadRequestError) as long:
        chat(client, [{"role": "user", "content": "word " * 3000}])
    assert long.value.code == "context_length_exceeded" and "the context holds 2,048" in str(long.value)
    with pytest.raises(openai.BadRequestError, match="cannot be used"):
        chat(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "type": "string", "pattern": "^(a{1000}){1000}$"}}})
    wrong = starter.client().open("/v1/chat/completions", "PUT", {})
    assert wrong.status_code == 405 and wrong.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [{"prompt": 5}, {"prompt": []}, {"prompt": ["x"] * 33}, {"prompt": "x",
                                                                                          "suffix": "y"},
                                  {"prompt": "x", "max_tokens": 0}, {"prompt": [[1, 2]], "echo": True}, {}])
def test_a_completion_that_makes_no_sense_is_refused(app, body):
    response = app.test_client().post("/v1/completions", json=body)
    assert response.status_code == 400 and response.json["error"]["message"]


# -- nobody reads any more

def test_closing_a_stream_ends_its_request(slow, slow_client):
    stream = chat(slow_client, LONG, stream=True, max_tokens=400)
    next(iter(stream))
    wait_for_running(slow, 1)
    stream.close()
    wait_for_running(slow, 0)


def test_closing_the_connection_of_a_whole_answer_ends_its_request(slow):
    body = json.dumps({"messages": LONG, "n": 2}).encode()
    with socket.create_connection(("127.0.0.1", slow.port)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body),
                                                                                                body))
        wait_for_running(slow, 2)
    wait_for_running(slow, 0)


def test_a_server_that_ends_says_so_in_the_stream(app, model):
    from webui.routes.parlor import parlor

    model.gate.clear()
    chunks = iter(posted(app.test_client(), stream=True).response)
    next(chunks)
    closing = threading.Thread(target=parlor(app).close, args=("The end.", 2.0))
    closing.start()
    rest = b"".join(chunks)
    closing.join()
    assert answering.STOPPED.encode() in rest and rest.endswith(b"data: [DONE]\n\n")
    wait_until(lambda: model.running == 0)
