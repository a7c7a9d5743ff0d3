"""Why a step of the engine took longer than others: what it had to do, or what kept its threads from running.

A cause counts only if it is as long as what it is to explain. What a step had to do explains twice of what so
much work usually takes: a sum of its rows, keys and so on, with the weights that fit half of all steps from
above and half from below. What it took beyond that must have been lost waiting for a core, on a core that the
host took away, collecting garbage or asleep. Linux tells these (/proc/self/task/*/schedstat, /proc/stat);
elsewhere they are 0 and the step stays unexplained.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Lost:
    """Seconds within a step that were not spent on its work."""

    collecting: float = 0.0  # Python's garbage
    waiting: float = 0.0     # ready to run, without a core: the thread that waited longest
    waiting_all: float = 0.0  # the threads' waits added up: what they cost if they came one after the other
    asleep: float = 0.0      # the engine's own thread, which sleeps only for the interpreter's lock in a step
    stolen: float = 0.0      # by the host of a virtual machine, from all cores together


@dataclass(frozen=True)
class Step:
    """What a step had to do, and how long it took."""

    seconds: float
    rows: int
    keys: int = 0           # that its rows look at, together
    prompt_tokens: int = 0
    copies: int = 0
    is_recorded: bool = True  # replayed, see call_list.py; else Python makes the calls, and records them
    lost: Lost = Lost()

    @property
    def work(self) -> list[float]:
        return [1.0, self.rows - self.prompt_tokens, self.prompt_tokens, self.keys, self.copies > 0,
                not self.is_recorded]


def explain(steps: list[Step]) -> list[tuple[Step, str]]:
    """The steps over twice the median of all, each with the reason; "" if nothing explains it."""
    median = statistics.median(step.seconds for step in steps)
    return [(step, _reason(step, max(median, usual)))
            for step, usual in zip(steps, usual_seconds(steps), strict=True) if step.seconds > 2 * median]


def usual_seconds(steps: list[Step]) -> list[float]:
    """What as much work as each step's usually takes: the least absolute deviations, by weighted squares."""
    work, seconds = np.array([step.work for step in steps], float), np.array([s.seconds for s in steps])
    work /= np.abs(work).max(0).clip(1e-9)
    weights = np.ones(len(steps))
    for _ in range(50):
        root = np.sqrt(weights)[:, None]
        found = np.linalg.lstsq(work * root, seconds * root[:, 0], rcond=None)[0]
        weights = 1 / np.abs(seconds - work @ found).clip(1e-3 * np.median(seconds))
    return list(work @ found)


def _reason(step: Step, usual: float) -> str:
    if step.seconds <= 2 * usual:
        return "as much work as takes that long"
    excess, lost = step.seconds - 2 * usual, step.lost
    for cause, seconds in (("garbage collection", lost.collecting),
                           ("a thread waited for a core", lost.waiting),
                           ("threads waited for a core, one after the other", lost.waiting_all),
                           ("the host took a core away", lost.stolen),
                           ("the engine's thread waited for the interpreter's lock", lost.asleep)):
        if seconds >= excess:
            return cause
    together = lost.collecting + lost.waiting_all + lost.stolen + lost.asleep
    return "several of these causes together" if together >= excess else ""


class LostTime:
    """Measures what a step loses. Made in any thread before others than the engine's begin to work; the rest
    is called by the engine's own thread."""

    def __init__(self, engine_thread: threading.Thread) -> None:
        self._own = engine_thread.native_id
        python = {thread.native_id for thread in threading.enumerate()} - {self._own}
        tasks = Path("/proc/self/task")
        found = (int(path.name) for path in tasks.iterdir()) if tasks.is_dir() else ()
        self._threads = [thread for thread in found if thread not in python]  # the engine's and the kernels'
        self._collecting = self._collection_began = 0.0
        self._now: tuple[float, float, float, float, dict[int | None, float]] | None = None

    def collected(self, phase: str, info: dict[str, int]) -> None:
        """For gc.callbacks."""
        if phase == "start":
            self._collection_began = time.perf_counter()
        else:
            self._collecting += time.perf_counter() - self._collection_began

    def begin(self) -> None:
        self._now = self._read()

    def end(self) -> Lost:
        assert self._now is not None
        (wall, cpu, collecting, stolen, before), (wall2, cpu2, collecting2, stolen2, after) = (
            self._now, self._read())
        waits = {thread: after[thread] - before[thread] for thread in after}
        asleep = wall2 - wall - (cpu2 - cpu) - waits.get(self._own, 0.0) if waits else 0.0
        return Lost(collecting2 - collecting, max(waits.values(), default=0.0), sum(waits.values()),
                    max(0.0, asleep), stolen2 - stolen)

    def _read(self) -> tuple[float, float, float, float, dict[int | None, float]]:
        waits = {thread: _run_delay(thread) for thread in self._threads}
        return time.perf_counter(), time.thread_time(), self._collecting, _stolen(), waits


def _run_delay(thread: int) -> float:
    """Seconds for which a thread was ready to run and had no core."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0


def _stolen() -> float:
    """Seconds that the host took from this machine's cores."""
    try:
        with Path("/proc/stat").open("rb") as file:
            return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0
