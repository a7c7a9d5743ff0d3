"""Measure the engine, or its linear kernels alone, against the limits of this machine.

  python -m tools.benchmark --kernels                      linear layers of the TinyLlama-1.1B shapes
  python -m tools.benchmark --synthetic tinyllama-1.1b     the engine on random 4-bit weights of a true shape
  python -m tools.benchmark -d starter                     the engine on a model's folder

The limits - bytes a second that all threads read, products a second in registers - are measured in the same
run, in turn with what is measured, because other work on the machine changes both: a share of a limit means
more than a number of its own. Prints a table; --json also writes it, with machine and command.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.request import FailedEvent, FinishedEvent, RequestStats, SamplingParams
from model.kernels import load_kernels
from model.machine import resident_memory

READ_BYTES = 512 << 20
"""More than the last-level cache of a desktop; on servers with a larger one the limit comes out too high."""
LINEAR_SHAPES = {"qkv": (2560, 2048), "o": (2048, 2048), "gate_up": (11264, 2048), "down": (2048, 5632)}
"""n, k of TinyLlama-1.1B: hidden 2048, intermediate 5632, keys and values 256 each."""
NUM_LAYERS = 22
Row = dict[str, Any]


class Limits:
    """What the machine allows at this moment, by all threads of the team."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self._memory = torch.ones(READ_BYTES, dtype=torch.uint8)

    def read_gb_s(self) -> float:
        seconds = timed(lambda: self._kernels.call("measure_read", self._memory, READ_BYTES, None))
        return READ_BYTES / seconds / 1e9

    def products_top_s(self, rounds: int = 100_000) -> float:
        """10^12 operations a second: int8 with AMX or VNNI, float32 otherwise."""
        done = ctypes.c_int64()
        seconds = timed(lambda: self._kernels.call("measure_products", rounds, ctypes.byref(done), None))
        return done.value / seconds / 1e12


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(
    work: Callable[[], float], limit: Callable[[], float], repeats: int
) -> tuple[float, float, float]:
    """Medians of work(), of limit(), and of their ratio taken pair by pair."""
    pairs = [(limit(), work()) for _ in range(repeats)]
    return (
        statistics.median(done for _, done in pairs),
        statistics.median(most for most, _ in pairs),
        statistics.median(done / most for most, done in pairs),
    )


def random_layers(kernels: Any, group_size: int) -> list[list[Any]]:
    """Packed weights of all layers, each in memory of its own; a shape's random codes are drawn once."""
    layers: list[list[Any]] = [[] for _ in range(NUM_LAYERS)]
    for n, k in LINEAR_SHAPES.values():
        groups = -(-k // group_size)
        codes = torch.randint(0, 16, (n, k), dtype=torch.uint8)
        scales = (torch.rand(n, groups) * 0.01 + 0.01).half()
        zeros = torch.full((n, groups), 8, dtype=torch.uint8)
        for layer in layers:
            layer.append(kernels.pack_linear(codes, scales, zeros, group_size))
    return layers


def bench_kernels(kernels: Any, limits: Limits, rows: list[int], group_size: int, repeats: int) -> list[Row]:
    """All linear layers of the model in order, once for each number of rows: few are bound by memory, many by
    arithmetic. Each layer has its own weights, so that no cache holds them."""
    layers = random_layers(kernels, group_size)
    nbytes = sum(weight.nbytes for layer in layers for weight in layer)
    operations = 2 * sum(weight.n * weight.k for layer in layers for weight in layer)
    results = []
    for m in rows:
        buffers = [(torch.randn(m, k), torch.empty(m, n)) for n, k in LINEAR_SHAPES.values()]

        def step(buffers: list[tuple[torch.Tensor, torch.Tensor]] = buffers) -> None:
            for layer in layers:
                for weight, (x, out) in zip(layer, buffers, strict=True):
                    kernels.linear(x, weight, out)

        step()
        few = m <= 8
        unit, total = ("GB/s", nbytes / 1e9) if few else ("TOP/s", m * operations / 1e12)
        limit_now = limits.read_gb_s if few else limits.products_top_s
        done, limit, share = in_turn(lambda total=total: total / timed(step), limit_now, repeats)
        results.append({"what": f"linear layers, {m} rows", "tokens_per_second": m * done / total,
                        "achieved": done, "limit": limit, "unit": unit, "share": share})
    return results


def generate(engine: Engine, prompts: list[list[int]], new_tokens: int) -> list[RequestStats]:
    """Run the prompts together to exactly `new_tokens` each."""
    params = SamplingParams(temperature=0.0, max_new_tokens=new_tokens)
    requests = [engine.submit(prompt, params, frozenset()) for prompt in prompts]
    stats = []
    for request in requests:
        for event in request.events():
            if isinstance(event, FailedEvent):
                raise RuntimeError(event.message)
            if isinstance(event, FinishedEvent):
                stats.append(event.stats)
    return stats


def random_prompt(engine: Engine, length: int) -> list[int]:
    """Never the same twice, so that the prefix cache does not answer."""
    return torch.randint(3, engine.model_config.vocab_size, (length,)).tolist()


def bench_engine(engine: Engine, limits: Limits, options: argparse.Namespace) -> list[Row]:
    """Prompts and decoding; what does not fit the context is left out."""
    info = engine.describe()
    results = []
    for length in options.prompts:
        if length + 2 > engine.max_seq_len:
            continue
        operations = 2 * info["num_parameters"] / 1e12  # a token's; attention not counted

        def prompt_speed(length: int = length) -> float:
            stats = generate(engine, [random_prompt(engine, length)], 1)[0]
            return length / max(stats.prompt_seconds, 1e-9)

        speed, limit, share = in_turn(prompt_speed, limits.products_top_s, options.repeats)
        results.append({"what": f"prompt of {length}", "tokens_per_second": speed,
                        "achieved": speed * operations, "limit": limit, "unit": "TOP/s",
                        "share": share * operations})
    for context in options.contexts:
        for batch in options.batches:
            if context + options.new_tokens + 2 > engine.max_seq_len or (context and batch > 1):
                continue

            def decode_speed(context: int = context, batch: int = batch) -> float:
                prompts = [random_prompt(engine, max(context, 1)) for _ in range(batch)]
                return sum(s.tokens_per_second for s in generate(engine, prompts, options.new_tokens))

            speed, limit, share = in_turn(decode_speed, limits.read_gb_s, options.repeats)
            gigabytes = info["weight_bytes"] / batch / 1e9  # a token's; the cache not counted
            results.append({"what": f"decode at {context}, batch {batch}", "tokens_per_second": speed,
                            "achieved": speed * gigabytes, "limit": limit, "unit": "GB/s",
                            "share": share * gigabytes})
    return results


def machine(kernels: Any) -> Row:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        name = next(lines, name).split(":", 1)[-1].strip()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": name, "cores": os.cpu_count(), "threads": kernels.threads, "isa": kernels.isa,
            "system": platform.platform(), "python": platform.python_version(), "torch": torch.__version__,
            "load_average": load}


def table(rows: list[Row]) -> str:
    lines = [f"{'':32}{'tokens/s':>10}{'achieved':>16}{'limit':>10}{'share':>8}"]
    for row in rows:
        achieved = f"{row['achieved']:.2f} {row['unit']}"
        lines.append(f"{row['what']:32}{row['tokens_per_second']:10.1f}{achieved:>16}{row['limit']:10.2f}"
                     f"{row['share']:8.0%}")
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark", description="Measure speed against the machine's limits.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kernels", action="store_true", help="the linear kernels alone")
    what.add_argument("--synthetic", metavar="SHAPE", help="the engine on random weights: tinyllama-1.1b ...")
    what.add_argument("-d", "--model", type=Path, metavar="FOLDER", help="the engine on a model")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurement and limit (default 5)")
    parser.add_argument("--rows", type=numbers, default=[1, 4, 8, 512], help="--kernels: numbers of rows")
    parser.add_argument("--group-size", type=int, default=64, help="--kernels: columns that share a scale")
    parser.add_argument("--prompts", type=numbers, default=[128, 512, 2048], help="lengths of prompts")
    parser.add_argument("--contexts", type=numbers, default=[0, 2048, 8192], help="tokens before decoding")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8], help="requests at once")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens to decode (default 32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    kernels = load_kernels(threads=options.threads, progress=lambda line, share: print(line, file=sys.stderr))
    limits = Limits(kernels)
    report: Row = {"command": " ".join(["python -m tools.benchmark", *(arguments or sys.argv[1:])]),
                   "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                   "machine": machine(kernels)}
    if options.kernels:
        rows = bench_kernels(kernels, limits, options.rows, options.group_size, options.repeats)
    else:
        config = EngineConfig(threads=options.threads)
        engine = (Engine.synthetic(options.synthetic, config) if options.synthetic
                  else Engine.load(options.model, config))
        try:
            rows = bench_engine(engine, limits, options)
            report |= {"model": engine.describe(), "resident_bytes": resident_memory()}
        finally:
            engine.close()
    report["results"] = rows
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
