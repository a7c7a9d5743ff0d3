"""What changed since when, so that other tabs can follow with one cheap question.

The counter starts at the clock's milliseconds: it also grows over restarts of the server.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Changed:
    counter: int
    sessions: list[str]
    deleted: list[str]
    bots: bool
    full: bool  # asked from before this server's start: everything counts as changed


class Changes:
    """Thread-safe. One number for all kinds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = self._counter = int(time.time() * 1000)
        self._sessions: dict[str, int] = {}
        self._deleted: dict[str, int] = {}
        self._bots = self._start

    @property
    def counter(self) -> int:
        return self._counter

    def touch(self, session_id: str) -> None:
        with self._lock:
            self._counter += 1
            self._sessions[session_id] = self._counter
            self._deleted.pop(session_id, None)

    def delete(self, session_id: str) -> None:
        with self._lock:
            self._counter += 1
            self._deleted[session_id] = self._counter
            self._sessions.pop(session_id, None)

    def touch_bots(self) -> None:
        with self._lock:
            self._counter += 1
            self._bots = self._counter

    def since(self, counter: int) -> Changed:
        with self._lock:
            return Changed(self._counter,
                           [key for key, at in self._sessions.items() if at > counter],
                           [key for key, at in self._deleted.items() if at > counter],
                           self._bots > counter, counter < self._start)
