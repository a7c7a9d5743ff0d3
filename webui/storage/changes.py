"""What changed since when, so that other tabs can follow with one cheap question.

The counter never goes back, whatever the clock and a restart do: numbers are reserved on disk before they
are told to anybody.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .disk import Disk

RESERVED = 1_000_000  # at a time, so that the disk is asked at the start and hardly ever again
MAX_COUNTER = 1 << 53  # what JavaScript counts exactly
log = logging.getLogger("parlor.changes")


@dataclass(frozen=True)
class Changed:
    counter: int
    sessions: list[str]
    deleted: list[str]
    bots: bool
    full: bool  # asked from before this server's start, or from what was never told: all may have changed


class Changes:
    """Thread-safe. One number for all kinds. `path` keeps the end of what is reserved."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path, self._disk = path, disk
        self._lock = threading.Lock()
        self._reserved = self._start = self._counter = self._first()
        self._reserve()
        self._sessions: dict[str, int] = {}
        self._deleted: dict[str, int] = {}
        self._bots = self._start

    @property
    def counter(self) -> int:
        return self._counter

    def touch(self, session_id: str) -> None:
        with self._lock:
            self._sessions[session_id] = self._next()
            self._deleted.pop(session_id, None)

    def delete(self, session_id: str) -> None:
        with self._lock:
            self._deleted[session_id] = self._next()
            self._sessions.pop(session_id, None)

    def touch_bots(self) -> None:
        with self._lock:
            self._bots = self._next()

    def since(self, counter: int) -> Changed:
        with self._lock:
            return Changed(self._counter,
                           [key for key, at in self._sessions.items() if at > counter],
                           [key for key, at in self._deleted.items() if at > counter],
                           self._bots > counter, not self._start <= counter <= self._counter)

    def _first(self) -> int:
        """Beyond all that was ever told. Without a note of that, the clock's milliseconds are."""
        try:
            told = int(self._disk.read(self._path, 100))
        except (OSError, ValueError):
            told = 0
        return told + 1 if 0 < told < MAX_COUNTER - RESERVED else int(time.time() * 1000)

    def _next(self) -> int:
        self._counter += 1
        if self._counter > self._reserved:
            self._reserve()
        return self._counter

    def _reserve(self) -> None:
        self._reserved = self._counter + RESERVED
        try:
            self._disk.save(self._path, b"%d\n" % self._reserved)
        except OSError as error:  # a tab that stays open over a restart may then miss a change
            log.warning("%s could not be written: %s", self._path, error)
