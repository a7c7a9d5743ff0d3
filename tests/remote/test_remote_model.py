"""A model behind another engine: what it is asked, what comes of it, and every way in which it fails."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest

from model import ChatMessage, ReplyDone, ReplyFailed, SamplingParams, TextDelta, Tool, Toolbox
from model.language_model import CONTINUE, RANK, CannotDo
from model.remote import remote_reply
from model.remote.address import EngineAddress
from model.remote.problems import EngineProblem
from model.reply import CallDelta, ScoredToken
from model.text.constraint import Constraint
from tests.helpers.api import wait_until
from tests.helpers.stand_in_engine import CLOSE, FIELDS, STALL, StandInEngine, chunk, end, text

HELLO = [ChatMessage("user", "Hello there")]


def read(reply):
    """(text, thought, last event)"""
    events = list(reply.events())
    parts = {channel: "".join(event.text for event in events
                              if isinstance(event, TextDelta) and event.channel == channel)
             for channel in ("text", "think")}
    return parts["text"], parts["think"], events[-1]


def failure(reply):
    """The text that came, and the sentence."""
    written, _thought, last = read(reply)
    assert isinstance(last, ReplyFailed)
    return written, last.message


def test_a_reply_comes_with_the_engines_own_count_of_tokens(opened, engine):
    written, thought, done = read(opened().start(HELLO, SamplingParams(seed=7, max_new_tokens=50)))
    assert (written, thought) == ("You said: Hello there", "")
    assert done.finish_reason == "eos"
    stats = done.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.new_tokens, stats.seed) == (7, 1, 4, 7)
    assert 0 < stats.seconds_to_first_token == stats.prompt_seconds
    asked = engine.chats[0]
    assert asked["messages"] == [{"role": "user", "content": "Hello there"}]
    assert (asked["model"], asked["seed"], asked["max_tokens"]) == ("small", 7, 50)
    assert (asked["top_k"], asked["min_p"], asked["stream"]) == (-1, 0.05, True)


@pytest.mark.parametrize(("seconds", "rate"), [(0.001, 0), (0.1, 10)])
def test_what_comes_in_one_go_tells_no_speed(opened, monkeypatch, seconds, rate):
    ticks = itertools.count()
    model = opened()
    monkeypatch.setattr(remote_reply, "time", SimpleNamespace(monotonic=lambda: next(ticks) * seconds))
    stats = read(model.start(HELLO))[2].stats
    assert stats.tokens_per_second == pytest.approx(rate)
    assert stats.decode_seconds == pytest.approx(3 * seconds)


def test_what_would_be_sent_is_the_messages_about_and_nothing_is_sent_for_it(opened, engine):
    talk = [ChatMessage("system", "Be kind."), *(
        ChatMessage(("user", "assistant")[at % 2], f"{at} " + "word " * 200) for at in range(9))]
    asked = len(engine.chats)
    view = opened().inspect(talk, 50)
    first = view.fit.first_index
    assert not view.is_template and view.cached_tokens is None and not view.fit.is_exact
    shown = [0, *range(first, 10)] if first else [*range(10)]
    assert [(part.index, part.text) for part in view.parts] == [(at, talk[at].content) for at in shown]
    assert sum(part.num_tokens for part in view.parts) == view.fit.prompt_tokens
    assert len(engine.chats) == asked


def test_what_is_off_is_said_to_be_off_and_banned_tokens_are_biases(opened, engine):
    params = SamplingParams(min_p=0, top_k=40, repetition_penalty=1.2, banned_tokens=(5,),
                            logit_bias={3: 1.0}, stop=tuple("abcdef"), min_new_tokens=2)
    read(opened().start(HELLO, params))
    asked = engine.chats[0]
    assert (asked["min_p"], asked["top_k"]) == (0, 40)
    assert asked["repetition_penalty"] == asked["repeat_penalty"] == 1.2
    assert asked["logit_bias"] == {"3": 1.0, "5": -100.0}
    assert asked["stop"] == list("abcd") and asked["min_tokens"] == 2
    assert not asked.keys() & {"dry_multiplier", "xtc_probability", "samplers"}


def test_samplers_that_few_engines_know_are_sent_where_they_are_changed(opened, engine):
    read(opened().start(HELLO, SamplingParams(xtc_probability=0.5, samplers=("xtc", "temperature"))))
    asked = engine.chats[0]
    assert asked["xtc_probability"] == 0.5 and asked["samplers"] == ["xtc", "temperature"]
    assert not asked.keys() & {"xtc_threshold", "dry_multiplier", "mirostat"}


def test_guidance_is_refused(opened, engine):
    with pytest.raises(CannotDo, match=r"knows no guidance; models have it that are loaded here\. Set it"):
        opened().start(HELLO, SamplingParams(guidance_scale=1.5))
    assert not engine.chats
    read(opened().start(HELLO, SamplingParams(negative_prompt="Be rude."), against=[]))
    assert not engine.chats[0].keys() & {"guidance_scale", "negative_prompt"}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_comes_in_either_field_or_in_marks(opened, engine, field):
    engine.script = [chunk({"role": "assistant", "content": ""}), chunk({field: "Hm, "}),
                     chunk({field: "so."}), text("Yes."), end()]
    assert read(opened().start(HELLO))[:2] == ("Yes.", "Hm, so.")
    engine.script = [text("<thi"), text("nk>Hm.</think>\n\n Yes."), end()]
    assert read(opened().start(HELLO))[:2] == ("Yes.", "Hm.")


def test_a_stop_string_ends_the_reply_whether_or_not_the_engine_looks_for_it(opened, engine):
    engine.script = [text("One.\nUs"), text("er: Two."), STALL]
    reply = opened().start(HELLO, SamplingParams(stop=("\nUser:",)))
    written, _, done = read(reply)
    assert (written, done.finish_reason, done.stop) == ("One.", "stop", "\nUser:")
    assert engine.closed.wait(10)
    engine.script = [text("One."), end("stop", stop_reason="\nUser:")]  # as vLLM tells it
    assert read(opened().start(HELLO))[2].finish_reason == "stop"


def test_length_and_a_full_context_are_told_apart(opened, engine):
    engine.script = [text("One"), text(" two"), text(" three"), end("length")]
    assert read(opened().start(HELLO, SamplingParams(max_new_tokens=3)))[2].finish_reason == "length"
    assert read(opened().start(HELLO, SamplingParams(max_new_tokens=9)))[2].finish_reason == "context"


def test_without_usage_pieces_are_counted_and_the_prompt_is_estimated(opened, engine):
    engine.has_usage = False
    done = read(opened().start(HELLO))[2]
    assert done.stats.new_tokens == 4 and done.stats.prompt_tokens > 0 and done.stats.cached_tokens == 0


def test_calls_of_tools_come_piece_by_piece(opened, engine):
    engine.script = [
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"at":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ' "it"}'}}]}),
        chunk({"tool_calls": [{"index": 3, "function": {"name": "wait", "arguments": "{}"}}]}),
        end("tool_calls")]
    tools = Toolbox((Tool("look"), Tool("wait")), parallel=False)
    events = list(opened().start(HELLO, tools=tools).events())
    calls = [(event.index, event.name, event.arguments) for event in events if isinstance(event, CallDelta)]
    assert calls == [(0, "look", ""), (0, "", '{"at":'), (0, "", ' "it"}'), (1, "wait", ""), (1, "", "{}")]
    assert engine.chats[0]["tool_choice"] == "auto" and engine.chats[0]["parallel_tool_calls"] is False
    assert [tool["function"]["name"] for tool in engine.chats[0]["tools"]] == ["look", "wait"]
    engine.script = [chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})]
    assert "without its name" in failure(opened().start(HELLO, tools=tools))[1]


def test_log_probabilities_are_passed_on_or_missed(opened, engine):
    token = {"token": "Yes", "logprob": -0.5, "bytes": [89, 101, 115],
             "top_logprobs": [{"token": "No", "logprob": -1.5}]}
    engine.script = [text("Yes", logprobs={"content": [token]}), end()]
    events = list(opened().start(HELLO, logprobs=1).events())
    scored, = (event for event in events if isinstance(event, ScoredToken))
    assert (scored.text, scored.logprob, scored.data, scored.top[0].text) == ("Yes", -0.5, b"Yes", "No")
    engine.script = None
    assert "logprobs" in failure(opened().start(HELLO, logprobs=1))[1]


def test_a_json_schema_is_passed_on_and_other_forms_are_refused(opened, engine):
    read(opened().start(HELLO, constraint=Constraint.json_schema({"type": "object"})))
    assert engine.chats[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    with pytest.raises(CannotDo, match="only to a JSON schema"):
        opened().start(HELLO, constraint=Constraint.choice(["a"]))


def test_a_reply_that_comes_whole_is_taken_too(opened, engine):
    model = opened()
    engine.content_type = "application/json"
    engine.has_usage = False
    body = {"model": "small", "choices": [{"message": {"content": "All of it."}, "finish_reason": "stop"}]}
    engine.script = [json.dumps(body).encode(), CLOSE]
    assert read(model.start(HELLO))[0] == "All of it."


# -- what it can do

def test_an_engine_that_goes_on_with_messages_is_found_out_by_its_count(opened, engine):
    model = opened()
    assert CONTINUE not in model.info()["cannot"]
    engine.script = [text(" went on."), end()]
    assert read(model.start(HELLO, reply_prefix="It"))[0] == " went on."
    assert engine.chats[0]["messages"][-1] == {"role": "assistant", "content": "It"}
    assert engine.chats[0]["continue_final_message"] is True
    with pytest.raises(CannotDo, match="not with thoughts"):
        model.start(HELLO, reply_thinking="Hm")
    with pytest.raises(CannotDo, match="'tales' lies beside a model of this machine"):
        model.start(HELLO, adapter="tales")
    with pytest.raises(CannotDo, match="too few to try samplers on"):
        model.next_token(HELLO, SamplingParams())


@pytest.mark.parametrize("lacks", ["continues", "has_usage"])
def test_one_that_does_not_says_so(opened, engine, lacks):
    setattr(engine, lacks, False)
    model = opened()
    assert "cannot be continued" in model.info()["cannot"][CONTINUE]
    with pytest.raises(CannotDo, match="cannot be continued"):
        model.start(HELLO, reply_prefix="It")


def test_who_speaks_next_is_ranked_by_what_the_engine_echoes(opened, engine):
    model = opened()
    assert RANK not in model.info()["cannot"]
    assert model.rank_speakers([("Otto", "Hello, Lin.")], ["Lin", "Marlow"]) == [-6.0, -3.0]
    engine.echoes = False
    with pytest.raises(CannotDo, match="another turn order"):
        model.rank_speakers([("Otto", "Hello.")], ["Lin", "Otto"])
    with pytest.raises(CannotDo, match="another turn order"):
        opened(anew=True).rank_speakers([("Otto", "Hello.")], ["Lin", "Otto"])


def test_an_engine_that_refuses_unknown_fields_is_asked_without_them(opened, engine):
    engine.knows = FIELDS
    model = opened()
    read(model.start(HELLO))
    assert "top_k" not in engine.chats[0] and engine.chats[0]["top_p"] == 0.95
    engine.knows = {"model", "messages", "stream", "max_completion_tokens"}
    read(opened(anew=True).start(HELLO))
    assert engine.chats[1].keys() == engine.knows


@pytest.mark.parametrize(("listed", "facts", "length"), [
    ({"max_model_len": 4096}, {}, 4096), ({"context_length": 8192}, {}, 8192),
    ({"meta": {"n_ctx": 512}}, {}, 512),
    ({}, {"/props": {"default_generation_settings": {"n_ctx": 2048}}}, 2048),
    ({}, {"/info": {"max_total_tokens": 1024}}, 1024),
    ({}, {"/api/ps": {"models": [{"name": "big", "context_length": 1}, {"name": "small",
                                                                        "context_length": 32768}]}}, 32768),
    ({}, {"/v1/model": {"parameters": {"max_seq_len": 777}}}, 777),
    ({}, {"/api/v0/models": {"data": [{"id": "small", "loaded_context_length": 99}]}}, 99),
    ({"max_model_len": "many"}, {"/info": [1]}, None)])
def test_the_length_of_the_context_is_read_where_engines_tell_it(opened, engine, listed, facts, length):
    engine.models[0] |= listed
    engine.facts = facts
    assert opened().info()["max_seq_len"] == length


def test_a_long_conversation_is_cut_to_what_the_context_should_hold(opened, engine):
    engine.models[0]["max_model_len"] = 200
    model = opened()
    system = ChatMessage("system", "Be brief.")
    turns = [ChatMessage(role, "word " * 20) for _ in range(5) for role in ("user", "assistant")]
    messages = [system, *turns, ChatMessage("user", "the last")]
    fit = model.fit(messages, 50)
    assert 1 < fit.first_index < 11 and fit.prompt_tokens <= 150 and not fit.is_exact
    reply = model.start(messages, SamplingParams(max_new_tokens=50))
    read(reply)
    sent = engine.chats[0]["messages"]
    assert reply.first_index == fit.first_index
    assert sent[0]["content"] == "Be brief." and sent[-1]["content"] == "the last"
    assert len(sent) == 1 + len(messages) - fit.first_index
    long = [ChatMessage("user", "word " * 500)]
    reply = model.start(long, SamplingParams(max_new_tokens=50), shorten=True)
    read(reply)
    assert reply.is_shortened and "[...]" in engine.chats[-1]["messages"][-1]["content"]


def test_a_prompt_that_is_too_long_after_all_is_sent_again_with_less(opened, engine):
    model = opened()
    messages = [ChatMessage("user", f"{number} " + "word " * 20) for number in range(10)]
    refusal = (400, '{"error": {"message": "This model\'s maximum context length is 100 tokens."}}', {})
    engine.statuses = [refusal]
    reply = model.start(messages)
    assert read(reply)[2].finish_reason == "eos"
    assert reply.first_index > 0
    assert len(engine.chats[1]["messages"]) < len(engine.chats[0]["messages"]) == 10
    engine.statuses = [refusal] * 3
    assert "maximum context length" in failure(model.start(messages))[1]


def test_how_full_the_context_is_is_learnt_from_what_was_counted(opened, engine):
    model = opened()
    messages = [ChatMessage("user", "word " * 200)]  # 1,000 bytes, 200 tokens
    assert model.fit(messages, 10).prompt_tokens > 250
    read(model.start(messages))
    assert 195 <= model.fit(messages, 10).prompt_tokens <= 210


# -- how it fails: the text that has come is kept, and a sentence says why no more does

def test_an_engine_that_cannot_be_reached_is_told_and_found_again(engines):
    other = StandInEngine("small")
    with other.running():
        pass  # its port is free now
    engines.add(EngineAddress(other.url, "Late"))
    offer = engines.offer_of(EngineAddress(other.url).id, "small")
    with pytest.raises(EngineProblem, match=rf"Late \({other.host}\) cannot be reached: Connection refused"):
        engines.open(offer, lambda what, share: None)
    with other.running():
        model = engines.open(offer, lambda what, share: None)
        assert read(model.start(HELLO))[0] == "You said: Hello there"
    assert "cannot be reached" in failure(model.start(HELLO))[1]
    assert model.status()["problem"]
    with other.running():
        assert read(model.start(HELLO))[0] == "You said: Hello there"
    assert model.status()["problem"] is None


@pytest.mark.parametrize(("answer", "told"), [
    ((401, '{"error": {"message": "Incorrect API key"}}', {}), "refuses the key: Incorrect API key"),
    ((403, "", {}), "refuses the key"),
    ((404, '{"error": {"message": "No such model."}}', {}), "refused the request (404): No such model"),
    ((404, '{"object": "error", "message": "gone"}', {}), "refused the request (404): gone"),
    ((400, '{"detail": [{"msg": "temperature is wrong"}]}', {}), "(400): temperature is wrong"),
    ((429, '{"error": "slow down"}', {"Retry-After": "3600"}), "now: slow down. It asks for 3600 seconds"),
    ((307, "", {"Location": "http://elsewhere.example/v1"}), "on to http://elsewhere.example/v1"),
    ((422, "<html>" + "x" * 5000, {"Content-Type": "text/html"}), "xxx …")])
def test_a_refusal_is_a_sentence(opened, engine, answer, told):
    model = opened()
    engine.statuses = [answer]
    written, said = failure(model.start(HELLO))
    assert written == "" and told in said and said.startswith("The engine Box (127.0.0.1:")
    assert len(said) < 500
    assert len(engine.chats) == 1  # a redirect is not followed, and nothing else is tried again


@pytest.mark.parametrize(("status", "told"), [
    (429, "takes no more requests now: full."), (500, "failed (500): full"), (503, "failed (503): full")])
def test_a_busy_engine_is_asked_twice_more_when_it_says(opened, engine, status, told):
    model = opened()
    answer = (status, '{"error": {"message": "full"}}', {"Retry-After": "0.01"})
    engine.statuses = [answer] * 2
    assert read(model.start(HELLO))[0] == "You said: Hello there"
    engine.statuses = [answer] * 3
    assert told in failure(model.start(HELLO))[1]
    assert len(engine.chats) == 6


@pytest.mark.parametrize(("script", "told"), [
    ([text("One "), CLOSE], "closed the connection in the middle"),
    ([text("One "), b"data: {broken\n\n"], "no JSON: '{broken'"),
    ([text("One "), b"data: [1]\n\n"], "sends list where an object"),
    ([text("One "), b'data: {"error": {"message": "out of memory"}}\n\n'], "broke off: out of memory"),
    ([text("One "), b'event: error\ndata: {"error": "worker died"}\n\n'], "broke off: worker died"),
    ([text("One "), b"data: " + b"x" * (5 << 20)], "a line without an end"),
    ([text("One "), *[b"data: " + b"x" * (1 << 20) + b"\n"] * 5], "more than a reply can have"),
    ([text("One "), {"model": "other", "choices": []}], "has other where small was"),
    ([text("One "), end("content_filter")], "ended the reply: content_filter")],
    ids=["closed", "bad JSON", "no object", "error within", "error event", "huge line",
         "huge event", "changed model", "content filter"])
def test_what_had_come_is_kept_when_the_stream_breaks(opened, engine, script, told):
    model = opened()
    engine.script = script
    written, said = failure(model.start(HELLO))
    assert written == "One " and told in said and "Box" in said


@pytest.mark.parametrize(("seconds", "script", "kept"), [
    ((60.0, 0.2), [text("One "), STALL], "One "), ((0.2, 60.0), [STALL], "")],
    ids=["in the middle", "at once"])
def test_an_engine_that_stalls_is_given_up_after_a_while(opened, engine, seconds, script, kept):
    model = opened()
    model._connection._first_seconds, model._connection._stall_seconds = seconds
    engine.script = script
    written, said = failure(model.start(HELLO))
    assert written == kept and "said nothing for 0.2 seconds" in said
    assert engine.closed.wait(10)


@pytest.mark.parametrize(("kind", "told"), [("text/html", "text/html"), ("", "without a type")])
def test_an_answer_of_another_type_is_no_reply(opened, engine, kind, told):
    model = opened()
    engine.content_type = kind
    written, said = failure(model.start(HELLO))
    assert written == "" and told in said and "usually end in /v1" in said


def test_odd_chunks_that_say_nothing_are_passed_over(opened, engine):
    engine.script = [{"choices": []}, {"choices": None}, {"choices": [5]}, chunk({"content": None}),
                     b": a comment\n\n", b"event: ping\ndata: {}\n\n", chunk({"content": 5}),
                     b'data:{"choices":[{"delta":{"content":"tight"}}]}\r\n\r\n', text("."), end()]
    assert read(opened().start(HELLO))[0] == "tight."


# -- cancelling

@pytest.mark.parametrize("script", [[STALL], [text("One "), STALL]], ids=["before a word", "in the middle"])
def test_cancelling_closes_the_connection_and_keeps_the_text(opened, engine, engines, script):
    model = opened()
    engine.script = script
    reply = model.start(HELLO)
    events = reply.events()
    if len(script) > 1:
        assert next(events).text == "One "
    else:
        wait_until(lambda: engine.chats)
    reply.cancel()
    done = list(events)[-1]
    assert isinstance(done, ReplyDone) and done.finish_reason == "cancelled"
    assert engine.closed.wait(1.0)
    assert model.status() == {"running": 0, "waiting": 0, "problem": None}


def test_a_held_back_beginning_of_a_stop_string_is_kept_when_it_is_cancelled(opened, engine):
    engine.script = [text("One\nUse"), STALL]
    reply = opened().start(HELLO, SamplingParams(stop=("\nUser:",)))
    events = reply.events()
    assert next(events).text == "One"
    reply.cancel()
    assert next(events).text == "\nUse"
