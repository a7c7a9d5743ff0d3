"""kill -9 in the midst of saving: whatever was acknowledged is there, and every file can be read.

Ten thousand rounds by hand, on Linux: python -m tests.webui.test_store_kill 10000
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
from webui.storage.journal import Journal
from webui.storage.recovery import commit, drop_journal, fold_in_all
from webui.storage.schema import USER, new_message, new_session
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


def kill_rounds(folder: Path, rounds: int, seed: int, start_method: str) -> int:
    """Start, kill at a random moment, look; the number of messages that were acknowledged in all."""
    moments = random.Random(seed)
    processes = multiprocessing.get_context(start_method)
    acknowledged = 0
    for _ in range(rounds):
        receiver, sender = processes.Pipe(duplex=False)
        victim = processes.Process(target=write_for_ever, args=(str(folder), sender), daemon=True)
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
        store = Store(folder, disk=FastDisk())
        fold_in_all(store)
        session = store.session(said[0][0])
        kept = {message["text"] for message in tree.path(session, session["leaf"])}
        assert {text for _key, text in said} <= kept
        assert not store.problems and not list(store.journal_folder.iterdir())
        acknowledged += len(said)
        store.close()
    return acknowledged


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    assert kill_rounds(tmp_path / "sessions", ROUNDS, 1, "spawn") >= ROUNDS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        count = kill_rounds(Path(where) / "sessions", int(sys.argv[1]), int(time.time()), "fork")
        print(f"{sys.argv[1]} kills, {count} acknowledged writes, none lost")
