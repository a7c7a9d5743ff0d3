"""The last revisions of some sessions' messages, so that an answer can carry what changed instead of all.

Unchanged messages are the same objects in each revision, so that keeping one costs a list. Knows no HTTP.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from .schema import Message, Session

KEPT_SESSIONS = 16
KEPT_REVISIONS = 16
FEW = 50  # messages, of which one change may leave none as it was


@dataclass(frozen=True)
class Delta:
    """What leads from revision `since` to another: without the `removed` and `changed` ones the old messages,
    then each of `changed` put in at its index, in ascending order."""

    since: int
    changed: list[tuple[int, Message]]
    removed: list[str]


class Revisions:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, OrderedDict[int, list[Message]]] = OrderedDict()

    def note(self, session: Session) -> None:
        """The session is at this revision now."""
        messages = session["messages"]
        with self._lock:
            known = self._known.setdefault(session["id"], OrderedDict())
            self._known.move_to_end(session["id"])
            latest = next(reversed(known.values()), messages)
            if len(messages) > FEW and set(map(id, latest)).isdisjoint(map(id, messages)):
                known.clear()  # it was read from disk again: the older objects would be kept for this alone
            known[session["revision"]] = messages
            while len(known) > KEPT_REVISIONS:
                known.popitem(last=False)
            while len(self._known) > KEPT_SESSIONS:
                self._known.popitem(last=False)

    def messages(self, session_id: str, revision: int) -> list[Message] | None:
        """Of that revision; None where it is not known any more."""
        with self._lock:
            return self._known.get(session_id, {}).get(revision)

    def delta(self, session: Session, since: int) -> Delta | None:
        """From revision `since` to `session`; None where that is not known any more."""
        old = self.messages(session["id"], since)
        if old is None:
            return None
        before = {message["id"]: (index, message) for index, message in enumerate(old)}
        changed: list[tuple[int, Message]] = []
        last = -1
        for index, message in enumerate(session["messages"]):
            at, same = before.pop(message["id"], (-1, None))
            if (same is not message and same != message) or at < last:
                changed.append((index, message))
            else:
                last = at
        return Delta(since, changed, list(before))
