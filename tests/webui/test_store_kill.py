"""kill -9 in the midst of saving: whatever was acknowledged is there, and every file can be read.

Ten thousand rounds by hand, on Linux: python -m tests.webui.test_store_kill 10000 [undo]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from tests.helpers.failing_disk import FastDisk
from webui.storage import tree
from webui.storage.history import redone, steps_of, undone
from webui.storage.journal import Journal
from webui.storage.recovery import commit, drop_journal, fold_in_all
from webui.storage.schema import USER, Session, new_message, new_session
from webui.storage.store import Store

ROUNDS = 12
MAX_MESSAGES = 200  # then another session: reading and writing a long one would be all that the rounds do


def write_for_ever(folder: str, acknowledge: Connection) -> None:
    """The victim: questions saved, replies journalled and committed; each is named once it is safe."""
    store = Store(Path(folder))
    fold_in_all(store)
    open_ones = [entry for entry in store.summaries() if entry["num_messages"] < MAX_MESSAGES]
    session = open_ones[0] if open_ones else store.add_session(new_session([]))
    key = session["id"]
    number = len(store.session(key)["messages"])
    while True:
        question = new_message(USER, "User", f"#{number}", store.session(key)["leaf"])
        store.change_session(key, None, lambda old, m=question: tree.with_message(old, m, leaf=m["id"]))
        acknowledge.send((key, f"#{number}"))
        reply = new_message("a0a0a0a0a0a0a001", "Marlow", "", question["id"])
        journal = Journal(store.journal_folder / f"{reply['id']}.jsonl", store.disk)
        journal.begin(key, reply)
        for piece in range(5):
            journal._last_line = 0.0
            journal.text("text", f"{piece} ")
        number += 1
        reply |= {"text": f"#{number}", "finish_reason": "eos"}
        journal.end(reply)
        acknowledge.send((key, f"#{number}"))
        commit(store, key, journal.path.stem, reply)
        journal.close()
        drop_journal(store, journal.path.stem)
        number += 1


def undo_for_ever(folder: str, acknowledge: Connection) -> None:
    """The victim: a text edited, that undone and done again; each is named once it is safe."""
    store = Store(Path(folder))
    known = store.summaries()
    key = known[0]["id"] if known else store.add_session(new_session([]))["id"]
    if not known:
        first = new_message(USER, "User", "0", None)
        store.change_session(key, None, lambda old: tree.with_message(old, first, leaf=first["id"]))
    if steps_of(store.session(key), "redo"):
        store.change_session(key, None, redone)
    number = int(text_of(store.session(key)))
    while True:
        number += 1
        store.change_session(key, None, lambda old, to=str(number): with_text(old, to))
        acknowledge.send((key, "edit", number))
        store.change_session(key, None, undone)
        acknowledge.send((key, "undo", number))
        store.change_session(key, None, redone)
        acknowledge.send((key, "redo", number))


def text_of(session: Session) -> str:
    return session["messages"][0]["text"]


def with_text(session: Session, text: str) -> Session:
    message = {**session["messages"][0], "text": text, "edited": time.time()}
    return tree.with_message(session, message, leaf=session["leaf"])


def check_undo(folder: Path, said: list[tuple[str, str, int]]) -> None:
    """What was done last is there with all that can be undone, or what was to be done next."""
    store = Store(folder, disk=FastDisk())
    key, kind, number = said[-1]
    session = store.session(key)
    followed = {"edit": ("undo", number), "undo": ("redo", number), "redo": ("edit", number + 1)}[kind]
    state = (text_of(session), len(steps_of(session, "redo")))
    states = [(str(n - 1), 1) if done == "undo" else (str(n), 0) for done, n in ((kind, number), followed)]
    assert state in states
    for _ in steps_of(session, "redo"):
        session = store.change_session(key, None, redone)
    last = int(text_of(session))
    steps = min(5, len(steps_of(session, "undo")) - 1)
    for back in range(1, steps + 1):
        session = store.change_session(key, None, undone)
        assert text_of(session) == str(last - back)
    for _ in range(steps):
        session = store.change_session(key, None, redone)
    assert text_of(session) == str(last) and not store.problems
    store.close()


def check_messages(folder: Path, said: list[tuple[str, str]]) -> None:
    store = Store(folder, disk=FastDisk())
    fold_in_all(store)
    session = store.session(said[0][0])
    kept = {message["text"] for message in tree.path(session, session["leaf"])}
    assert {text for _key, text in said} <= kept
    assert not store.problems and not list(store.journal_folder.iterdir())
    store.close()


def kill_rounds(folder: Path, rounds: int, seed: int, start_method: str, writes=write_for_ever,
                check=check_messages) -> int:
    """Start, kill at a random moment, look; the number of messages that were acknowledged in all."""
    moments = random.Random(seed)
    processes = multiprocessing.get_context(start_method)
    acknowledged = 0
    for _ in range(rounds):
        receiver, sender = processes.Pipe(duplex=False)
        victim = processes.Process(target=writes, args=(str(folder), sender), daemon=True)
        victim.start()
        sender.close()
        said = [receiver.recv()]
        time.sleep(moments.random() * 0.15)
        victim.kill()
        with contextlib.suppress(EOFError, OSError):  # the last one may have been cut in the middle
            while True:
                said.append(receiver.recv())
        victim.join()
        receiver.close()
        check(folder, said)
        acknowledged += len(said)
    return acknowledged


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    assert kill_rounds(tmp_path / "sessions", ROUNDS, 1, "spawn") >= ROUNDS


def test_kill_9_leaves_a_change_with_its_undoing_or_neither(tmp_path):
    assert kill_rounds(tmp_path / "sessions", ROUNDS, 2, "spawn", undo_for_ever, check_undo) >= ROUNDS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        which = (undo_for_ever, check_undo) if sys.argv[2:] == ["undo"] else ()
        count = kill_rounds(Path(where) / "sessions", int(sys.argv[1]), int(time.time()), "fork", *which)
        print(f"{sys.argv[1]} kills, {count} acknowledged writes, none lost")
