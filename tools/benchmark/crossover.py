"""On a GPU: from how many rows of a prompt on a weight is better dequantized and multiplied by torch.

The measurement that the engine makes when it loads a model, for the shapes of several, with its times.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from model.devices import cuda_problem
from model.formats.synthetic import GROUP_SIZE, synthetic_config
from model.kernels import load_kernels
from model.kernels.crossover import ROWS, find_crossover
from model.network.modules import layer_modules

MODELS = ("llama-2-7b", "llama-3-8b", "llama-2-13b", "llama-2-70b")
_WEIGHTS = 4


def measure_crossovers(kernels: Any) -> list[dict[str, Any]]:
    """For each shape of the models: milliseconds by rows, and where they cross; on the GPU's kernels."""
    shapes = {(group.n, group.k) for config in map(synthetic_config, MODELS)
              for group in layer_modules(config.spec, config.names, 0)}
    return [_measure(kernels, n, k) for n, k in sorted(shapes)]


def _measure(kernels: Any, n: int, k: int) -> dict[str, Any]:
    codes = torch.randint(0, 16, (n, k), dtype=torch.uint8, device=kernels.device)
    scales = torch.full((n, k // GROUP_SIZE), 0.01, dtype=torch.float16, device=kernels.device)
    zeros = torch.full_like(scales, 8, dtype=torch.uint8)
    weights = [kernels.pack_linear(codes, scales, zeros, GROUP_SIZE) for _ in range(_WEIGHTS)]
    direct, dequantized = kernels.both_ways(weights)
    return {"n": n, "k": k, "rows": list(ROWS), "direct_ms": direct, "dequantized_ms": dequantized,
            "crossover": find_crossover(direct, dequantized)}


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
