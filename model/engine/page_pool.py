"""The pages of layers that look equally far back: which are free, in use, or unused with known content.

A page holds the keys and values of PAGE_SIZE consecutive tokens in each of these layers. Where they look
back at a window only, a sequence lets go of the pages behind it while it runs. Pages that nobody uses keep
what is known of them until they are needed; the least recently used go first.
Knows no tensors and no tokens: numbers only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model.sizes import PAGE_SIZE, pages_for, window_pages

BLANK = 0
"""The page of zeros in a pool of windows. It stands in tables where a sequence holds none: a kernel that
reads a window's first keys may touch those before it, whose weight is zero."""


@dataclass
class Table:
    """The pages of a sequence in one pool, in order; those before `first` are not held any more."""

    pages: list[int] = field(default_factory=list)
    first: int = 0

    @property
    def held(self) -> list[int]:
        return self.pages[self.first:]

    @property
    def num_held(self) -> int:
        return len(self.pages) - self.first


class PagePool:
    """`num_pages` pages, one of them the BLANK one if there is a reach.

    reach      tokens that the layers look back at, the own one included; None: at all
    forgotten  hears of a page whose content gives way
    """

    def __init__(self, num_pages: int, reach: int | None = None) -> None:
        first = 0 if reach is None else BLANK + 1
        self.reach, self.num_pages = reach, num_pages - first
        self.forgotten: Callable[[int], None] = self.unknow
        self._free = list(range(num_pages - 1, first - 1, -1))
        self._users = [0] * num_pages
        self._known: set[int] = set()
        self._unused: OrderedDict[int, None] = OrderedDict()  # known content, the first to go first

    @property
    def num_available(self) -> int:
        """Pages that `allocate` can give: free ones, and unused ones whose content would be forgotten."""
        return len(self._free) + len(self._unused)

    @property
    def num_used(self) -> int:
        return self.num_pages - self.num_available

    def first_seen(self, position: int) -> int:
        """The index of the first page that a token at `position` looks at."""
        return 0 if self.reach is None else max(0, position + 1 - self.reach) // PAGE_SIZE

    def most_held(self, num_tokens: int) -> int:
        """Pages that a sequence of so many tokens holds between steps, at most."""
        return pages_for(num_tokens) if self.reach is None else \
            min(pages_for(num_tokens), window_pages(self.reach))

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
            self.forgotten(page)
        else:
            return None
        self._users[page] = 1
        return page

    def extend(self, table: Table, num_tokens: int) -> bool:
        """Allocate what a sequence of so many tokens wants; False if it gets fewer pages."""
        while len(table.pages) * PAGE_SIZE < num_tokens:
            page = self.allocate()
            if page is None:
                return False
            table.pages.append(page)
        return True

    def release(self, pages: Sequence[int]) -> None:
        """Use these pages (a sequence's, in order) no longer. The last ones will be reused first, so that no
        beginning of a chain is forgotten before its end."""
        for page in reversed(pages):
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._known:
                self._unused[page] = None
            else:
                self._free.append(page)

    def release_behind(self, table: Table, position: int, marks: Sequence[int] = ()) -> None:
        """Let go of the pages that no token from `position` on looks at. Those that will go first when pages
        are needed are the ones that no token at one of `marks` looks at either."""
        for index in range(table.first, self.first_seen(position)):
            page, table.pages[index] = table.pages[index], BLANK
            self.release([page])
            is_wanted = any(self.first_seen(mark) <= index < pages_for(mark) for mark in marks)
            if page in self._unused and not is_wanted:
                self._unused.move_to_end(page, last=False)
            table.first = index + 1

    def know(self, page: int) -> None:
        """Somebody may ask for its content after its users have gone."""
        self._known.add(page)

    def unknow(self, page: int) -> None:
        """Nobody will ask for its content."""
        self._known.discard(page)
