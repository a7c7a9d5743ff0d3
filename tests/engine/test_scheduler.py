"""model/engine/scheduler.py: who computes what, without any model."""

from __future__ import annotations

import random

from model.engine.page_pool import PagePool
from model.engine.prefix_cache import PrefixCache
from model.engine.rotation import Rotation
from model.engine.scheduler import Scheduler
from model.engine.sequences import Batch, TokenSequence
from model.sizes import PAGE_SIZE, pages_for
from tests.helpers.scheduled_step import add_token, with_guide


def sequence(name: str, length: int, first: int = 0) -> TokenSequence[str]:
    return TokenSequence(name, [first + i for i in range(length)], length, reuse_limit=length - 1)


def pages_of(sequence: TokenSequence[str]) -> list[int]:
    return sequence.tables[0].pages


def step(scheduler: Scheduler[str]) -> dict[str, int]:
    """Compute one batch; every sequence at its end gets one more token. Returns tokens by name."""
    batch = scheduler.next_batch()
    check(scheduler, batch)
    scheduler.computed(batch)
    for chunk in [chunk for chunk in batch.chunks if chunk.is_last]:
        add_token(chunk.sequence, 7)
    return {chunk.sequence.owner: chunk.count for chunk in batch.chunks}


def check(scheduler: Scheduler[str], batch: Batch[str]) -> None:
    """What must hold for every batch: pages for all tokens, and no page written by two."""
    assert batch.chunks
    written: set[int] = set()
    for chunk in batch.chunks:
        pages, end = pages_of(chunk.sequence), chunk.start + chunk.count
        assert len(pages) * PAGE_SIZE >= end
        assert len(set(pages)) == len(pages)
        own = set(pages[chunk.start // PAGE_SIZE:pages_for(end)])
        assert not own & written
        written |= own
    for chunk in batch.chunks:
        done = pages_of(chunk.sequence)[:chunk.start // PAGE_SIZE]
        assert not written & set(done), "a done page is written"


def test_a_long_prompt_comes_in_chunks_and_then_decodes():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 512)
    scheduler.add(sequence("a", 1100))
    assert [step(scheduler)["a"] for _ in range(5)] == [512, 512, 76, 1, 1]


def test_a_reply_that_is_computed_again_is_in_no_chunk_with_its_prompt():
    """As after it was thrown out for want of pages: a device may have another way with rows of prompts."""
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 512)
    thrown_out = sequence("a", 140)
    thrown_out.prompt_length = 100
    scheduler.add(thrown_out)
    kinds = []
    while not kinds or kinds[-1] != (1, False):
        batch = scheduler.next_batch()
        kinds += [(chunk.count, chunk.is_of_prompt) for chunk in batch.chunks]
        scheduler.computed(batch)
        if thrown_out.num_remaining == 0:
            thrown_out.token_ids.append(7)
    assert kinds == [(100, True), (40, False), (1, False)]


def test_the_last_token_of_a_prompt_within_a_reply_is_computed_as_those_of_replies():
    """Behind the others, whether these are computed or come from the cache."""
    cache = PrefixCache([PagePool(64)])
    scheduler: Scheduler[str] = Scheduler(cache, 512)
    for expected in ([(139, True), (1, False)], [(1, False)]):
        fork = sequence("a", 140)
        fork.num_begun = 1
        scheduler.add(fork)
        kinds = []
        while fork.num_remaining:
            batch = scheduler.next_batch()
            kinds += [(chunk.count, chunk.is_of_prompt) for chunk in batch.chunks]
            scheduler.computed(batch)
        assert kinds == expected
        scheduler.remove(fork)
    assert fork.num_cached == 139


def test_decoding_goes_on_in_every_step_beside_a_long_prompt():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(256)]), 512)
    scheduler.add(sequence("short", 10))
    assert step(scheduler) == {"short": 10}
    scheduler.add(sequence("long", 1000, first=5000))
    steps = [step(scheduler) for _ in range(8)]
    assert all(s["short"] == 1 for s in steps)
    assert [s["long"] for s in steps] == [128] * 7 + [104], "a smaller share while others decode"


def test_a_short_prompt_does_not_wait_for_a_long_one():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(512)]), 512)
    scheduler.add(sequence("long", 5000))
    step(scheduler)
    scheduler.add(sequence("short", 40, first=9000))
    assert step(scheduler) == {"short": 40, "long": 472}


def test_of_many_prompts_the_first_to_come_is_done_first_and_all_move():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(1024)]), 512)
    for index in range(8):
        scheduler.add(sequence(str(index), 1000, first=index * 10_000))
    assert step(scheduler) == {"0": 256 + 32, **{str(i): 32 for i in range(1, 8)}}
    for _ in range(3):
        step(scheduler)
    counts = step(scheduler)
    assert counts["0"] == 1 and counts["1"] >= 64, "the first is done, the second is next"


def test_as_many_run_as_the_pages_hold():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(300)]), 512)
    for index in range(150):
        scheduler.add(sequence(str(index), 5, first=index * 100))
    for _ in range(3):
        step(scheduler)
    assert len(scheduler.running) == 100, "a page each, and two to grow"
    for _ in range(30):
        assert set(step(scheduler)) >= {str(index) for index in range(100)}, "none stands still"


def test_a_step_never_has_more_tokens_than_its_buffers():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 64, max_running=40)
    assert scheduler.max_tokens == 40 + PAGE_SIZE
    for index in range(12):
        scheduler.add(sequence(str(index), 5, first=index * 100))
    step(scheduler)
    scheduler.max_tokens = 20
    scheduler.add(sequence("long", 100, first=5000))
    assert step(scheduler) == {**{str(i): 1 for i in range(12)}, "long": 8}


def test_a_beginning_that_is_being_computed_is_awaited_and_shared():
    cache = PrefixCache([PagePool(64)])
    scheduler: Scheduler[str] = Scheduler(cache, 64)
    for name in "abc":
        scheduler.add(sequence(name, 150))
    other = sequence("other", 10, first=9000)
    scheduler.add(other)
    assert step(scheduler) == {"a": 54, "other": 10}, "b and c wait, but nobody waits for them"
    assert [step(scheduler) for _ in range(3)] == [{"a": 32, "other": 1}] * 3
    assert step(scheduler) == {"a": 1, "b": 1, "c": 1, "other": 1}
    a, *rest = (s for s in scheduler.running if s is not other)
    assert all(pages_of(s)[:4] == pages_of(a)[:4] for s in rest), "whole pages are shared"
    assert [s.num_cached for s in rest] == [149, 149] and cache.num_used == 5 + 1 + 1 + 1


def test_when_the_first_of_equal_prompts_is_cancelled_the_next_takes_over():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 64)
    sequences = [sequence(name, 150) for name in "abc"]
    for one in sequences:
        scheduler.add(one)
    assert step(scheduler) == {"a": 64}
    scheduler.remove(sequences[0])
    assert step(scheduler) == {"b": 64}, "c waits for b now"
    assert sequences[1].num_cached == 64


def test_what_is_to_be_copied_is_given_to_nobody_before():
    """The only pages to take are old ones; one of them is the source of a copy in the same step."""
    cache = PrefixCache([PagePool(6)])
    scheduler: Scheduler[str] = Scheduler(cache, 64)
    old = sequence("old", 50)
    scheduler.add(old)
    step(scheduler)
    scheduler.remove(old)
    again, fresh = sequence("again", 50), sequence("fresh", 20, first=500)
    scheduler.add(again)
    scheduler.add(fresh)
    batch = scheduler.next_batch()
    check(scheduler, batch)
    (([source], [target]),) = batch.copies
    assert source not in [*pages_of(again), *pages_of(fresh)] and target == pages_of(again)[1]


def test_no_more_than_the_largest_batch_run_and_the_next_follows_in_order():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 512, max_running=2)
    sequences = [sequence(name, 5, first=i * 100) for i, name in enumerate("abcd")]
    for one in sequences:
        scheduler.add(one)
    assert set(step(scheduler)) == {"a", "b"}
    scheduler.remove(sequences[0])
    assert set(step(scheduler)) == {"b", "c"}


def test_a_prompt_that_is_known_is_not_computed_again():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 512)
    first = sequence("first", 100)
    scheduler.add(first)
    step(scheduler)
    scheduler.remove(first)
    again = sequence("again", 100)
    scheduler.add(again)
    batch = scheduler.next_batch()
    assert (again.num_cached, batch.chunks[0].start, batch.chunks[0].count) == (99, 99, 1)
    (([source], [target]),) = batch.copies
    assert target == pages_of(again)[3] and source != target, "the last page is only half known: a copy of it"


def test_two_running_sequences_share_the_pages_of_one_preamble():
    cache = PrefixCache([PagePool(64)])
    scheduler: Scheduler[str] = Scheduler(cache, 512)
    scheduler.add(sequence("a", 96))
    step(scheduler)
    scheduler.add(sequence("b", 160))
    step(scheduler)
    a, b = scheduler.running
    assert pages_of(a)[:3] == pages_of(b)[:3]
    assert b.num_cached == 96


def test_without_pages_the_latest_comer_waits_and_is_computed_again():
    cache = PrefixCache([PagePool(8)])
    scheduler: Scheduler[str] = Scheduler(cache, 512)
    first, second = sequence("first", 60), sequence("second", 60, first=1000)
    scheduler.add(first)
    scheduler.add(second)
    for _ in range(100):
        step(scheduler)
    assert first in scheduler.running
    assert second in scheduler.waiting and not second.tables
    scheduler.remove(first)
    counts = [step(scheduler)["second"] for _ in range(2)]
    assert counts[1] == 1 and second.num_computed == len(second.token_ids) - 1
    scheduler.remove(second)
    assert cache.num_used == 0


def test_one_sequence_may_fill_the_whole_pool():
    cache = PrefixCache([PagePool(4)])
    scheduler: Scheduler[str] = Scheduler(cache, 64)
    one = sequence("one", 100)
    scheduler.add(one)
    while len(one.token_ids) < 4 * PAGE_SIZE:
        step(scheduler)
    assert cache.num_used == 4


def test_removing_a_waiting_or_running_sequence_frees_its_pages_at_once():
    cache = PrefixCache([PagePool(16)])
    scheduler: Scheduler[str] = Scheduler(cache, 64, max_running=1)
    running, waiting = sequence("running", 200), sequence("waiting", 10)
    scheduler.add(running)
    scheduler.add(waiting)
    step(scheduler)
    scheduler.remove(running)
    scheduler.remove(waiting)
    assert cache.num_used == 0 and not scheduler.has_work


def test_a_failed_step_teaches_the_pool_nothing_about_it():
    cache = PrefixCache([PagePool(16)])
    scheduler: Scheduler[str] = Scheduler(cache, 64, max_running=4)
    one = sequence("one", 100)
    scheduler.add(one)
    step(scheduler)
    scheduler.next_batch()
    scheduler.discard(one)
    match = cache.match(list(range(100)), 99)
    assert (len(match.entries), match.partial_tokens, cache.num_used) == (2, 0, 0)


def guided(name: str, length: int, guide_length: int, first: int = 0) -> TokenSequence[str]:
    return with_guide(sequence(name, length, first), sequence(f"{name}'", guide_length, first + 50_000))


def test_a_guide_is_read_beside_its_prompt_and_the_one_waits_for_the_other():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 512)
    one = guided("a", 10, 700)
    scheduler.add(one)
    assert step(scheduler) == {"a": 10, "a'": 502}
    assert step(scheduler) == {"a'": 198} and len(one.token_ids) == 11, "now both are there"
    assert step(scheduler) == step(scheduler) == {"a": 1, "a'": 1}
    scheduler.remove(one.partner)
    assert not scheduler.has_work and scheduler.cache.num_used == 0


def test_two_sequences_of_a_request_come_and_go_together():
    """Nine pages: the second request is thrown out whole, and comes back whole."""
    cache = PrefixCache([PagePool(9)])
    scheduler: Scheduler[str] = Scheduler(cache, 512)
    first, second = guided("a", 60, 30), guided("b", 30, 20, first=1000)
    scheduler.add(first)
    scheduler.add(second)
    assert step(scheduler) == {"a": 60, "a'": 30, "b": 30, "b'": 20}
    while second in scheduler.running:
        step(scheduler)
    assert list(scheduler.waiting) == [second] and scheduler.running == first.pair
    assert second in scheduler and second.partner in scheduler and scheduler.requests == [first, second]
    assert not second.tables and not second.partner.tables
    scheduler.remove(first)
    while any(one.num_remaining > 1 for one in second.pair):
        step(scheduler)
    assert step(scheduler) == {"b": 1, "b'": 1}


def test_two_sequences_take_two_places_of_those_that_run():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(64)]), 512, max_running=3)
    for name in "ab":
        scheduler.add(guided(name, 10, 10, first=100 * ord(name)))
    assert set(step(scheduler)) == {"a", "a'"} and len(scheduler.waiting) == 1


def test_how_long_two_sequences_may_become():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(10)]), 512)
    assert scheduler.longest_pair((100, 100), 1000) == 160, "five pages each"
    assert scheduler.longest_pair((100, 36), 1000) == 192, "six and four"
    assert scheduler.longest_pair((100, 300), 1000) == 56, "less than it is: two pages and eight"
    assert scheduler.longest_pair((100, 110), 120) == 110, "the context ends where the guide's does"
    scheduler.max_running = 1
    assert scheduler.longest_pair((1, 1), 1000) == 0


def test_two_sequences_may_fill_the_whole_pool():
    """While both wait for the last page of the other nobody is thrown out in circles."""
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(10)]), 64)
    one = guided("a", 100, 36)
    scheduler.add(one)
    scheduler.add(guided("b", 10, 10, first=1000))
    while len(one.token_ids) < 192:
        step(scheduler)
    assert scheduler.cache.num_used == 10 and scheduler.running == one.pair


def test_random_traffic_ends_with_a_full_pool():
    rng = random.Random(1)
    cache = PrefixCache([PagePool(40)])
    scheduler: Scheduler[str] = Scheduler(cache, 96, max_running=6)
    left = {}
    for index in range(150):
        one = sequence(str(index), rng.randrange(1, 400), first=rng.choice([0, 0, 10_000 * index]))
        if rng.random() < 0.3:
            first = rng.choice([0, 10_000 * index])
            with_guide(one, sequence(f"{index}'", rng.randrange(1, 400), first))
        left[one] = rng.randrange(1, 200)
        scheduler.add(one)
    while scheduler.has_work:
        step(scheduler)
        for one in scheduler.requests:
            made = len(one.token_ids) - one.prompt_length
            length = sum(len(each.token_ids) for each in one.pair)
            if made >= left[one] or length >= 38 * PAGE_SIZE or rng.random() < 0.002:
                scheduler.remove(one)
    assert cache.num_used == 0


def test_a_sequence_that_grows_beyond_a_length_is_computed_again_apart_from_short_ones():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(20)]), 512, rotation=Rotation(70))
    grown = sequence("grown", 69)
    scheduler.add(grown)
    assert step(scheduler) == {"grown": 69}
    batch = scheduler.next_batch()
    assert scheduler.room_for_draft(batch.chunks[0], 5) == 0, "70 tokens: none of a guess would count"
    scheduler.computed(batch)
    grown.token_ids.append(7)
    assert not grown.rotated_for
    assert step(scheduler) == {"grown": 69} and grown.rotated_for, "the prompt; 71 tokens are a long sequence"
    while grown.num_remaining > 1:
        step(scheduler)
    for name, length, known in (("short", 69, 68), ("long", 72, 69)):
        again = sequence(name, length)
        again.token_ids[69:] = [7] * (length - 69)
        scheduler.add(again)
        step(scheduler)
        assert (again.num_cached, bool(again.rotated_for)) == (known, name == "long")


def test_with_a_dynamic_rope_a_reply_is_rotated_for_steps_of_an_eighth_and_a_text_for_its_length():
    rotation = Rotation(48, is_dynamic=True)
    lengths = {}
    for length in (48, 49, 54, 55, 96):
        lengths[length] = rotation.length(sequence("reply", length)), rotation.length(whole(length))
    assert lengths == {48: (0, 0), 49: (54, 49), 54: (54, 54), 55: (60, 55), 96: (96, 96)}


def test_sequences_that_are_rotated_for_other_lengths_wait_for_each_other():
    scheduler: Scheduler[str] = Scheduler(PrefixCache([PagePool(40)]), 512, rotation=Rotation(48, True))
    first, same = sequence("first", 50), sequence("same", 54, first=100)
    longer, short = sequence("longer", 60, first=200), sequence("s", 9, first=300)
    for one in (first, same, longer, short):
        scheduler.add(one)
    assert set(step(scheduler)) == {"first", "same"}, "those behind the one that waits do, too"
    batch = scheduler.next_batch()
    assert batch.rotated_for == 54
    assert scheduler.room_for_draft(batch.chunks[0], 9) == 54 - len(first.token_ids)
    scheduler.computed(batch)
    scheduler.remove(first)
    scheduler.remove(same)
    batch = scheduler.next_batch()
    assert {chunk.sequence.owner for chunk in batch.chunks} == {"longer", "s"} and batch.rotated_for == 60
    assert short.rotated_for == 0


def whole(length: int) -> TokenSequence[str]:
    made = sequence("text", length)
    made.is_whole = True
    return made
