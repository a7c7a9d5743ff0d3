"""Models with states in the engine: what a request reads anew, and that it makes no difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.request import FinishedEvent
from model.kernels import load_kernels
from model.network.place import Place
from tests.engine.test_speculation import drafting
from tests.engine.test_stages import captured_places
from tests.helpers.family_models import write_family
from tests.helpers.tiny_engine import NO_EOS, load, outcome, params, prompt, shrink, tokens


@pytest.fixture(scope="module", params=["lfm 2", "qwen 3.5", "falcon h1"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hybrid")
    write_family(folder, request.param, max_position_embeddings=2048)
    return folder


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    made = load(folder)
    yield made
    made.close()


def cached(engine: Engine, token_ids: list[int], eos: frozenset[int] = NO_EOS) -> tuple[list[int], int]:
    """The reply, and how many tokens of the prompt were not read."""
    made, end = outcome(engine.submit(token_ids, params(), eos))
    assert isinstance(end, FinishedEvent)
    return made, end.stats.cached_tokens


def test_asking_again_reads_the_last_token_alone(engine: Engine):
    first = cached(engine, prompt(75))
    assert first[1] == 0
    assert cached(engine, prompt(75)) == (first[0], 74)


def test_the_next_turn_reads_what_is_new_alone(folder: Path, engine: Engine):
    """The last token of a reply was never computed."""
    first = prompt(75)
    reply, _ = cached(engine, first)
    turn = [*first, *reply, *prompt(20, seed=3)]
    made, count = cached(engine, turn)
    assert count == 75 + len(reply) - 1
    fresh = load(folder)
    try:
        assert made == tokens(fresh, turn)
    finally:
        fresh.close()


def test_a_reply_whose_thoughts_are_left_out_afterwards_is_all_that_is_read_again(engine: Engine):
    """What ends a message is known where the first prompt has it."""
    said = [token_id for token_id in prompt(60) if token_id != 7]
    eos = frozenset({7})
    cached(engine, [*said, 7, 30, 31, 32], eos)
    assert cached(engine, [*said, 7, 50, 51, 52], eos)[1] == len(said) + 1


def test_of_long_prompts_that_part_512_tokens_are_known_and_then_all_they_share(engine: Engine):
    shared = prompt(700)
    counts = [cached(engine, [*shared, *prompt(30, seed=seed)])[1] for seed in (1, 2, 3)]
    assert counts == [0, 512, 700]


def test_where_scores_begin_others_begin_too(engine: Engine):
    """As when the speakers of a room are ranked: one transcript, each with another name behind it."""
    transcript = prompt(61)
    engine.logits([*transcript, 5, 6], first=60)
    assert cached(engine, [*transcript[:60], 70, 71])[1] == 60


def test_steps_that_are_recorded_by_size_make_the_same_tokens(folder: Path, engine: Engine):
    """As on a GPU: with rows that are padding, and guesses, which run as they are."""
    places, capture = captured_places()
    recorded = load_engine(folder, EngineConfig(threads=1), places=places)
    try:
        before = capture.replays
        jobs = [((prompt(9, seed=i) * 3)[:20 + i], params(seed=i, max_new_tokens=30, temperature=0.2))
                for i in range(5)]
        requests = [recorded.submit(*job, NO_EOS) for job in jobs]
        made = [outcome(request)[0] for request in requests]
        assert made == [tokens(engine, *job) for job in jobs]
        assert capture.replays - before >= 10
    finally:
        recorded.close()


def test_layers_on_two_devices_keep_their_own_states(folder: Path, engine: Engine):
    places = [Place.on_host(load_kernels(threads=1), 1 << 30) for _ in range(2)]
    spread = load_engine(folder, EngineConfig(threads=1), places=places)
    try:
        for _ in range(2):
            assert tokens(spread, prompt(70)) == tokens(engine, prompt(70))
        assert torch.equal(spread.logits(prompt(90)), engine.logits(prompt(90)))
    finally:
        spread.close()


def test_few_states_take_nothing_from_a_reply(folder: Path, engine: Engine):
    """Four slots for six requests: they wait for each other, guesses have no room, snapshots go."""
    tight = load(folder)
    try:
        assert tight._scheduler.states is not None
        pool = tight._scheduler.states.pool
        pool._free, pool._reserve = pool._free[:4], 1
        prompts = [(prompt(6, seed=i) * 8)[:30 + i] for i in range(6)]
        settings = params(max_new_tokens=30, temperature=0.0)
        requests = [tight.submit(token_ids, settings, NO_EOS) for token_ids in prompts]
        assert [outcome(request)[0] for request in requests] == [
            tokens(engine, token_ids, settings) for token_ids in prompts]
        assert len(pool._free) + pool.num_snapshots == 4
    finally:
        tight.close()


def test_a_draft_model_with_states_goes_back_to_what_was_right(folder: Path, engine: Engine):
    """The model as its own draft, of whose guesses each fifth is spoiled: all before the first spoiled one
    are right, which they would not be had the state kept anything of what was not."""
    drafted = drafting(folder, draft=folder)
    drafter = drafted._speculator.drafter
    choose, make, spoiled, right = drafter._sampler.choose, drafter.make, [], []

    def choose_badly(logits: torch.Tensor, rows: list[Any]) -> list[int]:
        chosen = choose(logits, rows)
        spoiled.append(len(spoiled) % 5 == 4)
        return [(token_id + spoiled[-1]) % 96 for token_id in chosen]

    def noted(wanted: list[Any]) -> list[list[int]]:
        first = len(spoiled)
        made = make(wanted)
        right.append([*spoiled[first:], True].index(True) if made[0] else 0)
        return made

    drafter._sampler.choose, drafter.make = choose_badly, noted
    settings = params(temperature=0.9, max_new_tokens=60)
    try:
        for length in (50, 500):
            right.clear()
            made, end = outcome(drafted.submit(prompt(length), settings, NO_EOS))
            assert made == tokens(engine, prompt(length), settings)
            assert end.stats.accepted_tokens == sum(right) > 30
            assert end.stats.drafted_tokens > end.stats.accepted_tokens
        assert len(drafter._free_slots) == 16 and drafter._pools[0].num_used == 0
    finally:
        drafted.close()


def test_drafts_with_few_slots_for_states_take_nothing_from_a_reply(folder: Path, engine: Engine):
    """Of six at once one gets guesses at a time; some are thrown out and come to their tokens again."""
    drafted = drafting(folder, draft=folder)
    drafter = drafted._speculator.drafter
    drafter._free_slots = drafter._free_slots[:3]
    prompts = [prompt(30 + i, seed=i) for i in range(6)]
    settings = params(max_new_tokens=30, temperature=0.0)
    try:
        shrink(drafted, 9)
        requests = [drafted.submit(token_ids, settings, NO_EOS) for token_ids in prompts]
        found = [outcome(request) for request in requests]
        assert [made for made, _ in found] == [tokens(engine, token_ids, settings) for token_ids in prompts]
        assert sum(end.stats.drafted_tokens for _, end in found) > 20
        assert len(drafter._free_slots) == 3
    finally:
        drafted.close()


def test_plain_weights_beside_states_are_rounded_while_they_are_loaded(folder: Path):
    settings = {"exact": True, "cache": "fp32"}
    exact, rounded = load(folder, **settings), load(folder, **settings, quantize=8)
    try:
        want, got = exact.logits(prompt(40)), rounded.logits(prompt(40))
        assert 0 < float((got - want).norm() / want.norm()) < 0.15
    finally:
        exact.close()
        rounded.close()
