"""How far a run is, as a line that is drawn over itself on a terminal; in a file or a pipe it is left out."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 28


class ProgressBar:
    """Steps that take about the same time each. Use as a context, and print nothing else to the terminal but
    after clear()."""

    def __init__(self, title: str, total: int, done: int = 0, stream: TextIO = sys.stderr) -> None:
        """done  of the steps, by an earlier run: they say nothing of the time"""
        self.title, self.total, self.done, self._earlier = title, total, done, done
        self._stream, self._started = stream, time.monotonic()
        self._drawn = 0

    def __enter__(self) -> ProgressBar:
        self._draw()
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def step(self) -> None:
        self.done = min(self.total, self.done + 1)
        self._draw()

    def clear(self) -> None:
        if self._drawn:
            self._stream.write("\r" + " " * self._drawn + "\r")
            self._stream.flush()
            self._drawn = 0

    def line(self, seconds: float) -> str:
        """After so many seconds."""
        filled = _WIDTH * self.done // max(1, self.total)
        bar = "#" * filled + "-" * (_WIDTH - filled)
        taken = self.done - self._earlier
        left = "" if not taken else f", about {clock(seconds / taken * (self.total - self.done))} left"
        return f"{self.title} [{bar}] {self.done}/{self.total}, {clock(seconds)}{left}"

    def _draw(self) -> None:
        if not self._stream.isatty():
            return
        line = self.line(time.monotonic() - self._started)
        self._stream.write("\r" + line.ljust(self._drawn))
        self._stream.flush()
        self._drawn = len(line)


def clock(seconds: float) -> str:
    """'0:07', '12:30', '3:05:00'"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
