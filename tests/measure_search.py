"""How long searching takes among many sessions, by hand: python -m tests.measure_search 5000

Sessions of MESSAGES messages of random words. Prints the processor's milliseconds of a search by the index,
for words that stand in one session, in some, in all and in none; and how long it takes to read every session,
which is what happens until the index is there.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.failing_disk import FastDisk
from webui.storage import tree
from webui.storage.schema import USER, new_message, new_session
from webui.storage.store import Store

MESSAGES = 10
WORDS_OF_A_MESSAGE = 40
KNOWN_WORDS = 20_000
TIMES = 9


def fill(store: Store, sessions: int, rng: random.Random) -> list[str]:
    """Add sessions of words that are made up; the words, the most frequent first."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(KNOWN_WORDS)]
    often = [1 / rank for rank in range(1, KNOWN_WORDS + 1)]  # as in texts that people write
    for _ in range(sessions):
        session = new_session([])
        for _ in range(MESSAGES):
            text = " ".join(rng.choices(words, often, k=WORDS_OF_A_MESSAGE))
            message = new_message(USER, "User", text, session["leaf"])
            session = tree.with_message(session, message, leaf=message["id"])
        store.add_session(session)
    return words


def milliseconds(store: Store, words: str) -> tuple[float, int]:
    """Of the processor in the median search, which waits for nothing; and how many sessions it finds."""
    took = []
    for _ in range(TIMES):
        started = time.thread_time()
        found = store.search(words)
        took.append((time.thread_time() - started) * 1000)
    return statistics.median(took), len(found)


def main() -> None:
    sessions, rng = int(sys.argv[1]), random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), disk=FastDisk())
        words = fill(store, sessions, rng)
        two = f"{words[3]} {words[2000]}"
        asked = ["no such words", words[0], words[100], words[-1], two, words[5][:2], "e"]
        started = time.perf_counter()
        store.search(asked[0])
        print(f"{sessions:,} sessions; reading all of them takes {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        store.begin_indexing()
        while store.search_index.find(["x"]) is None or store.search_index.find(["x"])[1]:
            time.sleep(0.1)
        print(f"the index is there after {time.perf_counter() - started:.0f} s")
        for question in asked:
            took, found = milliseconds(store, question)
            print(f"{question!r}: {took:.0f} ms, found in {found:,}")
        store.close()


if __name__ == "__main__":
    main()
