"""kill -9 in the midst of saving: whatever was acknowledged is there, and every file can be read.

A thousand rounds by hand: python -m tests.test_store_kill 1000
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.failing_disk import FastDisk
from webui.storage import tree
from webui.storage.journal import Journal
from webui.storage.recovery import fold_in_all
from webui.storage.schema import USER, new_message, new_session
from webui.storage.store import Store

ROUNDS = 12
ROOT = Path(__file__).resolve().parent.parent


def write_for_ever(folder: str) -> None:
    """The victim: questions saved, replies journalled and committed; a number is said once it is safe."""
    store = Store(Path(folder))
    fold_in_all(store)
    session = store.summaries()[0] if store.summaries() else store.add_session(new_session([]))
    key = session["id"]
    number = len(store.session(key)["messages"])
    while True:
        question = new_message(USER, "User", f"#{number}", store.session(key)["leaf"])
        store.change_session(key, None, lambda old, m=question: tree.with_message(old, m, leaf=m["id"]))
        print(f"#{number}", flush=True)
        reply = new_message("a0a0a0a0a0a0a001", "Marlow", "", question["id"])
        journal = Journal(store.journal_folder / f"{reply['id']}.jsonl", store.disk)
        journal.begin(key, reply)
        for piece in range(5):
            journal._last_line = 0.0
            journal.text("text", f"{piece} ")
        number += 1
        reply |= {"text": f"#{number}", "finish_reason": "eos"}
        journal.end(reply)
        print(f"#{number}", flush=True)
        store.change_session(key, None, lambda old, m=reply: tree.with_reply(old, m))
        journal.remove()
        number += 1


def kill_rounds(folder: Path, rounds: int, seed: int) -> int:
    """Start, kill at a random moment, look; the number of messages that were acknowledged in all."""
    moments = random.Random(seed)
    acknowledged = 0
    for _ in range(rounds):
        victim = subprocess.Popen([sys.executable, "-m", "tests.test_store_kill", "--victim", str(folder)],
                                  stdout=subprocess.PIPE, text=True, cwd=ROOT)
        said = [victim.stdout.readline()]
        time.sleep(moments.random() * 0.15)
        victim.kill()
        said += victim.stdout.readlines()
        victim.wait()
        whole = [line for line in said if line.startswith("#") and line.endswith("\n")]
        last = max((int(line[1:]) for line in whole), default=-1)
        store = Store(folder, disk=FastDisk())
        fold_in_all(store)
        (summary,) = store.summaries()
        session = store.session(summary["id"])
        numbers = [m["text"] for m in tree.path(session, session["leaf"]) if m["text"].startswith("#")]
        assert f"#{last}" in numbers or last < 0, (last, numbers[-5:])
        assert not store.problems and not list(store.journal_folder.iterdir())
        acknowledged += len(whole)
        store.close()
    return acknowledged


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    assert kill_rounds(tmp_path / "sessions", ROUNDS, seed=1) >= ROUNDS


if __name__ == "__main__":
    if sys.argv[1] == "--victim":
        write_for_ever(sys.argv[2])
    with tempfile.TemporaryDirectory() as where:
        count = kill_rounds(Path(where) / "sessions", int(sys.argv[1]), seed=int(time.time()))
        print(f"{sys.argv[1]} kills, {count} acknowledged writes, none lost")
