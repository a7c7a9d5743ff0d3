"""Classifier-free guidance: what it computes, and that the two sequences of a request are one for others."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.guidance import guided
from model.engine.loading import load_engine
from model.engine.request import FailedEvent, FinishedEvent, PromptProgress, SamplingParams, TokenEvent
from model.network.place import Place
from tests.engine.test_engine import FailingOnce, holding_after_the_first_token
from tests.engine.test_speculation import drafting
from tests.engine.test_stages import captured_places
from tests.helpers.adapters import random_products, write_peft
from tests.helpers.family_models import write_family
from tests.helpers.tiny_engine import NO_EOS, load, outcome, params, prompt, shrink, tokens
from tests.helpers.tiny_models import TINY, linear_sizes, write_model

EXACT = {"exact": True, "cache": "fp32"}
KINDS = ("qwen 3", "gemma 3", "phi 3", "qwen 3.5")
"""Layers that see everything, windows, rotation that depends on the length, states."""


def transformers_guided(logits: torch.Tensor, others: torch.Tensor, scale: float) -> torch.Tensor:
    """By its own processor, which has the other logits from a model: here from one that gives just these."""
    from types import SimpleNamespace

    from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor

    def model(*_ids: Any, **_options: Any) -> Any:
        return SimpleNamespace(logits=others[None, None], get=lambda *_: None)

    ids = torch.tensor([[1]])
    processor = UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, model, ids, use_cache=False)
    return processor(ids, logits[None])[0]


def reply(engine: Engine, token_ids: list[int], guide: list[int], settings: SamplingParams,
          **more: Any) -> list[int]:
    return outcome(engine.submit(token_ids, settings, NO_EOS, guide=guide, **more))[0]


def guiding(**changes: Any) -> SamplingParams:
    return params(**{"guidance_scale": 1.7, **changes})


# ---- what is computed ----------------------------------------------------------------------------------


def test_guidance_by_hand():
    """p = 1/2, 1/4, 1/4 and q = 1/4, 1/2, 1/4: twice as far from q as p is gives p * p / q."""
    p, q = torch.tensor([2.0, 1, 1]).log(), torch.tensor([1.0, 2, 1]).log() + 5
    assert guided(p, q, 2.0).exp().tolist() == pytest.approx([1, 1 / 8, 1 / 4])
    assert guided(p, q, 1.0).exp().tolist() == pytest.approx([1 / 2, 1 / 4, 1 / 4])
    assert guided(p, q, 0.0).exp().tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 4])


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 10.0])
def test_guidance_is_that_of_float64_and_of_transformers(scale: float):
    generator = torch.Generator().manual_seed(1)
    p, q = (torch.randn(50_000, generator=generator) * 5 for _ in range(2))
    exact = [x.double().log_softmax(-1) for x in (p, q)]
    got = guided(p, q, scale)
    assert (got - (exact[1] + scale * (exact[0] - exact[1]))).abs().max() < 1e-4 * (1 + scale)
    assert torch.equal(got, transformers_guided(p, q, scale))


def test_a_token_that_one_of_both_rules_out_is_as_likely_as_without_guidance():
    """transformers gives no number there."""
    p, q = torch.tensor([0.0, -math.inf, 0.0, -math.inf]), torch.tensor([0.0, 0.0, -math.inf, -math.inf])
    for scale in (0.0, 1.5):
        got = guided(p, q, scale).exp()
        assert got.tolist() == pytest.approx([0.5, 0.0, 0.5, 0.0])
    assert guided(p * math.nan, q, 1.5).isnan().all()


def test_a_greedy_reply_is_the_best_of_the_guided_logits(folder: Path):
    """Of all tokens before it, in float64."""
    engine = load(folder, **EXACT)
    token_ids, guide = prompt(40), prompt(55, seed=3)
    made = reply(engine, token_ids, guide, guiding(temperature=0.0))
    for index in range(len(made)):
        p, q = (engine.logits(ids + made[:index])[-1].double().log_softmax(-1) for ids in (token_ids, guide))
        assert made[index] == int((q + 1.7 * (p - q)).argmax())
    engine.close()


def test_penalties_count_what_is_in_the_prompt_alone(folder: Path):
    """They act on what guidance gives; the guide has the token that would else be next."""
    engine = load(folder, **EXACT)
    token_ids, guide = prompt(5), prompt(30, seed=3)
    p, q = (engine.logits(ids)[-1].double().log_softmax(-1) for ids in (token_ids, guide))
    mixed, best = q + 1.7 * (p - q), []
    for counted in (token_ids, token_ids + guide):
        ids = torch.tensor(counted).unique()
        penalized = mixed.clone()
        penalized[ids] = torch.where(mixed[ids] > 0, mixed[ids] / 2, mixed[ids] * 2)
        best.append(int(penalized.argmax()))
    settings = guiding(temperature=0.0, repetition_penalty=2.0, max_new_tokens=1)
    assert reply(engine, token_ids, guide, settings) == best[:1] != best[1:]
    engine.close()


def test_replies_are_those_of_transformers(tmp_path: Path):
    """generate(guidance_scale, negative_prompt_ids), and without the latter from the last token on."""
    model = write_family(tmp_path, "llama yarn")
    engine = load(tmp_path, **EXACT)
    for token_ids, guide in ((prompt(30), prompt(20, seed=2)), (prompt(25, seed=5), None)):
        theirs = model.generate(
            torch.tensor([token_ids]), attention_mask=torch.ones(1, len(token_ids)), do_sample=False,
            max_new_tokens=12, min_new_tokens=12, guidance_scale=2.5,
            negative_prompt_ids=None if guide is None else torch.tensor([guide]))[0, len(token_ids):].tolist()
        settings = params(temperature=0.0, max_new_tokens=12, guidance_scale=2.5,
                          banned_tokens=(model.config.eos_token_id,))
        assert reply(engine, token_ids, guide or token_ids[-1:], settings) == theirs
    engine.close()


def test_1_is_off_and_the_log_probabilities_are_the_models_own(engine: Engine):
    token_ids, guide = prompt(40), prompt(20, seed=3)
    assert reply(engine, token_ids, guide, guiding(guidance_scale=1.0)) == tokens(engine, token_ids)
    assert reply(engine, token_ids, guide, guiding()) != tokens(engine, token_ids)
    for prompts in ((token_ids, guide), (guide, token_ids)):  # the one or the other is there last
        events = list(engine.submit(prompts[0], guiding(max_new_tokens=3), NO_EOS, guide=prompts[1],
                                    logprobs=2).events())
        found = [event.logprob for event in events if isinstance(event, TokenEvent)]
        so_far = [*prompts[0], *(one.token_id for one in found)]
        scored = engine.score(so_far, 2)[-3:]
        assert [one.logprob for one in found] == pytest.approx([one.logprob for one in scored], abs=0.1)
        assert len({one.logprob for one in found}) == 3


# ---- two sequences of a request, and the others --------------------------------------------------------

LENGTHS = ((5, 300), (100, 30), (31, 32), (64, 64), (1, 90), (200, 7))


@pytest.mark.parametrize("changes", [{}, {"prefill_chunk": 32}, EXACT], ids=["int8", "small chunks", "exact"])
def test_a_reply_is_the_same_alone_and_among_others(folder: Path, changes: dict[str, Any],
                                                    monkeypatch: pytest.MonkeyPatch):
    """Guided ones and others; the rows of logits are sampled five at a time."""
    jobs = [(prompt(own, seed=own), prompt(other, seed=other) if index % 3 else None,
             params(seed=index, temperature=0.3 * index, guidance_scale=1 + index % 3 / 2,
                    repetition_penalty=1.1)) for index, (own, other) in enumerate(LENGTHS)]
    alone = []
    for job, guide, settings in jobs:
        engine = load(folder, **changes)
        alone.append(reply(engine, job, guide, settings))
        engine.close()
    monkeypatch.setattr("model.engine.runner.LOGIT_ROWS", 5)
    engine = load(folder, **changes)
    requests = [engine.submit(job, settings, NO_EOS, guide=guide) for job, guide, settings in jobs]
    assert [outcome(request)[0] for request in requests] == alone
    engine.close()


@pytest.mark.parametrize("kind", KINDS)
def test_replies_that_are_thrown_out_come_out_the_same(tmp_path: Path, kind: str):
    """The cache holds one request with its guide; others wait for it, and are read again. Then all once more,
    from what the cache knows; and by steps that are recorded, as on a GPU."""
    write_family(tmp_path, kind)
    places = captured_places()[0]
    engines = [load(tmp_path, prefill_chunk=32), load(tmp_path, prefill_chunk=32, max_seq_len=128),
               load_engine(tmp_path, EngineConfig(threads=1, prefill_chunk=32), places=places)]
    roomy, tight, recorded = engines
    try:
        shrink(tight, 7, 7)
        jobs = [(prompt(own, seed=own), prompt(other, seed=other)) for own, other in
                ((20, 40), (40, 20), (45, 45), (33, 5))]
        settings = guiding(max_new_tokens=30)
        want = [reply(roomy, *job, settings) for job in jobs]
        for engine in (tight, tight, recorded):
            requests = [engine.submit(job, settings, NO_EOS, guide=guide) for job, guide in jobs]
            assert [outcome(request)[0] for request in requests] == want
            assert engine.status()["pages_used"] == 0
    finally:
        for engine in engines:
            engine.close()


def test_what_goes_on_from_the_cache_is_the_same(engine: Engine, folder: Path):
    token_ids, guide = prompt(150), prompt(90, seed=3)
    first = reply(engine, token_ids, guide, guiding())
    made, last = outcome(engine.submit(token_ids, guiding(), NO_EOS, guide=guide))
    assert made == first and isinstance(last, FinishedEvent) and last.stats.cached_tokens == 149 + 89
    begun = first[:8]
    rest, last = outcome(engine.submit(token_ids + begun, guiding(max_new_tokens=12, temperature=0.0), NO_EOS,
                                       guide=guide + begun))
    assert last.stats.cached_tokens == 157 + 97
    fresh = load(folder)
    assert reply(fresh, token_ids + begun, guide + begun, guiding(max_new_tokens=12, temperature=0.0)) == rest
    fresh.close()


def test_both_are_read_with_the_adapter(folder: Path, tmp_path: Path):
    base = write_model(tmp_path / "model")
    sizes = {name: size for layer in range(2) for name, size in linear_sizes(TINY, layer).items()}
    write_peft(tmp_path / "adapter", random_products(sizes, rank=3), lora_alpha=8)
    engine = load(base, adapters=[("a", tmp_path / "adapter")], **EXACT)
    token_ids, guide = prompt(20), prompt(30, seed=3)
    made = reply(engine, token_ids, guide, guiding(temperature=0.0, max_new_tokens=4), adapter="a")
    for index in range(len(made)):
        p, q = (engine.logits(ids + made[:index], adapter="a")[-1].log_softmax(-1)
                for ids in (token_ids, guide))
        assert made[index] == int((q + 1.7 * (p - q)).argmax())
    engine.close()


def test_nothing_is_guessed_ahead(folder: Path):
    engine, plain = drafting(folder), load(folder, speculation=False)
    token_ids = prompt(10) * 5
    made, last = outcome(engine.submit(token_ids, guiding(temperature=0.0), NO_EOS, guide=token_ids[:30]))
    assert made == reply(plain, token_ids, token_ids[:30], guiding(temperature=0.0))
    assert isinstance(last, FinishedEvent) and last.stats.drafted_tokens == 0
    engine.close()
    plain.close()


def test_what_was_read_for_both_is_counted(engine: Engine):
    events = list(engine.submit(prompt(100), guiding(), NO_EOS, guide=prompt(41, seed=3)).events())
    progress = [event for event in events if isinstance(event, PromptProgress)]
    assert progress[-1] == PromptProgress(141, 141, 0) and len(set(progress)) == len(progress)
    assert events[-1].stats.prompt_tokens == 141 and events[-1].stats.new_tokens == 20
    tally = engine.tally()
    assert (tally.prompt_tokens, tally.new_tokens, tally.finished["length"]) == (141, 20, 1)


# ---- ends ----------------------------------------------------------------------------------------------


def test_a_reply_ends_where_the_context_of_either_does(folder: Path):
    engine = load(folder, max_seq_len=64)
    for own, other in ((60, 20), (20, 60)):
        made, last = outcome(engine.submit(prompt(own), guiding(), NO_EOS, guide=prompt(other)))
        assert len(made) == 4 and isinstance(last, FinishedEvent) and last.reason == "context"
    shrink(engine, 2)
    made, last = outcome(engine.submit(prompt(20), guiding(), NO_EOS, guide=prompt(30)))
    assert len(made) == 2 and isinstance(last, FinishedEvent) and last.reason == "context", "a page each"
    engine.close()


def test_what_cannot_be_is_refused_at_once(engine: Engine):
    with pytest.raises(ValueError, match=r"guidance_scale is 1\.7, but there is no guide"):
        engine.submit(prompt(5), guiding(), NO_EOS)
    with pytest.raises(ValueError, match="the prompt of the guide is empty"):
        engine.submit(prompt(5), guiding(), NO_EOS, guide=[])
    shrink(engine, 10)
    assert engine.guided_seq_len == 160
    with pytest.raises(ValueError, match=r"the prompt has 200 tokens and that of its guide 121; the cache "
                                         r"\([0-9,]+ tokens\) cannot hold both and a reply"):
        engine.submit(prompt(200), guiding(), NO_EOS, guide=prompt(121))
    engine._scheduler.max_running = 1
    with pytest.raises(ValueError, match="cannot hold both"):
        engine.submit(prompt(2), guiding(), NO_EOS, guide=prompt(2))
    engine._scheduler.max_running = 256


def test_cancelling_takes_both_out(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    go_on = holding_after_the_first_token(engine, monkeypatch)
    request = engine.submit(prompt(200), guiding(max_new_tokens=200), NO_EOS, guide=prompt(150, seed=3))
    events = request.events()
    while not isinstance(next(events), TokenEvent):
        pass
    assert engine.status()["running"] == 1
    request.cancel()
    go_on.set()
    rest = list(events)
    assert isinstance(rest[-1], FinishedEvent) and rest[-1].reason == "cancelled"
    assert engine.status()["pages_used"] == 0 and engine.tally().finished["cancelled"] == 1


def test_a_step_that_fails_ends_the_request_once_and_the_next_works(folder: Path):
    ops = FailingOnce()
    engine = load_engine(folder, EngineConfig(), places=[Place.on_host(ops, 1 << 30)])
    want = reply(engine, prompt(40), prompt(30, seed=3), guiding(max_new_tokens=4))
    running = engine.submit(prompt(40, seed=1), guiding(max_new_tokens=400), NO_EOS, guide=prompt(20))
    events = running.events()
    while not isinstance(next(events), TokenEvent):
        pass
    ops.fails.set()
    last = list(events)[-1]
    assert isinstance(last, FailedEvent) and engine.tally().finished["failed"] == 1
    assert reply(engine, prompt(40), prompt(30, seed=3), guiding(max_new_tokens=4)) == want
    assert engine.status()["pages_used"] == 0
    engine.close()


def test_closing_the_engine_answers_a_guided_request_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    engine = load(folder)
    go_on = holding_after_the_first_token(engine, monkeypatch)
    request = engine.submit(prompt(20), guiding(max_new_tokens=400), NO_EOS, guide=prompt(20))
    threading.Timer(0.05, go_on.set).start()
    engine.close()
    assert isinstance(outcome(request)[1], FailedEvent) and request._events.empty()
