"""Which layers keep their keys and values for how long: groups that look equally far back.

Knows the Spec alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.families.spec import Attention, Spec


@dataclass(frozen=True)
class CacheGroup:
    """Layers whose keys and values lie in pages of the same pool."""

    reach: int | None        # tokens that they look back at, the own one included; None: at all
    layers: tuple[int, ...]  # that keep keys and values of their own, by index


def cache_groups(spec: Spec) -> tuple[CacheGroup, ...]:
    """Those that look at everything first. At least one, if of no layers: sequences have pages anyway."""
    reaches: dict[int, list[int | None]] = {}
    for index, layer in enumerate(spec.layers):
        attention = layer.attention
        if attention is not None:
            home = index if attention.reads_cache_of is None else attention.reads_cache_of
            reaches.setdefault(home, []).append(_reach(attention, spec.max_positions))
    farthest = {index: None if None in found else max(each for each in found if each is not None)
                for index, found in reaches.items()}
    order = sorted(set(farthest.values()), key=lambda reach: (reach is not None, -(reach or 0)))
    groups = tuple(CacheGroup(reach, tuple(index for index, own in farthest.items() if own == reach))
                   for reach in order)
    return groups or (CacheGroup(None, ()),)


def _reach(attention: Attention, max_positions: int) -> int | None:
    """A chunk's tokens see its beginning at the farthest."""
    reach = attention.window if attention.chunk is None else attention.chunk
    return None if reach is None or reach >= max_positions else reach
