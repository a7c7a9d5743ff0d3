"""What is told of the next token, against the logits themselves and the float64 reference."""

from __future__ import annotations

import math
import random

import pytest
import torch

from model import ChatModel, NextToken, PromptProgress, ReplyDone, SamplingParams, ScoredToken, load_model
from model.engine.next_token import NUM_LIKELIEST, next_logits
from model.engine.request import TokenEvent
from model.kernels.reference.sampling import penalized_logits
from model.kernels.sampling import SamplingRow
from tests.helpers.text_samples import write_chat_model

ASKED = [{"role": "user", "content": "Tell me something."}]


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    with load_model(write_chat_model(tmp_path_factory.mktemp("models") / "small"), threads=1, exact=True,
                    cache="fp32") as llm:
        yield llm


def found(reading) -> NextToken:
    *progress, told, done = list(reading.events())
    assert all(isinstance(event, PromptProgress) for event in progress)
    assert isinstance(done, ReplyDone) and isinstance(told, NextToken)
    return told


def test_what_has_occurred_and_the_likeliest_stand_one_by_one_and_the_rest_in_groups():
    """Token 900 came three tokens ago and once in the reply; 901 is asked for; 5 cannot come."""
    logits = torch.linspace(10, 0, 1000)
    logits[5], logits[6] = -math.inf, math.nan
    told = next_logits(logits, [900, 3, 3, 7], reply_length=1, others=[901, 5])
    ids = [one.token_id for one in told.candidates]
    assert len(ids) == NUM_LIKELIEST + 2 and ids[:7] == [0, 1, 2, 3, 4, 7, 8] and ids[-2:] == [900, 901]
    by_id = {one.token_id: one for one in told.candidates}
    assert (by_id[900].back, by_id[900].count, by_id[3].back, by_id[7].back) == (3, 0, 1, 0)
    assert by_id[7].count == 1 and by_id[901].back is None
    rest = torch.tensor([i not in ids and i not in (5, 6) for i in range(1000)])
    assert sum(count for _, count in told.rest) == int(rest.sum())
    for temperature in (1.0, 0.5, 3.0):
        weights = sum(count * math.exp(logit / temperature) for logit, count in told.rest)
        exact = float((logits[rest].double() / temperature).exp().sum())
        assert weights == pytest.approx(exact, rel=1e-9 if temperature == 1 else 1e-5)
    assert [logit for logit, _ in told.rest] == sorted((logit for logit, _ in told.rest), reverse=True)


@pytest.mark.parametrize("seed", range(8))
def test_dry_can_be_computed_from_what_is_told_for_every_range_and_length(seed: int):
    rng = random.Random(seed)
    history = [rng.randrange(3) for _ in range(rng.randrange(2, 40))]
    breaks = [int(rng.random() < 0.1) for _ in history]
    told = next_logits(torch.zeros(3), history, 0, breaks)
    for last in (-1, 1, 3, 10, 100):
        for allowed in (1, 2, 4):
            params = SamplingParams(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=allowed,
                                    dry_penalty_last_n=last)
            row = SamplingRow(params, history=torch.tensor(history, dtype=torch.int32), seed=0,
                              num_tokens=len(history), prompt_length=len(history))
            row.breaks = torch.tensor(breaks, dtype=torch.uint8)
            window = len(history) if last < 0 else min(last, len(history))
            for one in told.candidates:
                n = max((min(n, window - b) for b, n in one.repeats), default=0)
                penalty = 2.0 ** (n - allowed) if n >= allowed else 0.0
                assert penalty == -float(penalized_logits(torch.zeros(3), row)[one.token_id]), (last, allowed)


def test_a_long_history_of_one_token_takes_no_longer_than_its_length():
    """A naive comparison would take 1,256 steps for each of 100,000 places."""
    told = next_logits(torch.zeros(3), [1] * 100_000, 0)
    assert {one.token_id: one.repeats for one in told.candidates} == {0: (), 1: ((1, 1256),), 2: ()}


def test_without_a_possible_token_there_is_nothing_to_tell():
    with pytest.raises(ValueError, match="No token is possible"):
        next_logits(torch.full((4,), math.nan), [1], 0)


def test_the_next_token_is_told_as_a_reply_would_choose_it_and_nothing_is_read_twice(llm: ChatModel):
    params = SamplingParams(max_new_tokens=1, temperature=0.0)
    reply = llm.start(ASKED, params, logprobs=20, reply_name="Ann")
    first = next(event for event in reply.events() if isinstance(event, ScoredToken))
    reading = llm.next_token(ASKED, params, reply_name="Ann")
    told = found(reading)
    assert reading._found[0][0].prompt == reply._request.prompt and told.num_tokens == reply.prompt_tokens
    logits = llm.logits(reply._request.prompt)[-1]
    assert told.logits.candidates[0].token_id == first.token_id
    assert {one.token_id: one.logit for one in told.logits.candidates} == pytest.approx(
        {one.token_id: float(logits[one.token_id]) for one in told.logits.candidates}, abs=1e-5)
    total = float(logits.double().logsumexp(0))
    assert [one.logit - total for one in told.logits.candidates[:20]] == pytest.approx(
        [one.logprob for one in first.top], abs=1e-4)
    texts = dict(zip((one.token_id for one in told.logits.candidates), told.texts, strict=True))
    assert texts[first.token_id] == first.data and told.reply_length == 0
    assert told.ends and told.ends == llm.tokenizer.eos_ids & texts.keys() and told.ends <= told.control
    done = list(llm.next_token(ASKED, params, reply_name="Ann").events())[-1]
    assert done.stats.cached_tokens == done.stats.prompt_tokens - 1


def test_with_guidance_the_guided_logits_are_told(llm: ChatModel):
    params = SamplingParams(max_new_tokens=1, temperature=0.0, guidance_scale=2.5,
                            negative_prompt="You shout.")
    messages = [{"role": "system", "content": "You whisper."}, *ASKED]
    reply = llm.start(messages, params)
    made = [event.token_id for event in reply._request.events() if isinstance(event, TokenEvent)]
    reading = llm.next_token(messages, params)
    told = found(reading)
    p, q = (llm.logits(request.prompt)[-1].double().log_softmax(-1) for request, _ in reading._found)
    mixed = q + 2.5 * (p - q)
    assert [told.logits.candidates[0].token_id] == made == [int(mixed.argmax())] != [int(p.argmax())]
    assert {one.token_id: one.logit for one in told.logits.candidates} == pytest.approx(
        {one.token_id: float(mixed[one.token_id]) for one in told.logits.candidates}, abs=1e-4)
    reading = llm.next_token(messages, params)
    reading.cancel()
    assert list(reading.events())[-1].finish_reason in ("cancelled", "length")


def test_within_a_reply_its_tokens_count_as_the_replys(llm: ChatModel):
    params = SamplingParams(max_new_tokens=20, seed=5, temperature=1.0)
    tokens = [event for event in llm.start(ASKED, params, logprobs=0).events()
              if isinstance(event, ScoredToken) and not event.is_control]
    first, *others = [one.data for one in tokens[:6]]
    told = found(llm.next_token(ASKED, params, reply_prefix=first.decode(errors="replace"),
                                reply_tokens=others))
    assert told.reply_length == 6
    counted = {one.token_id: one.count for one in told.logits.candidates if one.count}
    assert {one.token_id for one in tokens[1:6]} <= counted.keys() and sum(counted.values()) == 6
    with pytest.raises(ValueError, match="another model's"):
        llm.next_token(ASKED, params, reply_prefix="One", reply_tokens=[b" extraordinarily-long-token"])


def test_once_it_is_cancelled_nothing_is_told(llm: ChatModel):
    reading = llm.next_token(ASKED, SamplingParams())
    reading.cancel()
    last = list(reading.events())[-1]
    assert isinstance(last, ReplyDone) and last.finish_reason in ("cancelled", "length")
