"""What two replicas of the starter on this machine do with many conversations: how the requests spread, and
how much of a later turn is in the cache of the ones before.

    python -m tests.measure_replicas --json bench/replicas.json

Sent to where the conversation is known, and, to compare, to where there is least to do: then each request has
an id of its own, which belongs to no conversation. A turn of all conversations is asked at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

from model.options import path_option
from tests.helpers.replicas import Answered, Cluster, two_replicas
from tools.check_logits import machine

STORY = "A ship without lights came in at dusk, and the keeper of the lamp went down to the water to see. "
TOKENS = 16


def measure(cluster: Cluster, how: str, conversations: int, turns: int) -> dict[str, Any]:
    """All turns of so many conversations that begin unlike each other."""
    said = [[f"{how} {number}. {STORY * 6}"] for number in range(conversations)]
    found: list[list[Answered]] = []
    began = time.monotonic()
    for turn in range(turns):
        def ask(number: int, turn: int = turn) -> Answered:
            session = f"{how} {number} {turn}" if how == "load" else None
            return cluster.ask(*said[number], session=session, max_tokens=TOKENS)

        with ThreadPoolExecutor(conversations) as threads:
            found.append(list(threads.map(ask, range(conversations))))
        for turns_said, answer in zip(said, found[-1], strict=True):
            turns_said += [answer.text, "And then?"]
    seconds = time.monotonic() - began
    later = [answer.usage for answers in found[1:] for answer in answers]
    return {"routed by": how, "conversations": conversations, "turns": turns, "seconds": seconds,
            "requests of each replica, by turn": [sorted(Counter(one.replica for one in answers).values())
                                                  for answers in found],
            "stayed": sum(len({answers[number].replica for answers in found}) == 1
                          for number in range(conversations)),
            "prompt tokens of later turns": sum(usage["prompt_tokens"] for usage in later),
            "of them cached": sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in later)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Many conversations with two replicas, measured.")
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=path_option, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    began = time.monotonic()
    with two_replicas() as cluster:
        started = time.monotonic() - began
        results = [measure(cluster, how, arguments.conversations, arguments.turns)
                   for how in ("conversation", "load")]
    report = {"command": "python -m tests.measure_replicas " + " ".join(sys.argv[1:]),
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "seconds until all is up": started, "results": results}
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
