"""Many requests of mixed lengths at once, for as long as one likes:

    python -m tests.soak_engine --seconds 300 --out bench/soak.json

Keeps requests in flight on a model (the starter, if no other is given), cancels some at random, and compares
every stream with what the same request gave alone. The cache is made so small that requests are preempted. At
the end every page must be free again. Steps over twice the median are listed with the reason.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.request import FailedEvent, FinishedEvent, SamplingParams, TokenEvent
from tests.helpers.slow_steps import Lost, LostTime, Step, explain
from tests.helpers.tiny_engine import shrink

STARTER = Path(__file__).parent.parent / "starter"


@dataclass(frozen=True)
class Work:
    """One request and what it gives alone."""

    prompt: list[int]
    params: SamplingParams
    eos: frozenset[int]
    alone: list[int]


@dataclass
class Report:
    """What happened."""

    finished: int = 0
    cancelled: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    preempted: int = 0
    different: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    most_running: int = 0
    steps: int = 0
    median_step_ms: float = 0.0
    longest_step_ms: float = 0.0
    steps_over_twice_the_median: dict[str, int] = field(default_factory=dict)
    longest_of_each_reason_ms: dict[str, float] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    lost_seconds: dict[str, float] = field(default_factory=dict)
    pages_left_in_use: int = 0


class StepWatch:
    """Times every step of an engine, from within its thread."""

    def __init__(self, engine: Engine) -> None:
        self.steps: list[Step] = []
        self.preempted = self.most_running = 0
        self._run, self._preempt, self._engine = engine._runner.run, engine._scheduler._preempt, engine
        self._recorded = engine._runner._transformer.stages[0]._recorder._lists
        self._lost = LostTime(engine._thread)
        engine._runner.run, engine._scheduler._preempt = self._timed, self._counted
        gc.callbacks.append(self._lost.collected)

    def _counted(self, sequence: Any) -> None:
        self.preempted += 1
        self._preempt(sequence)

    def _timed(self, batch: Any) -> Any:
        shape = (batch.num_rows, len(batch.chunks))
        is_recorded = shape in self._recorded
        self._lost.begin()
        start = time.perf_counter()
        result = self._run(batch)
        seconds, lost = time.perf_counter() - start, self._lost.end()
        prompt_tokens = sum(chunk.count for chunk in batch.chunks if chunk.count > 1)
        keys = sum(chunk.num_rows * (chunk.start + chunk.num_rows) for chunk in batch.chunks)
        self.steps.append(Step(seconds, shape[0], keys, prompt_tokens, len(batch.copies),
                               is_recorded, lost))
        self.most_running = max(self.most_running, len(self._engine._scheduler.running))
        return result

    def close(self) -> None:
        gc.callbacks.remove(self._lost.collected)

    def fill(self, report: Report) -> None:
        times = [step.seconds for step in self.steps]
        explained = explain(self.steps)
        report.steps_over_twice_the_median = dict(Counter(reason for _, reason in explained).most_common())
        for step, reason in explained:
            longest = report.longest_of_each_reason_ms
            longest[reason] = max(longest.get(reason, 0.0), 1e3 * step.seconds)
        report.unexplained = [str(step) for step, reason in explained if not reason]
        report.lost_seconds = {lost.name: sum(getattr(step.lost, lost.name) for step in self.steps)
                               for lost in fields(Lost)}
        report.steps, report.preempted, report.most_running = len(times), self.preempted, self.most_running
        report.median_step_ms, report.longest_step_ms = 1e3 * statistics.median(times), 1e3 * max(times)


def make_work(engine: Engine, count: int, rng: random.Random) -> list[Work]:
    """Requests of mixed lengths and settings, some with a common beginning, each run alone."""
    vocab, limit = engine.model_config.spec.vocab_size, engine.max_seq_len
    preamble = [rng.randrange(vocab) for _ in range(limit // 8)]
    found = []
    for index in range(count):
        length = rng.choice([1, 5, 31, 32, 33, 64, limit // 16, limit // 8, limit // 4])
        prompt = [rng.randrange(vocab) for _ in range(length)]
        if rng.random() < 0.3:
            prompt = preamble + prompt
        if rng.random() < 0.3:
            prompt = (prompt * 4)[:limit // 3]  # something to look up
        params = SamplingParams(
            seed=index, temperature=rng.choice([0.0, 0.0, 0.7, 1.2]),
            repetition_penalty=rng.choice([1.0, 1.1]), max_new_tokens=rng.choice([1, 8, 40, limit // 3]))
        eos = frozenset(rng.sample(range(vocab), 2)) if rng.random() < 0.5 else frozenset()
        alone = [event.token_id for event in engine.submit(prompt, params, eos).events()
                 if isinstance(event, TokenEvent)]
        found.append(Work(prompt, params, eos, alone))
    return found


def soak(engine: Engine, seconds: float, in_flight: int, num_requests: int = 60, seed: int = 0,
         pages: int | None = None) -> Report:
    """Keep `in_flight` requests running; `pages`: of the cache, fewer than it has."""
    work = make_work(engine, num_requests, random.Random(seed))
    if pages is not None:
        shrink(engine, pages)
    report, lock, watch = Report(), threading.Lock(), StepWatch(engine)
    deadline = time.monotonic() + seconds

    def reader(number: int) -> None:
        rng = random.Random(1000 * seed + number)
        while time.monotonic() < deadline and len(report.failed) < 10:
            one_request(engine, rng.choice(work), rng.choice([0, 1, 5, 20] + [None] * 12), report, lock)

    threads = [threading.Thread(target=reader, args=(number,)) for number in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watch.close()
    watch.fill(report)
    report.pages_left_in_use = engine.status()["pages_used"]
    return report


def one_request(engine: Engine, work: Work, stop_after: int | None, report: Report,
                lock: threading.Lock) -> None:
    """Run it, cancel it after so many tokens (None: never), compare what came."""
    request = engine.submit(work.prompt, work.params, work.eos)
    made: list[int] = []
    if stop_after == 0:
        request.cancel()
    for event in request.events():
        if isinstance(event, TokenEvent):
            made.append(event.token_id)
            if len(made) == stop_after:
                request.cancel()
    with lock:
        report.tokens += len(made)
        if isinstance(event, FailedEvent):
            report.failed.append(event.message)
            return
        assert isinstance(event, FinishedEvent)
        was_cancelled = event.reason == "cancelled"
        report.cancelled += was_cancelled
        report.finished += not was_cancelled
        report.drafted += event.stats.drafted_tokens
        report.accepted += event.stats.accepted_tokens
        if made != (work.alone[:len(made)] if was_cancelled else work.alone):
            report.different.append(f"prompt of {len(work.prompt)}, {work.params}: {made} for {work.alone}")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak_engine", description=__doc__.split("\n")[0])
    parser.add_argument("-d", "--model", type=Path, default=STARTER, metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--in-flight", type=int, default=64, help="requests at once (default 64)")
    parser.add_argument("--pages", type=int, default=200, help="of the cache, so that it runs short (200)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report here as JSON")
    options = parser.parse_args(arguments)
    engine = load_engine(options.model, EngineConfig(threads=options.threads))
    gc.freeze()  # as app.py does
    report = soak(engine, options.seconds, options.in_flight, pages=options.pages)
    info = engine.describe()
    engine.close()
    result = {"command": " ".join(["python -m tests.soak_engine", *(arguments or sys.argv[1:])]),
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
              "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "isa": info["isa"],
                          "threads": info["threads"], "python": platform.python_version(),
                          "torch": torch.__version__},
              "model": info["name"], "seconds": options.seconds, "in_flight": options.in_flight,
              "pages": options.pages, **asdict(report)}
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if report.different or report.failed or report.pages_left_in_use else 0


if __name__ == "__main__":
    raise SystemExit(main())
