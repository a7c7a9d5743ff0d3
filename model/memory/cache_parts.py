"""What keys and values take, by how far back layers look: all of a conversation, or a window of it.

A window's pool has for each conversation the pages of the window, one more, and a third of that: for the
prompt being read, and for what has fallen behind and is still known. Where contexts are much longer than
windows it has more: many short conversations instead of a long one have a window each. Knows sizes only: no
tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.families.cache_groups import cache_groups
from model.families.spec import Spec
from model.kernels.cache_kinds import CACHE_KINDS
from model.sizes import PAGE_SIZE, pages_for, window_pages

_LEAST_BEHIND = 8
"""Pages beside those of a window: prompts are read in parts of so many at least."""
_LEAST_SHARE = 32
"""One page of windows at least for so many of everything."""


@dataclass(frozen=True)
class CachePart:
    """Of layers that look equally far back."""

    reach: int | None    # tokens; None: all
    num_layers: int
    token_bytes: int     # of all of these layers
    num_pages: int = 0   # of PAGE_SIZE tokens; of windows one of them is blank

    @property
    def nbytes(self) -> int:
        return self.num_pages * PAGE_SIZE * self.token_bytes

    @property
    def description(self) -> str:
        layers = f"{self.num_layers} layer{'s' if self.num_layers != 1 else ''}"
        seen = "everything" if self.reach is None else f"the last {self.reach:,} tokens"
        return f"{layers} that see {seen}"

    def with_pages(self, num_pages: int) -> CachePart:
        return replace(self, num_pages=num_pages)

    def of_conversation(self, num_tokens: int) -> CachePart:
        """With what one of so many tokens takes."""
        pages = pages_for(num_tokens)
        if self.reach is None:
            return self.with_pages(pages)
        held = window_pages(self.reach)
        wanted = max(held + max(held // 3, _LEAST_BEHIND), pages // _LEAST_SHARE)
        return self.with_pages(1 + min(pages, wanted))

    def times(self, numerator: int, denominator: int) -> CachePart:
        return self.with_pages(self.num_pages * numerator // denominator)


def cache_parts(spec: Spec, cache: str, layers: range | None = None) -> tuple[CachePart, ...]:
    """One for each cache group of the model, as far as these layers belong to it; without pages yet."""
    kind = CACHE_KINDS[cache]
    layers = range(spec.num_layers) if layers is None else layers
    parts = []
    for group in cache_groups(spec):
        own = [attention for index in group.layers if index in layers
               and (attention := spec.layers[index].attention) is not None]
        parts.append(CachePart(group.reach, len(own), sum(a.kept_heads * kind.row_bytes(a.head_dim)
                                                          for a in own)))
    return tuple(parts)


def most_tokens(caches: Sequence[CachePart]) -> int:
    """That layers keep at once: those that see everything, or else those that keep most."""
    return max(part.num_pages for part in caches) * PAGE_SIZE
