"""What is measured to tell whether guessing ahead pays: how often guesses are right, and what rows cost.

Numbers only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

_REMEMBERED = 400      # steps
_ASSUMED_COST = 0.05   # of a second row, as a part of the first one's
_COLD_STEPS = 2        # the first ones of a shape are run by Python and recorded, see call_list.py


@dataclass
class DraftRecord:
    """How good the guesses for one sequence have been; older ones count less."""

    right: float = 0.0
    tried: float = 0.0
    guess: int = -1      # the first token of a guess that was found but not computed

    @property
    def rate(self) -> float:
        """How likely a token of a guess is right if those before it are; one half without evidence."""
        return (self.right + 1.0) / (self.tried + 2.0)

    def note(self, num_right: int, num_tried: int) -> None:
        """`num_right` tokens of a guess were right, of `num_tried` that were looked at."""
        self.right, self.tried = 0.9 * self.right + num_right, 0.9 * self.tried + num_tried

    def fade(self) -> None:
        """A step without evidence: an old bad record is forgotten in the end, and another try is made."""
        self.right, self.tried = 0.98 * self.right, 0.98 * self.tried


@dataclass
class StepCosts:
    """Seconds of a step by its number of rows, as measured; what was measured long ago does not count, nor do
    the first steps of a shape."""

    _seconds: dict[int, float] = field(default_factory=dict)
    _noted: dict[int, int] = field(default_factory=dict)  # when, in steps
    _now: int = 0
    _known: list[int] = field(default_factory=list)       # rows, ascending
    _runs: Counter[int] = field(default_factory=Counter)

    def note(self, rows: int, seconds: float) -> None:
        """A step of decoding took so long. One that was held up by other programs counts little."""
        self._now += 1
        self._runs[rows] += 1
        if self._runs[rows] <= _COLD_STEPS:
            return
        before = self._seconds.get(rows)
        if before is not None and rows in self._known:
            seconds = before + (0.3 * (seconds - before) if seconds < before
                                else 0.05 * (min(seconds, 2 * before) - before))
        self._seconds[rows] = seconds
        self._noted[rows] = self._now
        self._known = sorted(r for r, noted in self._noted.items() if self._now - noted < _REMEMBERED)

    def of(self, rows: int) -> float:
        """What a step of so many rows takes. Beyond what is known a row adds little: trying it will tell."""
        at = bisect_right(self._known, rows)
        below = self._known[at - 1] if at else 0
        above = below if below == rows else self._known[at] if at < len(self._known) else 0
        if not below or not above:
            nearest = below or above
            base = self._seconds.get(nearest, 1.0)
            return base * (1 + _ASSUMED_COST * (rows - nearest) / max(1, nearest))
        low, high = self._seconds[below], self._seconds[above]
        return low + max(0.0, high - low) * (rows - below) / max(1, above - below)
