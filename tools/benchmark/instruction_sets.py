"""The linear layers of one layer with each instruction set of this CPU, in CPU milliseconds of one thread.

  python -m tools.benchmark.instruction_sets                     every set, kind of weights and number of rows
  python -m tools.benchmark.instruction_sets --json FILE         written, too, with machine and command

The sets take turns, so a ratio is that of neighbours in time. AMX's way of reading prompts is left out:
`python -m tools.benchmark` has it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from model.kernels import load_kernels
from model.kernels.build.cpu import ISAS
from model.kernels.groups import STEP_COLUMNS, Groups
from model.options import path_option
from tools.benchmark.limits import report_of, spread
from tools.benchmark.linear_layers import SHAPES

_LAYERS = 3
"""With weights of their own, so that no core's cache holds them."""
_FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def _halves(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape) * 0.02 + 0.005).half()


def _four_bits(n: int, k: int) -> Groups:
    return Groups(torch.randint(0, 16, (n, k), dtype=torch.uint8), 4, 32, _halves(n, k // 32), 8)


def _eight_bits(n: int, k: int) -> Groups:
    return Groups(torch.randint(0, 256, (n, k), dtype=torch.uint8), 8, 32, _halves(n, k // 32), 128)


def _q4_k(n: int, k: int) -> Groups:
    mins = torch.randint(0, 64, (n, k // 32), dtype=torch.uint8)
    return Groups(torch.randint(0, 16, (n, k), dtype=torch.uint8), 4, 32, mins.to(torch.int8), 0, mins,
                  _halves(n, k // STEP_COLUMNS), _halves(n, k // STEP_COLUMNS))


def _q6_k(n: int, k: int) -> Groups:
    scales = torch.randint(-128, 128, (n, k // 16)).to(torch.int8)
    return Groups(torch.randint(0, 64, (n, k), dtype=torch.uint8), 6, 16, scales, 32,
                  steps=_halves(n, k // STEP_COLUMNS))


def _mxfp4(n: int, k: int) -> Groups:
    scales = torch.randint(118, 124, (n, k // 32), dtype=torch.uint8).view(torch.float8_e8m0fnu)
    return Groups(torch.randint(0, 16, (n, k), dtype=torch.uint8), 4, 32, scales, table=_FP4,
                  factors=torch.full((n,), 0.5))


KINDS: dict[str, Callable[[int, int], Groups]] = {
    "Q4_0": _four_bits, "Q8_0": _eight_bits, "Q4_K": _q4_k, "Q6_K": _q6_k, "MXFP4": _mxfp4}


def cpu_ms(work: Callable[[], None]) -> float:
    start = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - start)


def measure(kernels: Any, isas: list[str], rows: list[int], repeats: int) -> list[dict[str, Any]]:
    """For each kind of weights and number of rows: milliseconds of a layer with each set, and those of the
    first set as multiples of them."""
    results = []
    for kind, make in KINDS.items():
        weights = [kernels.pack_groups(make(n, k)) for n, k in SHAPES.values()]
        layers = [weights] + [[kernels.pack_groups(make(n, k)) for n, k in SHAPES.values()]
                              for _ in range(_LAYERS - 1)]
        for m in rows:
            buffers = [(torch.randn(m, k), torch.empty(m, n)) for n, k in SHAPES.values()]

            def layer(layers: Any = layers, buffers: Any = buffers) -> None:
                for each in layers:
                    for weight, (x, out) in zip(each, buffers, strict=True):
                        kernels.linear(x, weight, out)

            found: dict[str, list[float]] = {isa: [] for isa in isas}
            for turn in range(repeats + 1):
                for isa in isas:
                    kernels.force_isa(isa)
                    taken = cpu_ms(layer) / _LAYERS
                    if turn:  # the first warms up
                        found[isa].append(taken)
            kernels.force_isa(None)
            first = found[isas[0]]
            results.append({
                "weights": kind, "rows": m,
                "ms": {isa: spread(values) for isa, values in found.items()},
                "times_as_fast": {isa: spread([a / b for a, b in zip(first, values, strict=True)])
                                  for isa, values in found.items()}})
    return results


def table(results: list[dict[str, Any]], isas: list[str]) -> str:
    lines = [f"{'ms of a layer':14}{'rows':>6}" + "".join(f"{isa:>22}" for isa in isas)]
    for each in results:
        cells = "".join(f"{each['ms'][isa]['median']:12.3f} ({each['times_as_fast'][isa]['median']:5.2f}x)"
                        for isa in isas)
        lines.append(f"{each['weights']:14}{each['rows']:6}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark.instruction_sets", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isas", type=lambda text: text.split(","), metavar="SET,SET",
                        help=f"default: those of this CPU but `plain`; there are {', '.join(ISAS)}")
    parser.add_argument("--rows", type=lambda text: [int(part) for part in text.split(",")],
                        default=[1, 4, 512], metavar="N,N", help="of activations (default 1,4,512)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--json", type=path_option, metavar="FILE", help="write the results here, too")
    options = parser.parse_args()
    kernels: Any = load_kernels(threads=1)
    isas = options.isas or [isa for isa in kernels.supported_isas() if isa != "plain"]
    results = measure(kernels, isas, options.rows, options.repeats)
    print(table(results, isas))
    if options.json:
        report = report_of("tools.benchmark.instruction_sets", sys.argv[1:], kernels) | {"results": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
