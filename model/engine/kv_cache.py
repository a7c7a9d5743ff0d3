"""Which page of the cache belongs to whom, and which content can be used again.

A page holds the keys and values of PAGE_SIZE consecutive tokens of every layer. A sequence's block table is a
list of pages. A page's content is known by its chain: (the chain before it, its own tokens). Chains are
looked up by comparing the tokens themselves, so equal hashes of different tokens can never be confused.
Pages that nobody uses keep their content until they are needed; the least recently used go first.
Knows no tensors: page numbers and token ids only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from model.sizes import PAGE_SIZE

ROOT = 0
"""The chain before the first page."""


def root_of(is_long: bool, adapter: int) -> int:
    """The same of sequences whose keys are rotated as those of long ones, or computed with an adapter (not
    negative): no other takes their pages for its own."""
    return ROOT - 2 * (adapter + 1) - is_long


@dataclass
class Entry:
    """The known content of a page: `tokens` after the chain `parent`; together they are the chain `chain`."""

    page: int
    parent: int
    tokens: tuple[int, ...]
    chain: int


@dataclass
class Match:
    """What of a prompt is in the cache: whole pages to share, and a page of which the first tokens fit."""

    pages: list[int] = field(default_factory=list)
    chains: list[int] = field(default_factory=lambda: [ROOT])  # before the first page, and after each
    partial_page: int = -1
    partial_tokens: int = 0
    state: int = -1  # the slot of a snapshot, see state_pool.py

    @property
    def chain(self) -> int:
        return self.chains[-1]

    @property
    def num_tokens(self) -> int:
        return len(self.pages) * PAGE_SIZE + self.partial_tokens


class PagePool:
    """`num_pages` pages. Every page is free, in use (by one or several), or unused with known content."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._users = [0] * num_pages
        self._entries: list[Entry | None] = [None] * num_pages
        self._children: dict[int, dict[tuple[int, ...], Entry]] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()  # known content, oldest first
        self._last_chain = ROOT

    @property
    def num_available(self) -> int:
        """Pages that `allocate` can give: free ones, and unused ones whose content would be forgotten."""
        return len(self._free) + len(self._unused)

    @property
    def num_used(self) -> int:
        return self.num_pages - self.num_available

    def match(self, token_ids: Sequence[int], limit: int, root: int = ROOT) -> Match:
        """The longest known beginning of `token_ids`, at most `limit` tokens. Takes nothing into use."""
        match = Match(chains=[root])
        position = 0
        while position < limit:
            children = self._children.get(match.chain)
            if not children:
                break
            tokens = tuple(token_ids[position:min(position + PAGE_SIZE, limit)])
            entry = children.get(tokens) if len(tokens) == PAGE_SIZE else None
            if entry is None:
                best = max(children.values(), key=lambda child: _common(child.tokens, tokens))
                match.partial_tokens = _common(best.tokens, tokens)
                match.partial_page = best.page if match.partial_tokens else -1
                break
            match.pages.append(entry.page)
            match.chains.append(entry.chain)
            position += PAGE_SIZE
        return match

    def take(self, pages: Sequence[int]) -> None:
        """Use these pages as well; their content is kept until everyone has released them."""
        for page in pages:
            self._users[page] += 1
            self._unused.pop(page, None)

    def allocate(self) -> int | None:
        """A page for new content, or None when all are in use."""
        if self._free:
            page = self._free.pop()
        elif self._unused:
            page, _ = self._unused.popitem(last=False)
            self._forget(page)
        else:
            return None
        self._users[page] = 1
        return page

    def release(self, pages: Sequence[int]) -> None:
        """Use these pages (a sequence's, in order) no longer. The last ones will be reused first, so that no
        beginning of a chain is forgotten before its end."""
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page]:
                continue
            if self._entries[page] is None:
                self._free.append(page)
            else:
                self._unused[page] = None

    def know(self, page: int, parent: int, tokens: tuple[int, ...]) -> int:
        """Remember that `page` holds `tokens` after the chain `parent`; returns the chain up to here.

        If another page is known for the same content that one stays known, and its chain is returned. What
        was said of `page` before, while it held fewer tokens, is forgotten.
        """
        known = self._entries[page]
        if known is not None and (known.parent, known.tokens) != (parent, tokens):
            self._forget(page)
        children = self._children.setdefault(parent, {})
        entry = children.get(tokens)
        if entry is None:
            self._last_chain += 1
            entry = children[tokens] = Entry(page, parent, tokens, self._last_chain)
            self._entries[page] = entry
        return entry.chain

    def _forget(self, page: int) -> None:
        entry = self._entries[page]
        if entry is None:
            return
        self._entries[page] = None
        siblings = self._children[entry.parent]
        del siblings[entry.tokens]
        if not siblings:
            del self._children[entry.parent]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading items are equal."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
