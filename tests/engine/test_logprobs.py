"""Log-probabilities of chosen, likeliest and prompt tokens, against float64 log_softmax of the logits."""

from __future__ import annotations

import pytest
import torch

from model.engine.engine import Engine
from model.engine.logprobs import token_logprobs
from model.engine.request import TokenEvent, TokenLogprob
from tests.helpers.tiny_engine import NO_EOS, load, params, prompt, quantized_model


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    """An exact one, where rows of a reply and of a prompt come to the same bits on every machine."""
    engine = load(quantized_model(tmp_path_factory.mktemp("tiny")), exact=True, cache="fp32")
    yield engine
    engine.close()


def expected(engine: Engine, token_ids: list[int]) -> torch.Tensor:
    return engine.logits(token_ids).double().log_softmax(-1)


def check(found: list[TokenLogprob | None], table: torch.Tensor, token_ids: list[int], num_top: int) -> None:
    """Row i of the table is about token_ids[i]."""
    assert [one.token_id for one in found] == token_ids
    for one, row in zip(found, table, strict=True):
        values, ids = row.topk(num_top)
        assert one.logprob == pytest.approx(float(row[one.token_id]), abs=1e-5)
        assert one.entropy == pytest.approx(float(-(row.exp() * row).sum()), abs=1e-5)
        assert [token_id for token_id, _ in one.top] == ids.tolist()
        assert [value for _, value in one.top] == pytest.approx(values.tolist(), abs=1e-5)


@pytest.mark.parametrize("settings", [
    params(temperature=0.0), params(temperature=1.3, top_p=0.5, repetition_penalty=1.5, logit_bias={3: 9.0}),
], ids=["greedy", "with cuts, a penalty and a bias"])
def test_each_token_of_a_reply_comes_with_the_models_own_log_probability(engine: Engine, settings: object):
    start = prompt(40)
    events = [event for event in engine.submit(start, settings, NO_EOS, logprobs=5).events()
              if isinstance(event, TokenEvent)]
    made = [event.token_id for event in events]
    table = expected(engine, start + made)[len(start) - 1:-1]
    check([event.logprob for event in events], table, made, 5)


def test_without_being_asked_for_there_are_none_and_zero_alternatives_are_possible(engine: Engine):
    def logprobs(**options: object) -> list[TokenLogprob | None]:
        return [event.logprob for event in engine.submit(prompt(5), params(), NO_EOS, **options).events()
                if isinstance(event, TokenEvent)]

    assert logprobs() == [None] * 20
    assert all(one is not None and one.logprob < 0 and one.top == () for one in logprobs(logprobs=0))


@pytest.mark.parametrize("length", [2, 70, 300])
def test_the_tokens_of_a_prompt_are_scored_all_but_the_first(engine: Engine, length: int):
    token_ids = prompt(length, seed=length)
    check(engine.score(token_ids, 3), expected(engine, token_ids)[:-1], token_ids[1:], 3)
    assert [one.top for one in engine.score(token_ids)] == [()] * (length - 1)
    assert engine.score(token_ids[:1]) == []


@pytest.mark.parametrize("count", [-1, 21, 1.5, True])
def test_an_impossible_number_of_alternatives_is_refused(engine: Engine, count: object):
    with pytest.raises(ValueError, match="expected a whole number from 0 to 20"):
        engine.submit(prompt(5), params(), NO_EOS, logprobs=count)
    with pytest.raises(ValueError, match="expected a whole number from 0 to 20"):
        engine.score(prompt(5), count)


@pytest.mark.parametrize("vocab_size", [7, 300, 3000, 2560])
def test_the_likeliest_are_found_wherever_they_stand(vocab_size: int):
    logits = torch.randn(5, vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * 4
    logits[0, -3:] = 50.0 + torch.arange(3)
    logits[1, :3] = -torch.inf
    table = logits.double().log_softmax(-1)
    for num_top in (0, 1, 6, 10):
        for one, row in zip(token_logprobs(logits, [3, 4, 5, 6, -1], num_top), table, strict=True):
            values, ids = row.topk(min(num_top, vocab_size))
            assert [token_id for token_id, _ in one.top] == ids.tolist()
            assert [value for _, value in one.top] == pytest.approx(values.tolist(), abs=1e-5)
            assert one.entropy == pytest.approx(float(torch.special.entr(row.exp()).sum()), abs=1e-5)
