"""The events of one reply, kept so that any tab can read them from any place on, any number of times.

Not a queue: nothing is taken out. Readers get neighbouring pieces of text as one event, so a slow one gets
fewer, larger events. Kept as runs of one kind: a text and where its pieces end, or the latest numbers. Knows
nothing of HTTP.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

_ADDS_UP = ("text", "think")  # neighbours are one text
_LATEST = ("progress", "stats")  # the last one says it all


@dataclass(frozen=True)
class LoggedEvent:
    """`index` is the place of the last entry that went into it; a reader goes on at index + 1."""

    index: int
    name: str
    data: dict[str, Any]


class _Run:
    """Neighbouring entries of one kind, from number `first` on."""

    __slots__ = ("_data", "_ends", "_pieces", "_text", "count", "first", "name")

    def __init__(self, first: int, name: str) -> None:
        self.first, self.name = first, name
        self.count = 0
        self._data: dict[str, Any] = {}
        self._pieces: list[str] = []  # until the run is closed
        self._text = ""  # from then on
        self._ends = array("I")  # of the pieces in the text; four bytes each

    def takes(self, name: str) -> bool:
        return name == self.name and name in (*_ADDS_UP, *_LATEST)

    def append(self, data: dict[str, Any]) -> None:
        self.count += 1
        if self.name in _ADDS_UP:
            self._pieces.append(data["text"])
            self._ends.append((self._ends[-1] if self._ends else 0) + len(data["text"]))
        else:
            self._data = data

    def close(self) -> None:
        """Nothing is appended any more: one text takes a tenth of the memory of its pieces."""
        self._text = "".join(self._pieces)
        self._pieces = []

    def event(self, cursor: int) -> LoggedEvent:
        """What it holds from entry `cursor` on."""
        last = self.first + self.count - 1
        if self.name not in _ADDS_UP:
            return LoggedEvent(last, self.name, self._data)
        skipped = max(0, cursor - self.first)
        text = "".join(self._pieces[skipped:]) if self._pieces else \
            self._text[self._ends[skipped - 1] if skipped else 0:]
        return LoggedEvent(last, self.name, {"text": text})


class EventLog:
    """One writer, any number of readers."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._firsts: list[int] = []  # of the runs
        self._count = 0
        self._lock = threading.Lock()
        self._wakes: set[threading.Event] = set()
        self.ended_at: float | None = None

    def append(self, name: str, data: dict[str, Any]) -> None:
        """After the end nothing is taken: a model that was given up may still talk."""
        with self._lock:
            if self.ended_at is None:
                self._add(name, data)

    def end(self, name: str, data: dict[str, Any]) -> None:
        """The last event; nothing comes after it."""
        with self._lock:
            self.ended_at = time.monotonic()
            self._add(name, data)

    def read(self, cursor: int) -> tuple[list[LoggedEvent], bool]:
        """Events from `cursor` on, merged, and whether they are the last."""
        with self._lock:
            ended = self.ended_at is not None
            if cursor >= self._count:
                return [], ended
            at = bisect_right(self._firsts, cursor) - 1
            return [run.event(cursor) for run in self._runs[at:]], ended

    def wake(self, event: threading.Event) -> None:
        """Set the event with each entry from now on."""
        with self._lock:
            self._wakes.add(event)

    def let_sleep(self, event: threading.Event) -> None:
        with self._lock:
            self._wakes.discard(event)

    def _add(self, name: str, data: dict[str, Any]) -> None:
        if not self._runs or not self._runs[-1].takes(name):
            if self._runs:
                self._runs[-1].close()
            self._runs.append(_Run(self._count, name))
            self._firsts.append(self._count)
        self._runs[-1].append(data)
        self._count += 1
        for event in self._wakes:
            event.set()
