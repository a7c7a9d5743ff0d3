"""What is measured to tell whether guessing ahead pays: how often guesses are right, and what rows cost.

Numbers only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

_REMEMBERED = 400      # steps for which a measurement is believed
_ASSUMED_COST = 0.05   # of a second row, as a part of the first one's, before any is measured
_HOPE = 0.5            # of what more rows would cost in proportion, where only trying can tell
_OLD = 0.8             # with each time that long it is believed to be so much less, until it is tried again
_LOOKS = 4             # for a guess that pays, in vain, after which only every 4th token is looked at, after
_MOST_REST = 16        # as many again every 8th, then 16th: a look takes 6% of a small model's step
_TRIALS = 3            # measurements before one is believed to be dear: others may have held it up
_COLD_STEPS = 2        # the first ones of a shape are run by Python and recorded, see call_list.py


@dataclass
class DraftRecord:
    """How good the guesses for one sequence have been; older ones count less."""

    right: float = 0.0
    tried: float = 0.0
    guess: list[int] = field(default_factory=list)  # the last one, if it was not computed
    place: int = 0      # in the sequence, where it begins
    looks: int = 0      # since a guess was computed
    next_look: int = 0  # tokens of the sequence

    @property
    def rate(self) -> float:
        """How likely a token of a guess is right if those before it are; one half without evidence."""
        return (self.right + 1.0) / (self.tried + 2.0)

    def note(self, num_right: int, num_tried: int) -> None:
        """`num_right` tokens of a guess were right, of `num_tried` that were looked at."""
        self.right, self.tried = 0.9 * self.right + num_right, 0.9 * self.tried + num_tried

    def fade(self, num_tokens: int = 1) -> None:
        """So many came without evidence: a bad record is forgotten in the end, and another try is made."""
        kept = 0.98 ** num_tokens
        self.right, self.tried = kept * self.right, kept * self.tried

    def look(self, token_ids: list[int]) -> None:
        """A guess is looked for: what has come since the last one tells how good that was."""
        come = token_ids[self.place:self.place + len(self.guess)]
        if come:
            right = next((i for i, token_id in enumerate(come) if token_id != self.guess[i]), len(come))
            self.note(right, min(right + 1, len(come)))
        else:
            self.fade(len(token_ids) - self.place)
        self.guess, self.place = [], len(token_ids)

    def leave(self, guess: list[int]) -> None:
        """What was found, if anything, is not computed."""
        self.guess = guess
        self.looks += 1
        if self.looks >= _LOOKS:
            self.next_look = self.place + min(_MOST_REST, 2 << self.looks // _LOOKS)

    def checked(self, num_right: int, num_tried: int, num_tokens: int) -> None:
        """A guess was computed; the sequence has so many tokens now."""
        self.note(num_right, num_tried)
        self.looks, self.place = 0, num_tokens


@dataclass(slots=True)
class _Cost:
    """Of so many rows."""

    seconds: float = 0.0
    runs: int = 0
    noted: int = 0  # when, in steps

    @property
    def is_known(self) -> bool:
        return self.runs > _COLD_STEPS

    @property
    def is_on_trial(self) -> bool:
        return self.runs < _COLD_STEPS + _TRIALS


@dataclass
class StepCosts:
    """Seconds of a step by its number of rows, as measured; the first steps of a shape do not count.

    Rows cost what the kernels make of them (four may cost as much as two, and five twice as much as four),
    so what was never measured is taken for cheaper than its neighbours say: where that makes it the best
    choice it is tried, and then known.
    """

    _costs: dict[int, _Cost] = field(default_factory=dict)
    _now: int = 0
    _known: list[int] = field(default_factory=list)  # rows, ascending

    def note(self, rows: int, seconds: float) -> None:
        """A step of decoding took so long. One that was held up by other programs counts little."""
        now = self._now = self._now + 1
        cost = self._costs.get(rows)
        if cost is None:
            cost = self._costs[rows] = _Cost()
        cost.runs += 1
        if not cost.is_known:
            return
        before = cost.seconds
        if cost.runs == _COLD_STEPS + 1:
            insort(self._known, rows)
        elif cost.is_on_trial:
            seconds = min(seconds, before)
        elif now - cost.noted >= _REMEMBERED:
            seconds = min(seconds, 2 * before)
        elif seconds < before:
            seconds = before + 0.3 * (seconds - before)
        else:
            seconds = before + 0.05 * (min(seconds, 2 * before) - before)
        cost.seconds, cost.noted = seconds, now

    def of(self, rows: int) -> float:
        """What a step of so many rows takes, as far as one can tell."""
        cost = self._costs.get(rows)
        if cost is None or not cost.is_known:
            return self._hoped(rows)
        if cost.is_on_trial:
            return min(cost.seconds, self._hoped(rows))
        return cost.seconds * _OLD ** ((self._now - cost.noted) // _REMEMBERED)

    def _hoped(self, rows: int) -> float:
        known, at = self._known, bisect_left(self._known, rows)
        if not known:
            return 1.0 + _ASSUMED_COST * (rows - 1)
        low = known[max(0, at - 1)]
        base = self._costs[low].seconds
        if at == 0:  # fewer rows than ever: not dearer than the fewest
            return base
        if at < len(known):
            other = known[at]
        elif at > 1:
            other = known[0]
        else:
            return base * (1 + _ASSUMED_COST * (rows - low) / low)
        slope = (self._costs[other].seconds - base) / (other - low)
        return base + _HOPE * max(0.0, slope) * (rows - low)
