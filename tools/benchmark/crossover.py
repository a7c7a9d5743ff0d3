"""On a GPU: from how many rows on a weight is better dequantized and multiplied by torch than read as it is.

The engine changes over behind MOST_ROWS of model/kernels/cuda_linear.py; this tells whether that is right on
the device at hand.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.devices import cuda_problem
from model.formats.synthetic import GROUP_SIZE, synthetic_config
from model.kernels import load_kernels
from model.kernels.linear import LinearOperations
from model.network.weights import layer_modules

ROWS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
MODELS = ("llama-2-7b", "llama-3-8b", "llama-2-13b", "llama-2-70b")
_REPEATS = 7


def find_crossover(direct: list[float], dequantized: list[float]) -> int | None:
    """The smallest of ROWS at which `dequantized` takes less time, and at the next one too; None: never.

    Two in a row, so that one disturbed measurement does not decide; at the last one alone it counts.
    """
    wins = [theirs < ours for ours, theirs in zip(direct, dequantized, strict=True)]
    found = next((index for index, (now, then) in enumerate(zip(wins, [*wins[1:], True], strict=True))
                  if now and then), None)
    return None if found is None else ROWS[found]


def measure_crossovers(kernels: Any) -> list[dict[str, Any]]:
    """For each shape of the models: milliseconds by rows, and where they cross; on the GPU's kernels."""
    shapes = {(sum(modules.values()), k) for name in MODELS
              for modules, k in layer_modules(synthetic_config(name), 0)}
    return [_measure(kernels, n, k) for n, k in sorted(shapes)]


def _measure(kernels: Any, n: int, k: int) -> dict[str, Any]:
    codes = torch.randint(0, 16, (n, k), dtype=torch.uint8, device="cuda")
    scales = torch.full((n, k // GROUP_SIZE), 0.01, dtype=torch.float16, device="cuda")
    weight = kernels.pack_linear(codes, scales, torch.full_like(scales, 8, dtype=torch.uint8), GROUP_SIZE)
    direct, dequantized = [], []
    for rows in ROWS:
        x, out = torch.randn(rows, k, device="cuda"), torch.empty(rows, n, device="cuda")
        direct.append(milliseconds(lambda x=x, out=out: LinearOperations.linear(kernels, x, weight, out)))
        dequantized.append(milliseconds(
            lambda x=x, out=out: kernels.multiply_dequantized(x, weight, out, None, 0.0, "store")))
    return {"n": n, "k": k, "rows": list(ROWS), "direct_ms": direct, "dequantized_ms": dequantized,
            "crossover": find_crossover(direct, dequantized)}


def milliseconds(work: Callable[[], Any]) -> float:
    """The median by the device's clock."""
    work()
    times = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def print_crossovers(file: Path | None) -> int:
    """The exit code; 1 and one sentence where there is no GPU."""
    if problem := cuda_problem():
        print(f"error: --crossover needs a GPU. {problem}", file=sys.stderr)
        return 1
    results = measure_crossovers(load_kernels("cuda"))
    print(crossover_table(results))
    if file:
        report = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def crossover_table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'outputs':>9}{'inputs':>9}  dequantized from"]
    for row in results:
        when = "more rows" if row["crossover"] is None else f"{row['crossover']} rows"
        lines.append(f"{row['n']:9,}{row['k']:9,}  {when}")
    return "\n".join(lines)
