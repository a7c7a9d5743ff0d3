"""Which linear gets how many bits, so that all of them together take no more than they may and lose least.

Each has a few choices of size and error. The choices worth taking lie on the lower hull of its curve; from
the smallest on, the step that saves most error for a byte is taken as long as there is room. Where no room is
left unused this is the best there is (the steps are those of a Lagrange multiplier that falls).
Knows nothing of tensors.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """What a linear could be."""

    bits: int
    nbytes: int   # in the file, with scales and zero points
    error: float  # of any kind that adds up


def choose_bits(choices: Mapping[str, Sequence[Choice]], max_bytes: int) -> dict[str, Choice]:
    """One for each linear. Raises ValueError if even the smallest ones take more."""
    hulls = {name: lower_hull(own) for name, own in choices.items()}
    places = dict.fromkeys(hulls, 0)
    left = max_bytes - sum(hull[0].nbytes for hull in hulls.values())
    if left < 0:
        raise ValueError(f"the linears take {max_bytes - left:,} bytes at least; there are {max_bytes:,} for "
                         "them. Allow a larger size.")
    steps = [(-_gain(hull, 0), name) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        _, name = heapq.heappop(steps)
        hull, place = hulls[name], places[name]
        cost = hull[place + 1].nbytes - hull[place].nbytes
        if cost <= left:
            left -= cost
            places[name] = place + 1
            if place + 2 < len(hull):
                heapq.heappush(steps, (-_gain(hull, place + 1), name))
    return {name: hull[places[name]] for name, hull in hulls.items()}


def lower_hull(choices: Sequence[Choice]) -> list[Choice]:
    """By size: each loses less than the one before, and saves less for a byte than the step before did."""
    hull: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.nbytes, choice.error)):
        if hull and choice.error >= hull[-1].error:
            continue
        hull.append(choice)
        while len(hull) > 2 and _gain(hull, len(hull) - 3) <= _gain(hull, len(hull) - 2):
            del hull[-2]
    return hull


def _gain(hull: Sequence[Choice], place: int) -> float:
    """Error saved for a byte by the step to the next one."""
    before, after = hull[place:place + 2]
    return (before.error - after.error) / (after.nbytes - before.nbytes)
