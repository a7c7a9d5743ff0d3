"""What the machine allows, and the least time that a piece of work takes there.

Other work on a machine changes its limits from minute to minute. So they are measured in turn with what is
measured, and a share of a limit means more than a number of its own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

READ_BYTES = 512 << 20
"""More than the last-level cache of a desktop; on servers with a larger one the limit comes out too high."""
_LEAST_SECONDS = 0.03
"""A shorter measurement of arithmetic would be one of waking the threads."""


@dataclass(frozen=True)
class Rates:
    """What all threads of the team reach together, at one moment."""

    read_gb_s: float       # 10^9 bytes a second
    products_top_s: float  # 10^12 operations a second, see measure_products in kernels.h

    def least_seconds(self, work: Work) -> float:
        return max(self._reading(work), self._multiplying(work))

    def bound(self, work: Work) -> str:
        return "memory" if self._reading(work) >= self._multiplying(work) else "arithmetic"

    def _reading(self, work: Work) -> float:
        return work.num_bytes / (self.read_gb_s * 1e9)

    def _multiplying(self, work: Work) -> float:
        return work.operations / (self.products_top_s * 1e12)


@dataclass(frozen=True)
class Work:
    """What cannot be avoided: bytes read from memory; operations, a product and its sum being two."""

    num_bytes: float
    operations: float


@dataclass(frozen=True)
class ModelWork:
    """The work of one model's steps, by its sizes alone. Attention counts at the same rate as the weights."""

    step_bytes: int            # weights that a step reads: all but the embeddings
    cache_bytes: float         # keys and values of one token
    layer_operations: int      # of one token, without head and attention
    head_operations: int       # of one token that is sampled
    attention_operations: int  # of one token, for each token before it and itself

    @classmethod
    def of(cls, engine: Any) -> ModelWork:
        spec, info = engine.model_config.spec, engine.describe()
        head = spec.vocab_size * spec.hidden_size
        layers = spec.num_parameters - head * (2 if spec.tied_head is False else 1)
        return cls(step_bytes=info["step_bytes"], cache_bytes=info["cache_bytes"] / info["cache_tokens"],
                   layer_operations=2 * layers, head_operations=2 * head,
                   attention_operations=4 * sum(attention.query_size for attention in spec.attentions))

    def prompt(self, tokens: int) -> Work:
        """Every weight read once, however many chunks the engine makes of it; one token sampled."""
        pairs = tokens * (tokens + 1) // 2
        return Work(self.step_bytes + tokens * self.cache_bytes,
                    tokens * self.layer_operations + self.head_operations + pairs * self.attention_operations)

    def decoding(self, context: int, batch: int, steps: int) -> Work:
        """`steps` tokens for each of `batch` requests that have `context` tokens: step i sees context + i."""
        seen = batch * sum(context + step for step in range(1, steps + 1))
        token = self.layer_operations + self.head_operations
        return Work(steps * self.step_bytes + seen * self.cache_bytes,
                    batch * steps * token + seen * self.attention_operations)


class Limits:
    """Measures Rates with the kernels' own loops: four prefetched streams a thread; products in registers."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self._memory = torch.empty(READ_BYTES, dtype=torch.uint8)
        kernels.call("advise_huge_pages", self._memory, READ_BYTES)
        self._memory.fill_(1)
        self._rounds = 1 << 16
        while timed(self._multiply) < _LEAST_SECONDS:
            self._rounds *= 2

    def now(self) -> Rates:
        return Rates(self.read_gb_s(), self.products_top_s())

    def read_gb_s(self) -> float:
        seconds = timed(lambda: self._kernels.call("measure_read", self._memory, READ_BYTES, None))
        return READ_BYTES / seconds / 1e9

    def products_top_s(self) -> float:
        start = time.perf_counter()
        return self._multiply() / (time.perf_counter() - start) / 1e12

    def _multiply(self) -> int:
        done = ctypes.c_int64()
        self._kernels.call("measure_products", self._rounds, ctypes.byref(done), None)
        return done.value


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> dict[str, float]:
    """The middle of repeated measurements, and between what they lie."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report_of(module: str, arguments: Sequence[str], kernels: Any) -> dict[str, Any]:
    """What every report begins with: the command that made it, when, and on what."""
    return {"command": shlex.join(["python", "-m", module, *arguments]),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(kernels)}


def machine(kernels: Any) -> dict[str, Any]:
    """What the numbers were measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        name = next(lines, name).split(":", 1)[-1].strip()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": name, "cores": os.cpu_count(), "threads": kernels.threads, "isa": kernels.isa,
            "system": platform.platform(), "python": platform.python_version(), "torch": torch.__version__,
            "load_average": load}
