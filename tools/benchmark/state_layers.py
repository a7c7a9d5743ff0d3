"""Layers with a state beside the linear layers around them, in CPU seconds of one thread.

  python -m tools.benchmark.state_layers                   every shape, rows that decode and prompts of 512
  python -m tools.benchmark.state_layers --json FILE       written, too, with machine and command

CPU seconds, since other work on the machine changes them least; kinds of layers take turns. Behind the time
of what changes the state stand its bytes, read and written once a step, and its operations.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from model.kernels import load_kernels
from model.options import path_option
from tools.benchmark.limits import report_of, spread

_LAYERS = 2
"""With weights and states of their own."""


@dataclass(frozen=True)
class Shape:
    """A layer's sizes: `depth` x `width` is a head's state, `rest` lists the other linear layers, (n, k)."""

    kind: str
    key_heads: int
    heads: int
    depth: int
    width: int
    hidden_size: int
    inputs: int
    conv: int
    mlp: int

    @property
    def linear(self) -> tuple[tuple[int, int], ...]:
        return ((self.inputs, self.hidden_size), (self.hidden_size, self.heads * self.width),
                (2 * self.mlp, self.hidden_size), (self.hidden_size, self.mlp))

    @property
    def state_bytes(self) -> int:
        return 4 * self.heads * self.depth * self.width


SHAPES = {
    "Qwen3.5-9B": Shape("gated_delta", 16, 32, 128, 128, 4096, 12352, 8192, 12288),
    "Falcon-H1-1.5B": Shape("mamba2", 1, 48, 256, 64, 2048, 6704, 3584, 4096),
    "Granite-4.0-H-1B": Shape("mamba2", 1, 48, 128, 64, 1536, 6448, 3328, 4096),
    "LFM2-1.2B": Shape("short_conv", 1, 1, 2, 2048, 2048, 6144, 2048, 8192),
}


class Layers:
    """Weights and states of a few layers of one shape, and the inputs of steps of so many rows."""

    def __init__(self, kernels: Any, shape: Shape) -> None:
        self._kernels, self._shape = kernels, shape
        self._weights = [[self._packed(n, k) for n, k in shape.linear] for _ in range(_LAYERS)]
        self._states = [torch.randn(1, shape.heads, shape.depth, shape.width) for _ in range(_LAYERS)]
        size = 3 if shape.kind == "short_conv" else 4
        self._conv, self._conv_states = torch.randn(size, shape.conv), torch.randn(1, size - 1, shape.conv)

    def resize(self, num_rows: int) -> None:
        """Steps of so many rows from now on."""
        shape, self._rows = self._shape, num_rows
        self._buffers = [(torch.randn(num_rows, k), torch.empty(num_rows, n)) for n, k in shape.linear]
        self._x = torch.randn(num_rows, shape.conv)
        self._small = torch.rand(2, num_rows, shape.heads)
        self._step = [torch.tensor(part, dtype=torch.int32)
                      for part in ([0], [0, num_rows], [num_rows + 100])]
        self._out = torch.empty(num_rows, shape.heads * shape.width)

    def _packed(self, n: int, k: int) -> Any:
        codes = torch.randint(0, 16, (1, k), dtype=torch.uint8).expand(n, k).contiguous()
        scales = torch.full((n, k // 64), 0.01).half()
        return self._kernels.pack_linear(codes, scales, torch.full(scales.shape, 8, dtype=torch.uint8), 64)

    def linear(self) -> None:
        prompts = self._kernels.prompts if self._rows > 1 else None
        multiply = self._kernels.linear if prompts is None else prompts.prompt_linear
        for weights in self._weights:
            for weight, (x, out) in zip(weights, self._buffers, strict=True):
                multiply(x, weight, out)

    def convolve(self) -> None:
        for _ in range(_LAYERS):
            self._kernels.short_conv(self._x, self._conv, None, self._conv_states, *self._step, self._x,
                                     "silu")

    def recur(self) -> None:
        shape = self._shape
        values, keys = shape.heads * shape.width, shape.key_heads * shape.depth
        for states in self._states:
            if shape.kind == "gated_delta":
                q, k, v = self._x.split((keys, keys, values), dim=1)
                decay, beta = -self._small[0], self._small[1]
                self._kernels.gated_delta(q, k, v, decay, beta, states, *self._step, self._out)
            elif shape.kind == "mamba2":
                x, b, c = self._x.split((values, keys, keys), dim=1)
                factor = -torch.ones(shape.heads)
                self._kernels.mamba2(x, b, c, self._small[0], factor, factor, states, *self._step,
                                     self._out)

    @property
    def operations(self) -> int:
        """Of recur(), a product and its sum being two: what cannot be left out."""
        of_number = {"gated_delta": 7, "mamba2": 5}.get(self._shape.kind, 0)
        return _LAYERS * self._rows * of_number * self._shape.state_bytes // 4


def cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(layers: Layers, name: str, num_rows: int, repeats: int) -> dict[str, Any]:
    """One shape: milliseconds of a layer, and the share of state and convolution in all of it."""
    layers.resize(num_rows)
    parts = {"linear": layers.linear, "conv": layers.convolve, "state": layers.recur}
    for work in parts.values():
        work()
    rounds = [{part: cpu_seconds(work) / _LAYERS for part, work in parts.items()} for _ in range(repeats)]
    result = {"shape": name, "kind": SHAPES[name].kind, "rows": num_rows,
              **{f"{part}_ms": spread([1e3 * each[part] for each in rounds]) for part in parts},
              "share": spread([1 - each["linear"] / sum(each.values()) for each in rounds])}
    state = result["state_ms"]["median"] / 1e3
    if layers.operations:
        result["state_gb_s"] = 2 * SHAPES[name].state_bytes / state / 1e9
        result["state_gflop_s"] = layers.operations / _LAYERS / state / 1e9
    return result


def table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'ms a layer':18}{'rows':>6}{'linear':>10}{'conv':>9}{'state':>10}{'share':>8}{'GB/s':>8}"
             f"{'GFLOP/s':>9}"]
    for row in results:
        linear, conv, state, share = (row[key]["median"]
                                      for key in ("linear_ms", "conv_ms", "state_ms", "share"))
        lines.append(f"{row['shape']:18}{row['rows']:6}{linear:10.3f}{conv:9.3f}{state:10.3f}{share:8.1%}"
                     f"{row.get('state_gb_s', 0):8.1f}{row.get('state_gflop_s', 0):9.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark.state_layers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--isa", help="as if the CPU had nothing better than this set")
    parser.add_argument("--json", type=path_option, metavar="FILE", help="write the results here, too")
    options = parser.parse_args()
    kernels: Any = load_kernels()
    kernels.force_isa(options.isa)
    results = []
    for name, shape in SHAPES.items():
        layers = Layers(kernels, shape)
        results += [measure(layers, name, rows, options.repeats) for rows in (1, 512)]
    print(table(results))
    if options.json:
        report = report_of("tools.benchmark.state_layers", sys.argv[1:], kernels) | {"results": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
