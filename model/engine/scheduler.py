"""Who computes what in the next step: decoding sequences, and chunks of prompts.

Waiting requests are admitted in the order they came, as many as the pages hold. One whose beginning is just
being computed for another waits for that, and shares its pages. Every step decodes all running sequences and
spends a bounded number of tokens on prompts, so that neither a long prompt stalls the streams nor a short
prompt waits for a long one. When the pages run out, the latest comer goes back to waiting and is computed
again later. Of two sequences of one request neither is admitted or thrown out without the other, so that none
waits for pages of one that waits for it. Of layers with a window a sequence has pages for the window alone
and for the tokens being computed. Where layers keep a state, a sequence has a slot for it, and snapshots of
it are made within its prompt, so that others can begin there. Lists and integers only: no tensors, no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic

from model.engine.page_pool import PagePool, Table
from model.engine.prefix_cache import ROOT, Match, PrefixCache
from model.engine.rotation import SAME, Rotation
from model.engine.sequence_states import SequenceStates
from model.engine.sequences import Batch, Chunk, Owner, TokenSequence
from model.sizes import MAX_RUNNING, PAGE_SIZE, step_tokens

_GROWTH = 2 * PAGE_SIZE
"""Tokens for which a newcomer leaves pages to each that runs, so that it is not thrown out again at once."""


@dataclass
class _Start(Generic[Owner]):
    """Where a sequence would begin: behind `match`. `known` is what the pages alone would give."""

    sequence: TokenSequence[Owner]
    match: Match
    known: Match


class Scheduler(Generic[Owner]):
    """Waiting and running sequences over the pages of one cache."""

    def __init__(self, cache: PrefixCache, prefill_chunk: int, max_running: int = MAX_RUNNING,
                 rotation: Rotation = SAME, states: SequenceStates[Owner] | None = None) -> None:
        """`rotation`: a sequence that grows out of its own is computed again. `states`: for models that keep
        some."""
        self.cache, self.states, self._rotation = cache, states, rotation
        self.prefill_chunk = prefill_chunk
        self.max_running = max_running
        self.max_tokens = step_tokens(prefill_chunk, max_running)
        self.waiting: deque[TokenSequence[Owner]] = deque()  # of two of one request the first stands for both
        self.running: list[TokenSequence[Owner]] = []  # by arrival, preempted ones apart
        # for the step being planned: whose part of a page is copied, from and to a page of each pool
        self._copies: dict[TokenSequence[Owner], tuple[list[int], list[int]]] = {}
        self._num_arrivals = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    @property
    def requests(self) -> list[TokenSequence[Owner]]:
        """A sequence of each request, running ones first: the one whose tokens it asks for."""
        return [*(sequence for sequence in self.running if not sequence.is_guide), *self.waiting]

    def __contains__(self, sequence: TokenSequence[Owner]) -> bool:
        return sequence in self.running or sequence.pair[0] in self.waiting

    def clear(self) -> None:
        """Forget every sequence; the cache is not used any more."""
        self.running.clear()
        self.waiting.clear()

    def add(self, sequence: TokenSequence[Owner]) -> None:
        for one in sequence.pair:
            one.arrival = self._num_arrivals
            self._num_arrivals += 1
        self.waiting.append(sequence.pair[0])

    def longest_pair(self, lengths: Sequence[int], max_seq_len: int) -> int:
        """How long the first of two sequences of one request may become, both of which grow alike, so that
        there are pages for them while nobody else has any. Less than it is now: they do not even fit."""
        if self.max_running < 2 or (self.states is not None and self.states.pool.num_slots < 2):
            return 0
        most = max_seq_len - (max(lengths) - lengths[0])
        return bisect_left(range(1, most + 1), True, key=lambda length: not self.cache.could_hold(
            [length + other - lengths[0] for other in lengths]))

    def num_cached(self, sequence: TokenSequence[Owner]) -> int:
        """How many tokens of its beginning it would not have to compute if it began now."""
        return self._planned(sequence).match.num_tokens

    def remove(self, sequence: TokenSequence[Owner]) -> None:
        """Forget all of its request, waiting or running; its pages are free (or known, for reuse) at once."""
        if sequence not in self.running:
            self.waiting.remove(sequence.pair[0])
            return
        for one in sequence.pair:
            self.running.remove(one)
            self._release(one)

    def discard(self, sequence: TokenSequence[Owner]) -> None:
        """As `remove`, for a sequence whose step failed: a page that is not known yet will not be reused."""
        for one in sequence.pair:
            one.num_computed = one.num_known * PAGE_SIZE
            if self.states is not None:
                self.states.drop(one)
        self.remove(sequence)

    def undo_admissions(self) -> None:
        """The step failed: whoever was to begin in it with copies of another's page or state may not have got
        them, and waits again. Call when those that were computed are discarded."""
        for sequence in self.running[::-1]:
            if sequence in self.running and self._awaits_copy(sequence):  # it may have gone with its partner
                self._preempt(sequence)

    def next_batch(self) -> Batch[Owner]:
        """Choose the next step's work. Call only while there is work; then it is never empty."""
        self._copies = {}
        if self.states is not None:
            self.states.copies = []
        for sequence in [s for s in self.running if s.rotated_for != self._rotation.length(s)]:
            if sequence in self.running:  # it went with its partner
                self._preempt(sequence)
        self._admit()
        for sources, _ in self._copies.values():
            self.cache.let_go(sources)
        decoding = [s for s in self.running if s.num_remaining == 1]
        chunks = [Chunk(s, s.num_computed, 1) for s in decoding if self._give_page(s)]
        chunks = [chunk for chunk in chunks if chunk.sequence in self.running]  # not thrown out since
        prefilling = [s for s in self.running if s.num_remaining > 1]
        budget = max(PAGE_SIZE, self.prefill_chunk // 4) if chunks else self.prefill_chunk
        chunks += self._prompt_chunks(prefilling, min(budget, self.max_tokens - len(chunks)))
        chunks = [chunk for chunk in chunks if chunk.sequence in self.running]
        if not chunks:  # everything was preempted for want of pages: the first request gets them all
            return self.next_batch()
        if self.states is None:
            return Batch(chunks, list(self._copies.values()))
        self.states.plan_snapshots(chunks)
        return Batch(chunks, list(self._copies.values()), self.states.copies)

    def computed(self, batch: Batch[Owner]) -> None:
        """The batch's keys and values are in the cache; full pages can be used by others from now on."""
        for chunk in batch.chunks:
            sequence = chunk.sequence
            sequence.num_computed = chunk.start
            self._advance(sequence, chunk.count)
            if self.states is not None and chunk.is_of_prompt:
                self.states.keep_snapshots(sequence)
            if sequence.num_computed == sequence.prompt_length:
                self._know_part(sequence)  # whoever has the same prompt may copy the rest of it

    def accept(self, chunk: Chunk[Owner], count: int) -> None:
        """The first `count` tokens of the chunk's draft are in the cache as well; the others are wrong."""
        if self.states is not None:
            self.states.accept(chunk, count)
        self._advance(chunk.sequence, count)

    def _advance(self, sequence: TokenSequence[Owner], count: int) -> None:
        """The next `count` of its tokens are in the cache as well."""
        sequence.num_computed += count
        while (sequence.num_known + 1) * PAGE_SIZE <= sequence.num_computed:
            self._know_page(sequence)
        if self.cache.has_windows:
            marks = (*sequence.turns, sequence.prompt_length - 1)
            for pool, table in zip(self.cache.pools, sequence.tables, strict=True):
                pool.release_behind(table, sequence.num_computed, marks)

    def room_for_draft(self, chunk: Chunk[Owner], wanted: int) -> int:
        """How many tokens after `chunk`, at most `wanted`, have pages without throwing anyone out."""
        end = chunk.start + chunk.count + wanted
        if (limit := self._rotation.end(chunk.sequence)) is not None:
            end = max(chunk.start + chunk.count, min(end, limit))
        room = min(end, self.cache.extend(chunk.sequence.tables, end)) - chunk.start - chunk.count
        return room if self.states is None else self.states.save_rows(chunk, room)

    def _know_page(self, sequence: TokenSequence[Owner]) -> None:
        sequence.chains.append(self._know_part(sequence))

    def _know_part(self, sequence: TokenSequence[Owner]) -> int:
        """Tell the cache what the first pages that it does not know hold so far; the chain up to there."""
        first = sequence.num_known * PAGE_SIZE
        tokens = tuple(sequence.token_ids[first:min(first + PAGE_SIZE, sequence.num_computed)])
        if not tokens:
            return sequence.chains[-1]
        pages = [table.pages[sequence.num_known] for table in sequence.tables]
        return self.cache.know(pages, sequence.chains[-1], tokens)

    def _admit(self) -> None:
        held: list[TokenSequence[Owner]] = []
        while self.waiting and len(self.running) + len(self.waiting[0].pair) <= self.max_running:
            starts = [self._planned(one) for one in self.waiting[0].pair]
            if any(self._is_coming(start.sequence, start.match) for start in starts):
                held.append(self.waiting.popleft())
            elif (self._rotation.can_be_together([*self.running, *self.waiting[0].pair])
                  and self._start(starts)):
                self.running += self.waiting.popleft().pair
            else:
                break
        self.waiting.extendleft(reversed(held))

    def _planned(self, sequence: TokenSequence[Owner]) -> _Start[Owner]:
        sequence.rotated_for = self._rotation.length(sequence)
        known = self.cache.match(sequence.token_ids, sequence.num_reusable, sequence.root)
        return _Start(sequence, self._usable(sequence, known), known)

    def _usable(self, sequence: TokenSequence[Owner], known: Match, whole_pages: bool = False) -> Match:
        """The part of what is known behind which it can go on."""
        ends = known.ends(whole_pages) if self.states is None else self.states.pool.ends(
            known, sequence.token_ids, sequence.num_reusable, whole_pages)
        return self.cache.longest(known, ends)

    def _is_coming(self, sequence: TokenSequence[Owner], match: Match) -> bool:
        """Whether the page after these is just being computed in the prompt of another; with states, a
        snapshot further on."""
        next_page = [(len(match.entries) + 1) * PAGE_SIZE]
        for other in self.running:
            for end in next_page if self.states is None else reversed(other.marks):
                if (match.num_tokens < end <= sequence.num_reusable
                        and other.num_computed < end <= other.prompt_length
                        and other.root == sequence.root
                        and other.token_ids[:end] == sequence.token_ids[:end]):
                    return True
        return False

    def _start(self, starts: list[_Start[Owner]]) -> bool:
        """Reserve the pages of all tokens of a request (of windows those that it will hold), and slots;
        False, and nothing changes, if there are too few."""
        if self.states is not None:
            if self.states.pool.num_available < len(starts):
                return False
            if len(starts) > 1 and self.states.pool.num_available < 2 * len(starts):
                # the slot of one might be the snapshot of the other: both are computed from their beginning
                starts = [replace(start, match=Match(start.match.root)) for start in starts]
        begun = [self.cache.begin(start.match) for start in starts]
        spare = self._spare([start.sequence for start in starts], begun)
        num_parts = sum(start.match.partial is not None for start in starts)
        if num_parts and spare < num_parts:
            for tables in begun:
                self.cache.release(tables)
            return self._start([replace(start, match=self._usable(start.sequence, start.known, True))
                                for start in starts])
        if spare < 0:
            for tables in begun:
                self.cache.release(tables)
            return False
        for start in starts:
            if start.match.partial is not None:  # nobody may get it before it is copied; next_batch lets go
                self.cache.take(start.match.partial.pages)
        for start, tables in zip(starts, begun, strict=True):
            self._begin(start, tables)
        return True

    def _begin(self, start: _Start[Owner], tables: list[Table]) -> None:
        """Give a sequence what `_start` has found to be there."""
        sequence, match = start.sequence, start.match
        if self.states is not None:
            self.states.give(sequence, match, start.known)
        sequence.tables, sequence.chains = tables, match.chains
        sequence.num_computed = match.num_tokens
        if match.partial is not None:
            sources, index = list(match.partial.pages), len(match.entries)
            self.cache.extend(tables, (index + 1) * PAGE_SIZE)
            self._copies[sequence] = sources, [table.pages[index] for table in tables]
        for pool, table in zip(self.cache.pools, tables, strict=True):
            if pool.reach is None:
                pool.extend(table, len(sequence.token_ids))
        if not sequence.was_admitted:
            sequence.was_admitted = True
            sequence.num_cached = sequence.num_computed

    def _spare(self, sequences: list[TokenSequence[Owner]], begun: list[list[Table]]) -> int:
        """Pages that would be left, in the pool that has fewest, if these began with these tables and got
        what they want and those that run what they will want soon."""
        def left(index: int, pool: PagePool) -> int:
            running = sum(_wanted(pool, s.tables[index], len(s.token_ids) + _GROWTH) for s in self.running)
            beginning = sum(_wanted(pool, tables[index], len(sequence.token_ids))
                            for sequence, tables in zip(sequences, begun, strict=True))
            return pool.num_available - running - beginning

        return min(left(index, pool) for index, pool in enumerate(self.cache.pools))

    def _give_page(self, sequence: TokenSequence[Owner]) -> bool:
        """Make room for one more token, at the expense of the latest comer. False if that is itself."""
        if sequence not in self.running:
            return False
        while self.cache.extend(sequence.tables, sequence.num_computed + 1) <= sequence.num_computed:
            self._preempt(max(self.running, key=lambda s: s.arrival))
            if sequence not in self.running:
                return False
        return True

    def _awaits_copy(self, sequence: TokenSequence[Owner]) -> bool:
        """Whether it was admitted in this very step, with something that is not there yet."""
        return sequence in self._copies or (self.states is not None and self.states.awaits_copy(sequence))

    def _preempt(self, sequence: TokenSequence[Owner]) -> None:
        """Back to the head of the waiting ones, with all of its request. Its pages stay known as long as
        nobody needs them."""
        for one in sequence.pair:
            self.running.remove(one)
            if self._copies.pop(one, None):  # admitted in this very step: the part is not copied yet
                one.num_computed = one.num_known * PAGE_SIZE
            if self.states is not None:
                self.states.uncopy(one)
            one.reuse_limit = max(one.reuse_limit, one.num_computed)
            self._release(one)
        self.waiting.appendleft(sequence.pair[0])

    def _release(self, sequence: TokenSequence[Owner]) -> None:
        self._know_part(sequence)
        if self.states is not None:
            self.states.keep(sequence)
        self.cache.release(sequence.tables)
        sequence.tables, sequence.chains = [], [ROOT]
        sequence.num_computed = 0

    def _prompt_chunks(self, prefilling: list[TokenSequence[Owner]], budget: int) -> list[Chunk[Owner]]:
        """Half of the budget to the first to come, the rest evenly to all; what short prompts leave goes to
        the longer ones."""
        if not prefilling:
            return []
        first = min(prefilling, key=lambda s: s.arrival)
        counts = {first: min(first.num_alike, -(-budget // 2))}
        budget -= counts[first]
        by_length = sorted(prefilling, key=lambda s: s.num_alike - counts.get(s, 0))
        for index, sequence in enumerate(by_length):
            share = max(1, budget // (len(by_length) - index))
            already = counts.get(sequence, 0)
            count = min(sequence.num_alike - already, share, budget)
            counts[sequence] = already + count
            budget -= count
        return self._with_pages(counts)

    def _with_pages(self, counts: dict[TokenSequence[Owner], int]) -> list[Chunk[Owner]]:
        """Chunks of at most so many tokens, for which there are pages. The first sequence gets one at the
        expense of others, so that there is always one that goes on."""
        chunks = []
        for sequence, count in counts.items():
            if not count or (not chunks and not self._give_page(sequence)) or sequence not in self.running:
                continue
            start = sequence.num_computed
            count = min(count, self.cache.extend(sequence.tables, start + count) - start)
            if count > 0:
                chunks.append(Chunk(sequence, start, count))
        return chunks


def _wanted(pool: PagePool, table: Table, num_tokens: int) -> int:
    """Pages that a sequence of so many tokens will hold more than now."""
    return max(0, pool.most_held(num_tokens - table.first * PAGE_SIZE) - table.num_held)
