"""Replies token by token: scored again, and gone on with behind exactly these tokens."""

from __future__ import annotations

import pytest

from model import ChatModel, ReplyDone, SamplingParams, ScoredToken, TextDelta, load_model
from tests.helpers.text_samples import write_chat_model

ASKED = [{"role": "user", "content": "Tell me something."}]


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    with load_model(write_chat_model(tmp_path_factory.mktemp("models") / "small"), threads=1) as llm:
        yield llm


def written(reply) -> tuple[list[ScoredToken], str, ReplyDone]:
    events = list(reply.events())
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return [event for event in events if isinstance(event, ScoredToken)], text, events[-1]


def token(llm: ChatModel, data: bytes) -> int:
    (token_id,) = llm.tokenizer.ids_of([data])
    return token_id


def only(*token_ids: int) -> dict[int, float]:
    return dict.fromkeys(token_ids, 100.0)


def test_a_reply_is_scored_from_its_first_token_on_behind_what_the_cache_has(llm: ChatModel):
    params = SamplingParams(max_new_tokens=20, seed=5, temperature=1.0)
    _, _, done = written(llm.start(ASKED, params))
    text = "The fox jumps over the lazy dog."
    reply = llm.scored_reply(ASKED, text, top=3)
    tokens, same, end = written(reply)
    assert same == text and end.finish_reason == "length"
    assert b"".join(one.data for one in tokens).decode().lstrip() == text
    assert end.stats.cached_tokens >= done.stats.prompt_tokens - 1
    expected = llm._engine.score(reply._request.prompt, 3)[-len(tokens):]
    assert [one.token_id for one in tokens] == [one.token_id for one in expected]
    assert [one.logprob for one in tokens] == pytest.approx([one.logprob for one in expected], abs=0.02)
    assert [one.entropy for one in tokens] == pytest.approx([one.entropy for one in expected], abs=0.02)
    assert all(len(one.top) == 3 for one in tokens)


def test_a_reply_goes_on_behind_exactly_these_tokens_which_the_cache_knows(llm: ChatModel):
    letters = [token(llm, bytes([letter])) for letter in b"theandior"]
    params = SamplingParams(max_new_tokens=40, seed=3, temperature=1.0, logit_bias=only(*letters))
    reply = llm.start(ASKED, params, logprobs=0)
    prompt = list(reply._request.prompt)
    tokens, _, _ = written(reply)
    first, *others = [one.data for one in tokens[:35]]
    fork = llm.start(ASKED, params, reply_prefix=first.decode(), reply_tokens=[*others, b"z"])
    assert fork._request.prompt == [*prompt, *(one.token_id for one in tokens[:35]), token(llm, b"z")]
    _, text, done = written(fork)
    assert text and done.stats.cached_tokens >= len(prompt) + 34
    assert done.stats.prompt_tokens == len(prompt) + 36
    as_text = llm.start(ASKED, params, reply_prefix=b"".join([first, *others, b"z"]).decode())
    assert len(as_text._request.prompt) <= len(fork._request.prompt)
    written(as_text)


def test_a_character_that_begins_with_a_token_ends_with_what_follows(llm: ChatModel):
    params = SamplingParams(max_new_tokens=1, temperature=0.0, logit_bias=only(token(llm, b"\xa9")))
    _, text, _ = written(llm.start(ASKED, params, reply_prefix="Caf", reply_tokens=[b"\xc3"]))
    assert text == "\N{LATIN SMALL LETTER E WITH ACUTE}"
    _, text, _ = written(llm.start(ASKED, params, reply_tokens=[b"\xc3"]))
    assert text == "\N{LATIN SMALL LETTER E WITH ACUTE}"
    with pytest.raises(ValueError, match="part of its first character"):
        llm.start(ASKED, params, reply_tokens=[b"\xc3"], reply_thinking="Hm.")


def test_tokens_of_another_model_count_as_text(llm: ChatModel):
    params = SamplingParams(max_new_tokens=1)
    reply = llm.start(ASKED, params, reply_prefix="One",
                      reply_tokens=[b" extraordinarily-long-token", b" caf\xc3"])
    same = llm.start(ASKED, params, reply_prefix="One extraordinarily-long-token caf")
    assert reply._request.prompt == same._request.prompt
    written(reply), written(same)
