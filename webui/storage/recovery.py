"""After a crash: the replies in leftover journals go back into their sessions as interrupted messages.

Runs at start, and again for a session whose reply could not be saved (a full disk) before anything else is
done with it. Nothing is dropped that was not taken over.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import NotFound, Problem
from ..ids import new_id
from . import tree
from .journal import read_journal
from .store import Store


def fold_in_all(store: Store) -> None:
    """Every journal that is left, at start, when no reply runs."""
    for path in sorted(store.journal_folder.glob("*.jsonl")):
        fold_in(store, path)


def fold_in(store: Store, path: Path) -> bool:
    """Take the journal's message over, then drop it; problems are noted. True if the journal is gone."""
    try:
        problem = _take_over(store, path)
    except OSError as error:
        problem = f"could not be taken over: {error.strerror or error}. It was left as it is."
    if problem:
        store.note_problem(path, problem)
    return not path.exists()


def _take_over(store: Store, path: Path) -> str:
    """What is wrong, as a sentence; empty if nothing is."""
    data = path.read_bytes()
    if not data:
        store.disk.remove(path)  # the crash came before the first line: nothing had been promised
        return ""
    content = read_journal(data)
    if content is None:
        return _set_aside(store, path, "is damaged from its first line on")
    try:
        store.change_session(content.session_id, None,
                             lambda session: tree.with_reply(session, content.message))
    except (NotFound, ValueError, TypeError, KeyError) as error:
        return _set_aside(store, path, f"holds a reply that no session takes ({error})")
    except Problem as error:
        return f"waits until its session can be saved: {error}"
    if content.damage:
        return _set_aside(store, path, f"{content.damage}; what came before was kept in its session")
    store.disk.remove(path)
    return ""


def _set_aside(store: Store, path: Path, reason: str) -> str:
    store.quarantine.mkdir(parents=True, exist_ok=True)
    target = store.quarantine / f"journal-{path.stem}-{new_id()}.jsonl"
    store.disk.move(path, target)
    return f"{reason}; the file is kept as {target.parent.name}/{target.name}."
