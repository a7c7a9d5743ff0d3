"""model/engine/state_pool.py and sequence_states.py: whose state lies where, without any model."""

from __future__ import annotations

import random

from model.engine.page_pool import PagePool
from model.engine.prefix_cache import PrefixCache
from model.engine.scheduler import Scheduler
from model.engine.sequence_states import SequenceStates, marks_of
from model.engine.sequences import Batch, TokenSequence
from model.engine.state_pool import StatePool
from model.sizes import PAGE_SIZE
from tests.helpers.scheduled_step import step, with_guide

Tokens = tuple[int, ...]


class Device:
    """What a model would hold: the tokens behind each state, and those in each place of a page."""

    def __init__(self) -> None:
        self.states: dict[int, Tokens] = {}
        self.pages: dict[int, list[int]] = {}

    def run(self, batch: Batch[str]) -> None:
        """Compute a step, and assert that each chunk goes on where its state and its pages are."""
        copied = {target: list(self.pages[source]) for (source,), (target,) in batch.copies}
        self.pages |= copied
        self.states |= {target: self.states[source] for source, target in batch.state_copies}
        slots = [chunk.sequence.slot for chunk in batch.chunks]
        slots += [slot for chunk in batch.chunks for slot in chunk.sequence.saves.values()]
        assert len(set(slots)) == len(slots), "a slot has two meanings"
        for chunk in batch.chunks:
            sequence, start = chunk.sequence, chunk.start
            before = tuple(sequence.token_ids[:start])
            if start:
                assert self.states[sequence.slot] == before
            assert self._in_pages(sequence, start) == before
            for token_id in sequence.token_ids[start:start + chunk.count] + chunk.draft:
                page = self.pages.setdefault(pages_of(sequence)[len(before) // PAGE_SIZE], [0] * PAGE_SIZE)
                page[len(before) % PAGE_SIZE] = token_id
                before += (token_id,)
                if len(before) in sequence.saves:
                    self.states[sequence.saves[len(before)]] = before
            self.states[sequence.slot] = before

    def _in_pages(self, sequence: TokenSequence[str], count: int) -> Tokens:
        pages = pages_of(sequence)
        return tuple(self.pages[pages[i // PAGE_SIZE]][i % PAGE_SIZE] for i in range(count))


def scheduler_of(num_pages: int = 64, num_slots: int = 16, prefill_chunk: int = 512,
                 max_running: int = 256) -> Scheduler[str]:
    return Scheduler(PrefixCache([PagePool(num_pages)]), prefill_chunk, max_running,
                     states=SequenceStates(StatePool(num_slots)))


def pages_of(sequence: TokenSequence[str]) -> list[int]:
    return sequence.tables[0].pages


def sequence(name: str, token_ids: list[int]) -> TokenSequence[str]:
    return TokenSequence(name, list(token_ids), len(token_ids), reuse_limit=len(token_ids) - 1)


def num_free(scheduler: Scheduler[str]) -> int:
    assert scheduler.states is not None
    pool = scheduler.states.pool
    return len(pool._free) + pool.num_snapshots


def test_snapshots_are_made_where_a_reply_begins_and_every_512_tokens():
    assert marks_of(1100, 0) == [512, 1024, 1099]
    assert marks_of(1100, 600, further=(700, 300, 1100)) == [700, 1024, 1099], "behind what is known"
    assert marks_of(1, 0) == []


def test_the_same_prompt_again_computes_its_last_token_alone():
    scheduler, device, prompt = scheduler_of(), Device(), list(range(90))
    for expected in (90, 1, 1):
        one = sequence("a", prompt)
        scheduler.add(one)
        assert step(scheduler, device) == {"a": expected}
        for _ in range(40):
            step(scheduler, device)
        scheduler.remove(one)


def test_the_next_turn_goes_on_behind_the_reply():
    """With an end of the reply within a page, and at the end of one."""
    for reply in (20, 38):
        scheduler, device = scheduler_of(), Device()
        first = sequence("first", list(range(90)))
        scheduler.add(first)
        for _ in range(reply + 1):
            step(scheduler, device)
        scheduler.remove(first)
        scheduler.add(sequence("next", [*first.token_ids[:90 + reply], *range(500, 510)]))
        assert step(scheduler, device) == {"next": 10}


def test_another_beginning_is_read_from_the_snapshot_before_and_known_from_then_on():
    """Two prompts part within their second page, then others do at the very place."""
    scheduler, device = scheduler_of(), Device()
    for name, rest, expected in (("a", 1, 70), ("b", 2, 70), ("c", 3, 20), ("d", 4, 20)):
        one = sequence(name, [*range(50), *[1000 * rest + i for i in range(20)]])
        scheduler.add(one)
        assert step(scheduler, device) == {name: expected}
        scheduler.remove(one)


def test_the_ends_of_messages_that_a_request_tells_are_kept():
    scheduler, device = scheduler_of(), Device()
    one = sequence("a", list(range(80)))
    one.turns = (45, 64)
    scheduler.add(one)
    step(scheduler, device)
    scheduler.remove(one)
    for end, expected in ((45, 15), (64, 15), (50, 20)):
        other = sequence("b", [*range(end), *range(900, 915)])
        scheduler.add(other)
        assert step(scheduler, device) == {"b": expected}
        scheduler.remove(other)


def test_whoever_began_in_a_step_that_failed_begins_again():
    """Thirty go on from the end of another's prompt, more than a step has rows for; nothing was copied."""
    scheduler, device = scheduler_of(num_pages=128, num_slots=64, prefill_chunk=32, max_running=40), Device()
    first = sequence("first", list(range(30)))
    scheduler.add(first)
    step(scheduler, device)
    scheduler.remove(first)
    for index in range(30):
        scheduler.add(sequence(str(index), [*range(29), *[1000 + 50 * index + i for i in range(20)]]))
    batch = scheduler.next_batch()
    assert len(batch.chunks) < len(scheduler.running) == 30 == len(batch.copies) == len(batch.state_copies)
    for chunk in batch.chunks:
        scheduler.discard(chunk.sequence)
    scheduler.undo_admissions()
    left = list(scheduler.waiting)
    assert [one.owner for one in left] == sorted((one.owner for one in left), key=int), "in their order"
    assert len(left) == 30 - len(batch.chunks) and not scheduler.running and scheduler.cache.num_used == 0
    while any(one.num_remaining > 1 or one in scheduler.waiting for one in left):
        step(scheduler, device)  # Device asserts that each goes on where its pages and its state are
    for one in left:
        scheduler.remove(one)
    assert scheduler.cache.num_used == 0 and num_free(scheduler) == 64


def test_a_wrong_guess_is_taken_back_without_computing_anything_again():
    scheduler, device = scheduler_of(num_slots=12), Device()
    scheduler.add(sequence("a", list(range(40))))
    step(scheduler, device)
    for right in (0, 1, 2, 3, 0):
        assert step(scheduler, device, draft=3, right=right) == {"a": 4}


def test_no_more_is_guessed_than_states_can_be_kept_for():
    scheduler, device = scheduler_of(num_slots=4), Device()
    scheduler.add(sequence("a", list(range(40))))
    step(scheduler, device)
    assert step(scheduler, device, draft=8, right=1) == {"a": 3}, "four slots: a snapshot, its own, two spare"


def test_the_least_recently_used_snapshot_goes_first():
    pool = StatePool(4)
    for chain in (1, 2, 3):
        slot = pool.allocate_for_snapshot()
        assert slot is not None
        pool.keep(slot, chain, ())
    taken = [pool.allocate(), pool.allocate()]
    assert pool.num_snapshots == 2 and len({*taken}) == 2
    assert [chain for chain, _ in pool._snapshots.values()] == [2, 3]


def test_who_is_admitted_when_all_slots_are_taken_waits():
    scheduler, device = scheduler_of(num_slots=4), Device()
    for index in range(6):
        scheduler.add(sequence(str(index), [1000 * index + i for i in range(10)]))
    step(scheduler, device)
    assert len(scheduler.running) == 4 and len(scheduler.waiting) == 2
    scheduler.remove(scheduler.running[0])
    step(scheduler, device)
    assert len(scheduler.running) == 4


def test_of_equal_prompts_that_come_together_one_is_computed():
    scheduler, device = scheduler_of(prefill_chunk=64), Device()
    for name in "abc":
        scheduler.add(sequence(name, list(range(100))))
    rows = [step(scheduler, device) for _ in range(3)]
    assert rows == [{"a": 64}, {"a": 36}, {"a": 1, "b": 1, "c": 1}]


def test_a_failed_step_leaves_no_state_behind():
    scheduler = scheduler_of()
    one = sequence("a", list(range(100)))
    scheduler.add(one)
    scheduler.next_batch()
    scheduler.discard(one)
    assert num_free(scheduler) == 16 and scheduler.states is not None
    assert scheduler.states.pool.num_snapshots == 0


def test_random_traffic_always_goes_on_from_the_right_state():
    """Shared beginnings, few pages and slots, so that some are thrown out; guesses, removals, failures."""
    rng = random.Random(1)
    scheduler, device = scheduler_of(num_pages=24, num_slots=10, prefill_chunk=96, max_running=6), Device()
    beginnings = [[rng.randrange(50) for _ in range(rng.randrange(20, 300))] for _ in range(3)]
    left: dict[TokenSequence[str], int] = {}
    waiting = [sequence(str(index), rng.choice(beginnings)[:rng.randrange(1, 300)]
                        + [rng.randrange(50) for _ in range(rng.randrange(1, 60))]) for index in range(200)]
    num_preempted = reused = 0
    while waiting or scheduler.has_work:
        while waiting and len(scheduler.waiting) < 4:
            one = waiting.pop()
            one.turns = tuple(rng.randrange(1, 300) for _ in range(2))
            left[one] = rng.randrange(1, 300)
            if rng.random() < 0.3:
                guide = rng.choice(beginnings)[:rng.randrange(1, 300)]
                with_guide(one, sequence(f"guide of {one.owner}", guide))
            scheduler.add(one)
        before = set(scheduler.running)
        step(scheduler, device, draft=rng.choice([0, 0, 3]), right=rng.randrange(4))
        num_preempted += len(before - set(scheduler.running))
        for one in scheduler.requests:
            made = len(one.token_ids) - one.prompt_length
            most = 22 * PAGE_SIZE if one.partner is None else scheduler.longest_pair(
                [len(each.token_ids) for each in one.pair], 22 * PAGE_SIZE)
            if made >= left[one] or len(one.token_ids) >= most:
                reused += one.num_cached
                scheduler.remove(one)
        if scheduler.has_work and rng.random() < 0.02:
            scheduler.next_batch()
            for failed in [one for one in scheduler.requests if one in scheduler.running]:
                scheduler.discard(failed)
    assert scheduler.cache.num_used == 0 and num_free(scheduler) == 10
    assert num_preempted > 5 and reused > 300
