"""How soon a fork's first token comes, and what the tokens' log-probabilities cost a reply. Writes JSON.

python -m tools.measure_forks --out bench/forks.json

A model of random 4-bit weights in the shape of TinyLlama-1.1B writes a reply up to CONTEXT tokens; it then
forks at places of it that are drawn by chance. Replies are written in turn with and without what the token
lens keeps. One thread; CPU time counts, which a busy machine changes less than the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

from model.options import path_option
from tools.check_logits import machine

SHAPE, CONTEXT, REPLY = "tinyllama-1.1b", 4000, 64
FORKS, ROUNDS, NEW = 20, 3, 32
NUM_OTHERS = 8  # as the page asks for


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.measure_forks",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path_option, metavar="FILE", help="write the result as JSON")
    arguments = parser.parse_args()
    report = {"command": "python -m tools.measure_forks --out bench/forks.json",
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "model": f"random 4-bit weights in the shape of {SHAPE}"} | measure()
    print(json.dumps(report, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure() -> dict[str, Any]:
    from model.config import EngineConfig
    from model.engine.loading import synthetic_engine
    from model.engine.request import FinishedEvent, SamplingParams, TokenEvent

    rng = random.Random(1)
    config = EngineConfig(device="cpu", threads=1, max_seq_len=CONTEXT + 96, speculation=False)
    engine = synthetic_engine(SHAPE, config)

    def ask(token_ids: list[int], new: int, logprobs: int | None = None,
            is_fork: bool = False) -> tuple[list[int], list[float], Any]:
        """The reply, CPU milliseconds until each of its tokens, its numbers."""
        started, came, reply = time.process_time(), [], []
        params = SamplingParams(max_new_tokens=new, seed=1)
        request = engine.submit(token_ids, params, frozenset(), logprobs=logprobs, goes_on=is_fork)
        for event in request.events():
            if isinstance(event, TokenEvent):
                came.append((time.process_time() - started) * 1000)
                reply.append(event.token_id)
            elif isinstance(event, FinishedEvent):
                return reply, came, event.stats
        raise RuntimeError("the engine failed")

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": round(statistics.median(values), 2), "min": round(min(values), 2),
                "max": round(max(values), 2)}

    try:
        prompt = [rng.randrange(32000) for _ in range(CONTEXT - REPLY)]
        reply, _, _ = ask(prompt, REPLY, NUM_OTHERS)
        forks, following, read = [], [], []
        for _ in range(FORKS):
            at = rng.randrange(1, REPLY)
            _, came, stats = ask([*prompt, *reply[:at], rng.randrange(32000)], 2, NUM_OTHERS, is_fork=True)
            forks.append(came[0])
            following.append(came[1] - came[0])
            read.append(stats.prompt_tokens - stats.cached_tokens)
        steps: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(ROUNDS):
            for name, logprobs in (("without", None), ("with", NUM_OTHERS)):
                _, came, _ = ask(prompt[:100], NEW, logprobs)
                steps[name] += [after - before for before, after in pairwise(came)]
        return {"forks": {"at_tokens": f"{CONTEXT - REPLY} to {CONTEXT}", "number": FORKS,
                          "cpu_milliseconds_to_first_token": spread(forks),
                          "cpu_milliseconds_of_the_next_step": spread(following),
                          "tokens_read": spread(read)},
                "cpu_milliseconds_of_a_step": {name: spread(values) for name, values in steps.items()}}
    finally:
        engine.close()


if __name__ == "__main__":
    main()
