"""Finished replies on their way into their sessions, as often as it takes.

A reply that the disk refuses stays in memory and is tried again: every RETRY_SECONDS, before anything else is
done in its session, and when the server ends. Knows nothing of how a reply is written.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from ..errors import NotFound, NotSaved, Problem
from ..storage.recovery import commit, drop_journal
from ..storage.schema import Message, Session
from ..storage.store import Store
from ..storage.tree import with_reply

TRIES = 3
TRY_SECONDS = 0.1
RETRY_SECONDS = 5.0
log = logging.getLogger("parlor.commits")


@dataclass(frozen=True)
class Refused:
    """A reply that the disk has not taken yet, and what it said."""

    reply_id: str
    session_id: str
    message: Message
    why: str


class Commits:
    """Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, Refused] = {}
        self._grown: dict[str, tuple[int, int]] = {}  # by session: the revisions between which replies came
        self._lock = threading.RLock()  # who retries
        self._closing = threading.Event()
        self._retrying: threading.Thread | None = None

    def add(self, session_id: str, reply_id: str, message: Message) -> tuple[int | None, str]:
        """The session's new revision; or None, and what went wrong as a sentence."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(TRY_SECONDS)
            try:
                session = commit(self._store, session_id, reply_id, message)
            except NotSaved as error:
                refused = Refused(reply_id, session_id, message, error.message)
            except Problem as error:
                log.error("reply %s is not kept: %s", reply_id, error)
                return None, f"The reply could not be kept: {error.message}"
            else:
                drop_journal(self._store, reply_id)
                self._note_growth(session_id, session["revision"])
                return session["revision"], ""
        log.error("reply %s waits in memory: %s", reply_id, refused.why)
        self._keep(refused)
        return None, f"The reply is not saved yet: {refused.why}"

    def only_replies_since(self, session_id: str, revision: int | None) -> bool:
        """Whether nothing but replies has come into the session since that revision."""
        first, last = self._grown.get(session_id, (0, 0))
        now = self._store.session(session_id)["revision"]
        return revision is not None and first <= revision < last == now

    def _note_growth(self, session_id: str, revision: int) -> None:
        first, last = self._grown.get(session_id, (0, 0))
        self._grown[session_id] = (first if last == revision - 1 else revision - 1, revision)

    def waiting_in(self, session_id: str) -> list[Refused]:
        return [refused for refused in list(self._waiting.values()) if refused.session_id == session_id]

    def with_waiting(self, session: Session) -> Session:
        """The session for showing, with what the disk has not taken yet."""
        for refused in self.waiting_in(session["id"]):
            session = with_reply(session, {**refused.message, "error": f"Not saved yet: {refused.why}"})
        return session

    def try_again(self, session_id: str | None = None) -> None:
        """Save what waits in the session, or everywhere. Whatever the disk refuses again goes on waiting."""
        if not self._waiting:
            return
        with self._lock:
            for refused in list(self._waiting.values()):
                if session_id is None or refused.session_id == session_id:
                    self._try(refused)

    def close(self) -> None:
        """The last try."""
        self._closing.set()
        self.try_again()

    def _try(self, refused: Refused) -> None:
        try:
            commit(self._store, refused.session_id, refused.reply_id, refused.message)
        except NotFound:  # deleted meanwhile: it waits for the undo
            self._store.problem_is_over(self._store.journal_path(refused.reply_id))
            return
        except Exception as error:
            log.warning("reply %s still waits: %s", refused.reply_id, error)
            return
        drop_journal(self._store, refused.reply_id)
        self._waiting.pop(refused.reply_id, None)
        self._store.problem_is_over(self._store.journal_path(refused.reply_id))

    def _keep(self, refused: Refused) -> None:
        with self._lock:
            self._waiting[refused.reply_id] = refused
            if self._retrying is None or not self._retrying.is_alive():
                self._retrying = threading.Thread(target=self._retry, name="commits", daemon=True)
                self._retrying.start()
        message = f"belongs to a reply that is not saved yet: {refused.why} It is tried again."
        self._store.note_problem(self._store.journal_path(refused.reply_id), message, passing=True)

    def _retry(self) -> None:
        while not self._closing.wait(RETRY_SECONDS):
            self.try_again()
            with self._lock:
                if not self._waiting:
                    self._retrying = None
                    return
