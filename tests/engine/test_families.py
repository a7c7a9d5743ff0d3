"""Every family against transformers, and what must hold for each kind of layer whatever else is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.engine.engine import Engine
from tests.helpers.family_models import MIXTURES, VARIANTS, write_family
from tests.helpers.tiny_engine import NO_EOS, load, outcome, params, prompt, tokens

EXACT = {"exact": True, "cache": "fp32"}
KINDS = ("mistral window", "ministral 3", "qwen 3", "gemma 2", "phi 3", "olmo 3", "cohere 2", "hunyuan",
         "starcoder 2", "stablelm, parallel", "qwen 2 moe")
"""Variants that have every kind of layer among them."""


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def random_ids(length: int) -> torch.Tensor:
    return torch.randint(0, 96, (1, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_transformers(tmp_path: Path, variant: str):
    """Prompts below and above windows, spans and lengths that RoPE was made for; in chunks of 32. Rounded, a
    mixture may take another expert at a near tie, so that nine rows of ten count there."""
    model = write_family(tmp_path, variant)
    token_ids = random_ids(150)
    exact, rounded = load(tmp_path, prefill_chunk=32, **EXACT), load(tmp_path, prefill_chunk=32)
    try:
        for length in (1, 30, 150):
            with torch.no_grad():
                want = model(token_ids[:, :length], use_cache=False).logits[0]
            ids = token_ids[0, :length].tolist()
            assert relative_error(exact.logits(ids), want) < 1e-4
            of_rows = (rounded.logits(ids) - want).abs().amax(-1) / want.abs().max()
            assert of_rows.quantile(0.9 if variant in MIXTURES else 1.0) < 3e-2
    finally:
        exact.close()
        rounded.close()


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    write_family(folder, request.param)
    return folder


@pytest.fixture
def engine(folder: Path) -> Any:
    made = load(folder, prefill_chunk=32)
    yield made
    made.close()


def test_a_reply_is_the_same_alone_and_in_a_batch(folder: Path, engine: Engine):
    """Prompts of one to three windows, some of which grow beyond the length that RoPE was made for."""
    prompts = [prompt(length, seed=length) for length in (3, 25, 50, 70)]
    alone = []
    for token_ids in prompts:
        fresh = load(folder, prefill_chunk=32)
        alone.append(tokens(fresh, token_ids))
        fresh.close()
    together = [engine.submit(token_ids, params(), NO_EOS) for token_ids in prompts]
    assert [outcome(request)[0] for request in together] == alone


def test_a_prompt_in_chunks_has_the_logits_of_the_whole(folder: Path, engine: Engine):
    whole = load(folder, prefill_chunk=256)
    try:
        assert torch.equal(engine.logits(prompt(100)), whole.logits(prompt(100)))
    finally:
        whole.close()


def test_what_is_taken_from_the_cache_changes_no_reply(folder: Path, engine: Engine):
    """Also from a beginning that was rotated as a short sequence, for one that is a long one."""
    fresh = load(folder, prefill_chunk=32)
    try:
        first = prompt(40)
        reply = tokens(engine, first)
        for turn in ([*first, *reply, 5], [*first, *reply, *prompt(40, seed=3)]):
            again = outcome(engine.submit(turn, params(), NO_EOS))
            assert again[0] == tokens(fresh, turn)
    finally:
        fresh.close()


def test_guesses_change_no_reply(folder: Path, engine: Engine):
    """A prompt that repeats itself makes many of them, right and wrong."""
    plain = load(folder, prefill_chunk=32, speculation=False)
    try:
        for length in (9, 40):
            turn = prompt(length) * 2 + prompt(length)[:length // 2]
            settings = params(max_new_tokens=50, temperature=0.0)
            assert tokens(engine, turn, settings) == tokens(plain, turn, settings)
    finally:
        plain.close()


def test_replies_that_are_thrown_out_come_out_the_same(folder: Path):
    """The cache holds two of four."""
    roomy, tight = load(folder, prefill_chunk=32), load(folder, prefill_chunk=32, max_seq_len=128)
    try:
        tight._pool._free = tight._pool._free[:6]
        prompts = [prompt(length, seed=length) for length in (20, 33, 40, 50)]
        settings = params(max_new_tokens=40)
        together = [tight.submit(token_ids, settings, NO_EOS) for token_ids in prompts]
        assert [outcome(request)[0] for request in together] == [
            tokens(roomy, token_ids, settings) for token_ids in prompts]
    finally:
        roomy.close()
        tight.close()


@pytest.mark.parametrize(("cache", "tolerance"), [("fp16", 4e-3), ("q8", 6e-2), ("q4", 0.8)])
def test_a_rounded_cache_changes_logits_a_little(folder: Path, cache: str, tolerance: float):
    exact, rounded = load(folder, **EXACT), load(folder, exact=True, cache=cache)
    try:
        want, got = exact.logits(prompt(100)), rounded.logits(prompt(100))
        assert 0 < float((got - want).norm() / want.norm()) < tolerance
    finally:
        exact.close()
        rounded.close()
