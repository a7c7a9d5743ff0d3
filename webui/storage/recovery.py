"""Replies go into their sessions, each of them once: at their end, or from a journal that a crash left.

A session notes which replies it has taken, as long as their journals may be there: what people changed or
deleted since stays so, whatever becomes of the journal's file. Nothing is dropped that was not taken over.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import NotFound, Problem
from ..ids import is_id, new_id
from . import tree
from .journal import MAX_BYTES, is_torn_beginning, read_journal
from .schema import Message, Session
from .store import Store

log = logging.getLogger("parlor.recovery")


def commit(store: Store, session_id: str, reply_id: str, message: Message) -> Session:
    """The session with the reply in it. A reply that was taken before changes nothing.

    Raises NotFound, NotSaved, ReadOnly or Invalid, as Store.change_session() does.
    """
    def taken(session: Session) -> Session:
        before = session.get("taken_replies", [])
        if reply_id in before:
            return session
        left = [known for known in before if store.journal_path(known).exists()]
        return {**tree.with_reply(session, message), "taken_replies": [*left, reply_id]}

    return store.change_session(session_id, None, taken)


def fold_in_all(store: Store) -> None:
    """Every journal that is left, at start, when no reply runs."""
    for path in sorted(store.journal_folder.glob("*.jsonl")):
        fold_in(store, path)


def fold_in(store: Store, path: Path) -> None:
    """Take the journal's message over, then drop it; problems are noted."""
    try:
        problem = _take_over(store, path)
    except OSError as error:
        problem = f"could not be taken over: {error.strerror or error}. It was left as it is."
    if problem:
        store.note_problem(path, problem)


def drop_journal(store: Store, reply_id: str) -> None:
    """The reply is in its session: a journal that cannot be removed is in nobody's way."""
    path = store.journal_path(reply_id)
    try:
        if path.exists():
            store.disk.remove(path)
    except OSError as error:
        log.warning("the journal %s could not be removed: %s", path.name, error)


def _take_over(store: Store, path: Path) -> str:
    """What is wrong, as a sentence; empty if nothing is."""
    if not is_id(path.stem):
        return _set_aside(store, path, "is not named like a reply")
    data = store.disk.read(path, MAX_BYTES)
    if not data or is_torn_beginning(data):
        store.disk.remove(path)  # the crash came before the first line was whole: nothing had been promised
        return ""
    try:
        content = read_journal(data)
        if content is None:
            return _set_aside(store, path, "is damaged from its first line on")
        commit(store, content.session_id, path.stem, content.message)
    except (NotFound, ValueError, TypeError, KeyError, AttributeError) as error:
        return _set_aside(store, path, f"holds a reply that no session takes ({error})")
    except Problem as error:
        return f"waits until its session can be saved: {error}"
    if content.damage:
        return _set_aside(store, path, f"{content.damage}; what came before was kept in its session",
                          sync=True)
    drop_journal(store, path.stem)
    return ""


def _set_aside(store: Store, path: Path, reason: str, *, sync: bool = False) -> str:
    """`sync` for what is in a session: should a power cut undo the move, it could come back there."""
    store.quarantine.mkdir(parents=True, exist_ok=True)
    target = store.quarantine / f"journal-{path.stem}-{new_id()}.jsonl"
    store.disk.move(path, target, sync=sync)
    return f"{reason}; the file is kept as {target.parent.name}/{target.name}."
