"""The events of one reply, kept so that any tab can read them from any place on, any number of times.

Not a queue: nothing is taken out. Readers merge neighbouring pieces of text, so a slow one gets fewer, larger
events. Knows nothing of HTTP.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

_MERGED = ("text", "think")  # the pieces add up
_LATEST = ("progress", "stats")  # the last one says it all


@dataclass(frozen=True)
class LoggedEvent:
    """`index` is the place of the last entry that went into it; a reader goes on at index + 1."""

    index: int
    name: str
    data: dict[str, Any]


class EventLog:
    """One writer, any number of readers."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()
        self.ended_at: float | None = None

    def append(self, name: str, data: dict[str, Any]) -> None:
        """After the end nothing is taken: a model that was given up may still talk."""
        with self._changed:
            if self.ended_at is not None:
                return
            self._entries.append((name, data))
            self._changed.notify_all()

    def end(self, name: str, data: dict[str, Any]) -> None:
        """The last event; nothing comes after it."""
        with self._changed:
            self._entries.append((name, data))
            self.ended_at = time.monotonic()
            self._changed.notify_all()

    def read(self, cursor: int, timeout: float) -> tuple[list[LoggedEvent], bool]:
        """Events from `cursor` on, merged, waiting if there is none yet; and whether they are the last."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._entries) > cursor or self.ended_at is not None, timeout)
            fresh = self._entries[cursor:]
            ended = self.ended_at is not None
        return merge(fresh, cursor), ended


def merge(entries: list[tuple[str, dict[str, Any]]], first_index: int) -> list[LoggedEvent]:
    """Neighbours of one kind as one event: texts joined, numbers the latest."""
    merged: list[LoggedEvent] = []
    pieces: list[str] = []
    for offset, (name, data) in enumerate(entries):
        follows = bool(merged) and merged[-1].name == name
        if name in _MERGED:
            pieces = [*pieces, data["text"]] if follows else [data["text"]]
            data = {"text": "".join(pieces)}
        event = LoggedEvent(first_index + offset, name, data)
        if follows and name in (*_MERGED, *_LATEST):
            merged[-1] = event
        else:
            merged.append(event)
    return merged
