"""Which slot of the states belongs to whom, and which states are kept as snapshots.

A sequence that runs has a slot, whose content moves on with every token. A snapshot is what a slot held
after a beginning that others may have, too: a chain of whole pages (see prefix_cache.py) and the tokens
behind it. The least recently used ones go when a slot is wanted. Knows no tensors: slots, chains, token ids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from model.engine.prefix_cache import End, Match
from model.sizes import PAGE_SIZE

Place = tuple[int, tuple[int, ...]]
"""(chain of the whole pages, fewer than PAGE_SIZE tokens behind it)."""
_MAX_RESERVE = 16
"""Slots that snapshots leave free, for the rows of guesses: see sequence_states.py."""


class StatePool:
    """`num_slots` slots. Every one is free, in use, or holds a snapshot."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._reserve = min(_MAX_RESERVE, num_slots // 4)
        self._snapshots: OrderedDict[int, Place] = OrderedDict()  # least recently used first
        self._by_chain: dict[int, dict[tuple[int, ...], int]] = {}

    @property
    def num_available(self) -> int:
        """Slots that `allocate` can give."""
        return len(self._free) + len(self._snapshots)

    @property
    def num_snapshots(self) -> int:
        return len(self._snapshots)

    def allocate(self) -> int | None:
        """A slot for a sequence, if need be that of a snapshot; None when all are in use."""
        if not self._free and not self._forget_oldest():
            return None
        return self._free.pop()

    def allocate_for_snapshot(self) -> int | None:
        """A slot that `keep` will be told of, if need be that of an older snapshot."""
        while len(self._free) <= self._reserve:
            if not self._forget_oldest():
                return None
        return self._free.pop()

    def allocate_spare(self) -> int | None:
        """A slot that nobody else wants now."""
        return self._free.pop() if self._free else None

    def release(self, slot: int) -> None:
        """Nobody needs what it holds."""
        self._free.append(slot)

    def keep(self, slot: int, chain: int, tail: tuple[int, ...]) -> None:
        """The slot holds the state after `chain` and the tokens `tail`; it belongs to nobody any more."""
        siblings = self._by_chain.setdefault(chain, {})
        known = siblings.get(tail)
        if known is not None:
            self._snapshots.move_to_end(known)
            self.release(slot)
            return
        siblings[tail] = slot
        self._snapshots[slot] = chain, tail
        while len(self._free) < self._reserve and len(self._snapshots) > 1:
            self._forget_oldest()

    def ends(self, match: Match, token_ids: Sequence[int], limit: int,
             whole_pages: bool = False) -> Iterator[End]:
        """Where within a match the state is known, too, the longest first, with the snapshot's slot.

        limit        tokens that may be taken at most
        whole_pages  no part of a page is wanted
        """
        chains = match.chains
        for count in range(len(match.entries), -1, -1):
            known = PAGE_SIZE if count < len(match.entries) else match.partial_tokens
            first = count * PAGE_SIZE
            tokens = tuple(token_ids[first:min(first + known, limit)])
            found = self._by_chain.get(chains[count], {})
            tails = [tail for tail in found
                     if tail == tokens[:len(tail)] and not (whole_pages and tail) and (tail or count)]
            for tail in sorted(tails, key=len, reverse=True):
                yield End(count, len(tail), found[tail])

    def use(self, slot: int) -> None:
        """This snapshot has been of use."""
        self._snapshots.move_to_end(slot)

    def _forget_oldest(self) -> bool:
        if not self._snapshots:
            return False
        slot, (chain, tail) = self._snapshots.popitem(last=False)
        del self._by_chain[chain][tail]
        if not self._by_chain[chain]:
            del self._by_chain[chain]
        self._free.append(slot)
        return True
