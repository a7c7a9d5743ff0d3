"""What an engine has done since it was loaded: counts and histograms, which its one thread keeps.

Other threads glance at them, so what they see may be of two moments. Knows nothing of who shows them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from model.engine.request import RequestStats

_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
          40.0, 80.0, 160.0, 640.0, 2560.0)
_BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
            40.0, 80.0)
_REQUEST = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
            480.0, 960.0, 1920.0, 7680.0)
_TOKENS = tuple(digit * 10.0 ** power for power in range(6) for digit in (1, 2, 5))
_STEP = tuple(float(1 << power) for power in range(15))


class Histogram:
    """How often a value lay in each bucket. `counts[i]`: values up to bounds[i] and above the bound before
    it; the last one is of those above all bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, other: Histogram) -> None:
        """`other` has the same bounds."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Tally:
    """Times in seconds, from when a request was submitted unless said otherwise.

    finished: by reason (see FinishedEvent) and "failed". What is only scored is no request here, but its
    tokens count as a prompt's.
    """

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.cached_tokens = 0  # of the prompts', found in the cache
        self.new_tokens = 0
        self.finished: Counter[str] = Counter()
        self.step_tokens = Histogram(_STEP)  # rows of each step, guesses included
        self.first_token_seconds = Histogram(_FIRST)
        self.between_tokens_seconds = Histogram(_BETWEEN)  # each token's, from the one before it
        self.token_seconds = Histogram(_BETWEEN)   # the mean of those, of each request
        self.request_seconds = Histogram(_REQUEST)
        self.waiting_seconds = Histogram(_REQUEST)  # until the first step
        self.prompt_seconds = Histogram(_REQUEST)   # from there to the first token
        self.decode_seconds = Histogram(_REQUEST)   # from there to the last one
        self.request_prompt_tokens = Histogram(_TOKENS)
        self.request_new_tokens = Histogram(_TOKENS)

    def add_prompt(self, tokens: int, cached: int) -> None:
        """All of a prompt is in the cache."""
        self.prompt_tokens += tokens
        self.cached_tokens += cached

    def add_token(self, seconds: float, *, is_first: bool) -> None:
        self.new_tokens += 1
        (self.first_token_seconds if is_first else self.between_tokens_seconds).add(seconds)

    def add_request(self, reason: str, stats: RequestStats, waited: float, seconds: float) -> None:
        """A request has ended, `seconds` after it was submitted."""
        self.finished[reason] += 1
        self.request_seconds.add(seconds)
        self.waiting_seconds.add(waited)
        self.request_prompt_tokens.add(stats.prompt_tokens)
        self.request_new_tokens.add(stats.new_tokens)
        if stats.new_tokens:
            self.prompt_seconds.add(stats.prompt_seconds)
            self.decode_seconds.add(stats.decode_seconds)
        if stats.new_tokens > 1:
            self.token_seconds.add(stats.decode_seconds / (stats.new_tokens - 1))

    def add_all(self, other: Tally) -> None:
        """What another engine has done as well."""
        for name, theirs in vars(other).items():
            ours = getattr(self, name)
            if isinstance(ours, Histogram):
                ours.add_all(theirs)
            else:
                setattr(self, name, ours + theirs)
