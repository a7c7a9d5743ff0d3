"""Which content of the cache's pages is known, so that it can be used again.

Content is known by its chain: (the chain before it, its own tokens). Chains are looked up by comparing the
tokens themselves, so equal hashes of different tokens can never be confused. Layers that look equally far
back have a pool of pages (page_pool.py): a beginning of tokens can be taken up again behind any place up to
which all pages are there of layers that see everything, and of the others those that a window there has.
Knows no tensors: page numbers and token ids only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from model.engine.page_pool import BLANK, PagePool, Table
from model.sizes import PAGE_SIZE

ROOT = 0
"""The chain before the first page."""
_NONE = -1
_LENGTHS = 1 << 32


def root_of(rotated_for: int, adapter: int) -> int:
    """The chain before the first page of sequences whose keys are rotated for so many tokens (0: as those of
    short ones), or computed with an adapter (not negative): no other takes their pages for its own."""
    return ROOT - (adapter + 1) * _LENGTHS - rotated_for


@dataclass(eq=False)
class Entry:
    """Known content: `tokens` after the chain `parent`; together they are the chain `chain`."""

    parent: int
    tokens: tuple[int, ...]
    chain: int
    pages: list[int]  # in each pool; negative where it is not any more


class End(NamedTuple):
    """A place within a match: behind so many whole pages and `tail` tokens of the next one."""

    count: int
    tail: int = 0
    state: int = -1  # the slot of a snapshot, see state_pool.py


@dataclass(frozen=True)
class Match:
    """What of a prompt is in the cache: whole pages to share, and a page of which the first tokens fit."""

    root: int = ROOT
    entries: list[Entry] = field(default_factory=list)
    partial: Entry | None = None
    partial_tokens: int = 0
    state: int = -1  # the slot of a snapshot
    # for each entry, the partial one included, and each pool: from which of them on it has all up to here
    runs: list[list[int]] = field(default_factory=list)

    @property
    def chains(self) -> list[int]:
        """Before the first page, and after each."""
        return [self.root, *(entry.chain for entry in self.entries)]

    @property
    def num_tokens(self) -> int:
        return len(self.entries) * PAGE_SIZE + self.partial_tokens

    def ends(self, whole_pages: bool = False) -> Iterator[End]:
        """Where it may be cut, the longest first."""
        if self.partial_tokens and not whole_pages:
            yield End(len(self.entries), self.partial_tokens)
        for count in range(len(self.entries), 0, -1):
            yield End(count)

    def cut(self, end: End) -> Match:
        """Its part up to there."""
        behind = self.entries[end.count] if end.count < len(self.entries) else self.partial
        return replace(self, entries=self.entries[:end.count], partial=behind if end.tail else None,
                       partial_tokens=end.tail, state=end.state)


class PrefixCache:
    """The pools of a model's kinds of layers, and what is known of their pages."""

    def __init__(self, pools: Sequence[PagePool]) -> None:
        self.pools = tuple(pools)
        for index, pool in enumerate(self.pools):
            pool.forgotten = partial(self._forget, index)
        self.has_windows = any(pool.reach is not None for pool in self.pools)
        self._whole = [index for index, pool in enumerate(self.pools) if pool.reach is None]
        self._by_page: list[dict[int, Entry]] = [{} for _ in self.pools]
        self._by_chain: dict[int, Entry] = {}
        self._children: dict[int, dict[tuple[int, ...], Entry]] = {}
        self._last_chain = ROOT

    @property
    def num_pages(self) -> int:
        return sum(pool.num_pages for pool in self.pools)

    @property
    def num_used(self) -> int:
        return sum(pool.num_used for pool in self.pools)

    def could_hold(self, lengths: Sequence[int]) -> bool:
        """Whether sequences of these lengths have room at once, if nobody else has a page."""
        return all(sum(map(pool.most_held, lengths)) <= pool.num_pages for pool in self.pools)

    def match(self, token_ids: Sequence[int], limit: int, root: int = ROOT) -> Match:
        """The longest known beginning of `token_ids`, at most `limit` tokens, whatever is left of windows;
        `longest` tells which part can be used. Takes nothing into use."""
        chain, entries, runs = root, [], []
        for position in range(0, limit, PAGE_SIZE):
            children = self._children.get(chain)
            if not children:
                break
            tokens = tuple(token_ids[position:min(position + PAGE_SIZE, limit)])
            entry = children.get(tokens) if len(tokens) == PAGE_SIZE else None
            if entry is None or any(entry.pages[index] < 0 for index in self._whole):
                best = max(children.values(), key=lambda child: self._common(child, tokens))
                common = self._common(best, tokens)
                if common:
                    return Match(root, entries, best, common, runs=[*runs, self._run(best, runs)])
                break
            runs.append(self._run(entry, runs))
            entries.append(entry)
            chain = entry.chain
        return Match(root, entries, runs=runs)

    def longest(self, match: Match, ends: Iterable[End]) -> Match:
        """The part up to the first of these ends behind which a sequence can go on: all is there that the
        next token looks at."""
        return next((match.cut(end) for end in ends if self._is_there(match, end)), Match(match.root))

    def _is_there(self, match: Match, end: End) -> bool:
        last = end.count if end.tail else end.count - 1
        position = end.count * PAGE_SIZE + end.tail
        return last < 0 or all(run <= pool.first_seen(position)
                               for pool, run in zip(self.pools, match.runs[last], strict=True))

    def _run(self, entry: Entry, runs: list[list[int]]) -> list[int]:
        """Of an entry that comes after those of `runs`."""
        before = runs[-1] if runs else [0] * len(self.pools)
        return [start if page >= 0 else len(runs) + 1
                for start, page in zip(before, entry.pages, strict=True)]

    def _common(self, entry: Entry, tokens: Sequence[int]) -> int:
        """How many tokens are equal; none if not all of its pages are there."""
        if min(entry.pages) < 0:
            return 0
        return next((count for count, (a, b) in enumerate(zip(entry.tokens, tokens, strict=False)) if a != b),
                    min(len(entry.tokens), len(tokens)))

    def begin(self, match: Match) -> list[Table]:
        """The tables of a sequence that goes on behind the whole pages of a match, which it uses now, too."""
        tables = []
        for index, pool in enumerate(self.pools):
            first = min(pool.first_seen(match.num_tokens), len(match.entries))
            pages = [entry.pages[index] for entry in match.entries[first:]]
            pool.take(pages)
            tables.append(Table([BLANK] * first + pages, first))
        return tables

    def take(self, pages: Sequence[int]) -> None:
        """Use a page of each pool."""
        for pool, page in zip(self.pools, pages, strict=True):
            pool.take([page])

    def let_go(self, pages: Sequence[int]) -> None:
        """The reverse."""
        for pool, page in zip(self.pools, pages, strict=True):
            pool.release([page])

    def extend(self, tables: Sequence[Table], num_tokens: int) -> int:
        """Allocate what so many tokens want, or as many as every pool has pages for; returns how many those
        are."""
        held = min(len(table.pages) for table in tables) * PAGE_SIZE
        if num_tokens <= held:
            return held
        possible = min(len(table.pages) + pool.num_available
                       for pool, table in zip(self.pools, tables, strict=True))
        for pool, table in zip(self.pools, tables, strict=True):
            pool.extend(table, min(num_tokens, possible * PAGE_SIZE))
        return min(len(table.pages) for table in tables) * PAGE_SIZE

    def release(self, tables: Sequence[Table]) -> None:
        """The sequence that they belong to runs no more."""
        for pool, table in zip(self.pools, tables, strict=True):
            pool.release(table.held)

    def know(self, pages: Sequence[int], parent: int, tokens: tuple[int, ...]) -> int:
        """Remember that these, one of each pool, hold `tokens` after the chain `parent`; returns the chain up
        to here.

        Where others are known for the same content those stay known, and their chain is returned. What was
        said of these before, while they held fewer tokens, is forgotten.
        """
        siblings = self._children.setdefault(parent, {})
        entry = siblings.get(tokens)
        if entry is None:
            self._last_chain += 1
            entry = siblings[tokens] = Entry(parent, tokens, self._last_chain, [_NONE] * len(self.pools))
            self._by_chain[entry.chain] = entry
        for index, page in enumerate(pages):
            known = self._by_page[index].get(page)
            if known is not None and known is not entry:
                self._forget(index, page)
            if entry.pages[index] < 0:
                entry.pages[index] = page
                self._by_page[index][page] = entry
                self.pools[index].know(page)
        return entry.chain

    def _forget(self, index: int, page: int) -> None:
        self.pools[index].unknow(page)
        entry = self._by_page[index].pop(page, None)
        if entry is not None:
            entry.pages[index] = _NONE
            self._drop_unused(entry)

    def _drop_unused(self, entry: Entry | None) -> None:
        """One without pages stays as long as another lies behind it, which may be all that is needed."""
        while entry is not None and max(entry.pages) < 0 and entry.chain not in self._children:
            siblings = self._children[entry.parent]
            del siblings[entry.tokens], self._by_chain[entry.chain]
            if siblings:
                return
            del self._children[entry.parent]
            entry = self._by_chain.get(entry.parent)
