"""Layers with a window in the engine: what they hold, what is read again, and that it makes no difference."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.loaded_adapters import NO_ADAPTER, AdapterKey
from model.engine.loading import load_engine
from model.engine.page_pool import BLANK, PagePool
from model.engine.prefix_cache import PrefixCache
from model.engine.request import FinishedEvent
from model.engine.scheduler import Scheduler
from model.engine.sequences import Batch, TokenSequence
from model.families.cache_groups import cache_groups
from model.kernels import load_kernels
from model.model_config import ModelConfig
from model.network.place import Place
from model.sizes import PAGE_SIZE, pages_for
from tests.engine.test_speculation import drafting
from tests.engine.test_stages import captured_places
from tests.helpers import scheduled_step
from tests.helpers.family_models import write_family
from tests.helpers.tiny_engine import NO_EOS, load, outcome, params, prompt, shrink, tokens
from tests.helpers.tiny_models import TINY

REACHES = (None, 70, 20)


def sequence(name: str, token_ids: list[int]) -> TokenSequence[str]:
    return TokenSequence(name, list(token_ids), len(token_ids), reuse_limit=len(token_ids) - 1)


def scheduler_of(num_pages: int, prefill_chunk: int, num_windows: int = 40) -> Scheduler[str]:
    """Over layers that see everything and two kinds of windows."""
    pools = [PagePool(num_pages if reach is None else num_windows, reach) for reach in REACHES]
    return Scheduler(PrefixCache(pools), prefill_chunk, max_running=6)


class Device:
    """What a model would hold: the tokens in each place of the pages of each pool, and what chain they begin
    (none takes what was computed with another adapter)."""

    def __init__(self) -> None:
        self.pages: list[dict[int, dict[int, tuple[int, int]]]] = [{} for _ in REACHES]

    def run(self, batch: Batch[str]) -> None:
        """Compute a step, and assert that each row finds what it looks at, and none of a page of others."""
        for index, pages in enumerate(self.pages):
            pages |= {targets[index]: dict(pages[sources[index]]) for sources, targets in batch.copies}
        written: set[tuple[int, int]] = set()
        for chunk in batch.chunks:
            rows = chunk.sequence.token_ids[chunk.start:chunk.start + chunk.count] + chunk.draft
            so_far = [(chunk.sequence.root, token) for token in chunk.sequence.token_ids[:chunk.start] + rows]
            for index, table in enumerate(chunk.sequence.tables):
                own = {(index, table.pages[(chunk.start + row) // PAGE_SIZE]) for row in range(len(rows))}
                assert not own & written and (REACHES[index] is None or (index, BLANK) not in own)
                written |= own
                for position in range(chunk.start, len(so_far)):
                    page = self.pages[index].setdefault(table.pages[position // PAGE_SIZE], {})
                    page[position % PAGE_SIZE] = so_far[position]
                first = max(0, chunk.start + 1 - (REACHES[index] or chunk.start + 1))
                seen = [self.pages[index][table.pages[position // PAGE_SIZE]].get(position % PAGE_SIZE)
                        for position in range(first, len(so_far))]
                assert seen == so_far[first:]


def check_held(one: TokenSequence[str], num_rows: int) -> None:
    """A window and one page more, and what is being read beyond one token."""
    for reach, table in zip(REACHES, one.tables, strict=True):
        if reach is not None:
            assert table.num_held <= pages_for(reach) + 1 + pages_for(num_rows - 1)
            assert all(page == BLANK for page in table.pages[:table.first]) and BLANK not in table.held


step = functools.partial(scheduled_step.step, check=check_held)


# ---- without a model -----------------------------------------------------------------------------------


def test_a_long_sequence_holds_its_windows_and_one_page_more():
    """Each step asserts it; at the end 1,200 tokens in 38 pages, 4 and 2."""
    scheduler, device = scheduler_of(64, 128), Device()
    one = sequence("a", list(range(1000)))
    scheduler.add(one)
    while len(one.token_ids) < 1200:
        step(scheduler, device)
    held = [table.num_held for table in one.tables]
    assert held[0] == 38 and held[1] in (3, 4) and held[2] in (1, 2)
    scheduler.remove(one)
    assert scheduler.cache.num_used == 0


def test_asked_again_goes_on_within_the_window_that_has_fallen_behind():
    """The reply is longer than every window; then the next turn, then an edited one."""
    scheduler, device = scheduler_of(64, 512), Device()
    beginning = list(range(300))
    first = sequence("a", beginning)
    first.turns = (150,)
    scheduler.add(first)
    for _ in range(201):
        step(scheduler, device)
    scheduler.remove(first)
    for again, expected in ((beginning, 1), ([*beginning, *[7] * 200, 50, 51], 2), (range(150), 1),
                            ([*range(150), 60, 61], 2)):
        one = sequence("b", list(again))
        scheduler.add(one)
        assert step(scheduler, device) == {"b": expected}
        scheduler.remove(one)


def test_a_prompt_that_others_wait_for_is_read_once():
    """Three begin alike; the others go on where the window still is, behind what they share."""
    scheduler, device = scheduler_of(128, 256), Device()
    for name in "abc":
        scheduler.add(sequence(name, [*range(600), *[ord(name) * 100 + i for i in range(20)]]))
    rows: dict[str, int] = {}
    while set(rows) != set("abc") or scheduler.waiting:
        for name, count in step(scheduler, device).items():
            rows[name] = rows.get(name, 0) + count
    assert rows["b"] < 60 and rows["c"] < 60


def test_without_pages_for_windows_prompts_are_read_in_shorter_parts():
    """Three pages beside those of the wider window: 96 tokens at most, though 512 may be read."""
    scheduler, device = scheduler_of(64, 512, num_windows=1 + 4 + 3), Device()
    scheduler.add(sequence("a", list(range(700))))
    counts = [step(scheduler, device)["a"] for _ in range(7)]
    assert counts[0] == 7 * 32 and all(96 <= count <= 5 * 32 for count in counts[1:4])


@pytest.mark.parametrize("num_windows", [10, 40])
def test_random_traffic_finds_every_window_and_loses_no_page(num_windows: int):
    """Beginnings in common, adapters, guesses right and wrong, steps that fail, requests that are cancelled.
    """
    rng = random.Random(num_windows)
    scheduler, device, left = scheduler_of(40, 96, num_windows), Device(), {}
    for index in range(120):
        shared = list(range(rng.choice([0, 40, 200, 330])))
        one = sequence(str(index), [*shared, *[1000 * index + i for i in range(rng.randrange(1, 150))]])
        one.turns = (40,) if rng.random() < 0.5 else ()
        one.adapter = rng.choice([NO_ADAPTER, NO_ADAPTER, AdapterKey(0, 0), AdapterKey(1, 1)])
        if rng.random() < 0.3:
            own = [2000 * index + i for i in range(rng.randrange(1, 150))]
            guide = sequence(f"guide {index}", [*shared[:100], *own])
            guide.adapter = one.adapter
            scheduled_step.with_guide(one, guide)
        left[one] = rng.randrange(1, 150)
        scheduler.add(one)
    while scheduler.has_work:
        step(scheduler, device, draft=rng.choice([0, 0, 3, 12]), right=rng.randrange(13))
        for one in scheduler.requests:
            if len(one.token_ids) - one.prompt_length >= left[one] or rng.random() < 0.002:
                scheduler.remove(one)
        if scheduler.has_work and rng.random() < 0.02:
            batch = scheduler.next_batch()
            for one in {chunk.sequence.pair[0] for chunk in batch.chunks}:
                scheduler.discard(one)
            scheduler.undo_admissions()
    assert scheduler.cache.num_used == 0
    for pool in scheduler.cache.pools:
        assert sorted(pool.allocate() for _ in range(pool.num_pages)) == list(
            range(0 if pool.reach is None else 1, pool.num_pages + (pool.reach is not None)))
    assert not scheduler.cache._children and not scheduler.cache._by_chain


def test_layers_are_grouped_by_how_far_back_they_look():
    """Those that read what a layer keeps count for it; a window of all positions is none."""
    config = {**TINY, "architectures": ["Gemma4ForCausalLM"], "num_hidden_layers": 6,
              "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 32, "num_kv_shared_layers": 2,
              "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 3}
    for window, expected in ((8, [(None, (1, 3)), (8, (0, 2))]), (1 << 20, [(None, (0, 1, 2, 3))])):
        spec = ModelConfig.from_dict({**config, "sliding_window": window}, {}, "small").spec
        assert [(group.reach, group.layers) for group in cache_groups(spec)] == expected


# ---- with a model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["gemma 3", "mistral window", "gpt-oss", "llama 4"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows of 20 tokens beside layers that see everything, or alone; sinks; chunks of 24."""
    folder = tmp_path_factory.mktemp("windows")
    write_family(folder, request.param)
    return folder


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    made = load(folder, prefill_chunk=64)
    yield made
    made.close()


def cached(engine: Engine, token_ids: list[int], count: int = 60) -> tuple[list[int], int]:
    """The reply, and how many tokens of the prompt were not read."""
    made, end = outcome(engine.submit(token_ids, params(max_new_tokens=count), NO_EOS))
    assert isinstance(end, FinishedEvent)
    return made, end.stats.cached_tokens


def test_nothing_that_is_known_is_read_again(folder: Path, engine: Engine):
    """Asked again, the next turn, and one that was edited; each reply leaves every window behind."""
    first = prompt(150)
    reply, count = cached(engine, first)
    assert count == 0 and cached(engine, first) == (reply, 149)
    turn, edited = [*first, *reply, *prompt(20, seed=3)], [*first[:101], *prompt(20, seed=4)]
    fresh = load(folder, prefill_chunk=64)
    try:
        for again, known in ((turn, 150 + len(reply) - 1), (edited, 101)):
            assert cached(engine, again) == (cached(fresh, again)[0], known)
    finally:
        fresh.close()


def test_a_window_holds_few_pages_of_a_long_conversation(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    run, most = engine._runner.run, []

    def watched(batch: Any) -> Any:
        for chunk in batch.chunks:
            for pool, table in zip(engine._cache.pools, chunk.sequence.tables, strict=True):
                if pool.reach is not None:
                    most.append(table.num_held - pages_for(chunk.num_rows - 1))
        return run(batch)

    monkeypatch.setattr(engine._runner, "run", watched)
    assert len(tokens(engine, prompt(300), params(max_new_tokens=100))) == 100
    assert len(most) >= 100 / 17 and max(most) <= pages_for(24) + 1


@pytest.mark.parametrize("cache", ["fp16", "q8", "q4", "fp32"])
def test_what_lies_behind_a_window_is_never_read(folder: Path, cache: str):
    """Every page is full of NaN when it is given to somebody, but the blank ones."""
    clean, dirty = load(folder, cache=cache, prefill_chunk=64), load(folder, cache=cache, prefill_chunk=64)
    try:
        memory = dirty._runner._transformer.stages[0].cache
        for group, tensors in zip(memory.groups, zip(memory.keys, memory.values, strict=True), strict=True):
            first = 0 if dirty._cache.pools[group].reach is None else 1
            for tensor in tensors:
                tensor[first:].fill_(float("nan") if tensor.is_floating_point() else 255)
        for length in (5, 40, 200):
            assert tokens(dirty, prompt(length)) == tokens(clean, prompt(length))
        assert torch.equal(dirty.logits(prompt(130, seed=1)), clean.logits(prompt(130, seed=1)))
    finally:
        clean.close()
        dirty.close()


def test_few_pages_change_no_reply(folder: Path, engine: Engine):
    """Of windows four; six replies at once are thrown out and begin anew."""
    tight = load(folder, prefill_chunk=64, max_seq_len=256)
    try:
        shrink(tight, 8, num_windows=4)
        prompts = [(prompt(6, seed=i) * 12)[:30 + 7 * i] for i in range(6)]
        settings = params(max_new_tokens=50, temperature=0.3)
        requests = [tight.submit(token_ids, settings, NO_EOS) for token_ids in prompts]
        assert [outcome(request)[0] for request in requests] == [
            tokens(engine, token_ids, settings) for token_ids in prompts]
        assert tight.status()["pages_used"] == 0
    finally:
        tight.close()


@pytest.mark.parametrize("variant", ["gemma 3n", "gemma 4 small"])
def test_layers_that_read_the_windows_of_others_find_them(tmp_path: Path, variant: str):
    """In few pages, with what was never written full of NaN, and again behind what is known."""
    write_family(tmp_path, variant)
    whole, tight = load(tmp_path, prefill_chunk=512), load(tmp_path, prefill_chunk=64, max_seq_len=256)
    try:
        memory = tight._runner._transformer.stages[0].cache
        for group, *tensors in zip(memory.groups, memory.keys, memory.values, strict=True):
            for tensor in tensors:
                tensor[0 if tight._cache.pools[group].reach is None else 1:].fill_(float("nan"))
        shrink(tight, 10, num_windows=5)
        prompts = [(prompt(6, seed=i) * 20)[:50 + 20 * i] for i in range(3)]
        requests = [tight.submit(token_ids, params(), NO_EOS) for token_ids in prompts]
        replies = [outcome(request)[0] for request in requests]
        assert replies == [tokens(whole, token_ids) for token_ids in prompts]
        again = [*prompts[0], *replies[0], 5]
        assert cached(tight, again, 20) == (cached(whole, again, 20)[0], len(again) - 2)
    finally:
        whole.close()
        tight.close()


def test_steps_that_are_recorded_and_layers_on_two_devices_make_the_same_tokens(folder: Path,
                                                                                engine: Engine):
    """Recorded as on a GPU, by size, with rows that are padding."""
    for places in (captured_places()[0], [Place.on_host(load_kernels(threads=1), 1 << 30) for _ in range(2)]):
        other = load_engine(folder, EngineConfig(threads=1, prefill_chunk=64), places=places)
        try:
            jobs = [(prompt(20 + 30 * i, seed=i), params(seed=i, max_new_tokens=30)) for i in range(4)]
            requests = [other.submit(*job, NO_EOS) for job in jobs]
            assert [outcome(request)[0] for request in requests] == [tokens(engine, *job) for job in jobs]
            assert torch.equal(other.logits(prompt(120)), engine.logits(prompt(120)))
        finally:
            other.close()


def test_a_draft_model_with_windows_lets_go_of_what_is_behind_them(folder: Path, engine: Engine):
    """The model itself, which is right always, in a cache of few pages for windows."""
    drafted = drafting(folder, prefill_chunk=64, draft=folder)
    try:
        pools = drafted._speculator.drafter._pools
        assert min(pool.num_pages for pool in pools) < 2 * pages_for(512)
        for pool in pools:
            if pool.reach is not None:
                pool.__init__(7, pool.reach)
        settings = params(max_new_tokens=100, temperature=0.0)
        for length in (10, 300):
            made, end = outcome(drafted.submit(prompt(length), settings, NO_EOS))
            assert made == tokens(engine, prompt(length), settings)
            assert end.stats.drafted_tokens == end.stats.accepted_tokens > 20
            assert all(pool.num_used == 0 for pool in pools)
    finally:
        drafted.close()
