"""What is measured to tell whether guessing ahead pays: how often guesses are right, and what rows cost.

Numbers only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field

_REMEMBERED = 400      # steps for which a measurement is believed
_ASSUMED_COST = 0.05   # of a second row, as a part of the first one's, before any is measured
_HOPE = 0.5            # of what more rows would cost in proportion, where only trying can tell
_OLD = 0.8             # with each time that long it is believed to be so much less, until it is tried again
_MISSES = 8            # in a row, after which only every _REST-th token is looked at
_REST = 4
_TRIALS = 3            # measurements before one is believed to be dear: others may have held it up
_COLD_STEPS = 2        # the first ones of a shape are run by Python and recorded, see call_list.py


@dataclass
class DraftRecord:
    """How good the guesses for one sequence have been; older ones count less."""

    right: float = 0.0
    tried: float = 0.0
    guess: int = -1      # the first token of a guess that was found but not computed
    misses: int = 0      # steps since a guess was right

    @property
    def rate(self) -> float:
        """How likely a token of a guess is right if those before it are; one half without evidence."""
        return (self.right + 1.0) / (self.tried + 2.0)

    def note(self, num_right: int, num_tried: int) -> None:
        """`num_right` tokens of a guess were right, of `num_tried` that were looked at."""
        self.right, self.tried = 0.9 * self.right + num_right, 0.9 * self.tried + num_tried
        self.misses = 0 if num_right else self.misses + 1

    def fade(self) -> None:
        """A step without evidence: an old bad record is forgotten in the end, and another try is made."""
        self.right, self.tried = 0.98 * self.right, 0.98 * self.tried
        self.misses += 1

    def is_resting(self, position: int) -> bool:
        """Whether to do without a guess here: to look for one takes time too, 4% of a small model's step."""
        return self.misses >= _MISSES and position % _REST != 0


@dataclass
class StepCosts:
    """Seconds of a step by its number of rows, as measured; the first steps of a shape do not count.

    Rows cost what the kernels make of them (four may cost as much as two, and five twice as much as four),
    so what was never measured is taken for cheaper than its neighbours say: where that makes it the best
    choice it is tried, and then known.
    """

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
        if before is None:
            insort(self._known, rows)
        elif self._is_on_trial(rows):
            seconds = min(seconds, before)
        elif self._age(rows) >= _REMEMBERED:
            seconds = min(seconds, 2 * before)
        else:
            seconds = before + (0.3 * (seconds - before) if seconds < before
                                else 0.05 * (min(seconds, 2 * before) - before))
        self._seconds[rows] = seconds
        self._noted[rows] = self._now

    def of(self, rows: int) -> float:
        """What a step of so many rows takes, as far as one can tell."""
        measured = self._seconds.get(rows)
        if measured is None:
            return self._hoped(rows)
        if self._is_on_trial(rows):
            return min(measured, self._hoped(rows))
        return measured * _OLD ** (self._age(rows) // _REMEMBERED)

    def _hoped(self, rows: int) -> float:
        known, at = self._known, bisect_left(self._known, rows)
        if not known:
            return 1.0 + _ASSUMED_COST * (rows - 1)
        low = known[max(0, at - 1)]
        base = self._seconds[low]
        if at == 0:  # fewer rows than ever: not dearer than the fewest
            return base
        if at < len(known):
            other = known[at]
        elif at > 1:
            other = known[0]
        else:
            return base * (1 + _ASSUMED_COST * (rows - low) / low)
        slope = (self._seconds[other] - base) / (other - low)
        return base + _HOPE * max(0.0, slope) * (rows - low)

    def _is_on_trial(self, rows: int) -> bool:
        return self._runs[rows] < _COLD_STEPS + _TRIALS

    def _age(self, rows: int) -> int:
        return self._now - self._noted[rows]
