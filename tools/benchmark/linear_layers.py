"""The linear kernels alone, on the shapes of TinyLlama-1.1B: what --kernels measures."""

from __future__ import annotations

from typing import Any

import torch

from tools.benchmark.limits import Limits, spread, timed

SHAPES = {"qkv": (2560, 2048), "o": (2048, 2048), "gate_up": (11264, 2048), "down": (2048, 5632)}
"""n, k of TinyLlama-1.1B: hidden 2048, intermediate 5632, keys and values 256 each."""
NUM_LAYERS = 22
_FEW_ROWS = 8
"""Up to here reading the weights takes longer than multiplying by them on the machines seen so far."""


def random_layers(kernels: Any, group_size: int) -> list[list[Any]]:
    """Packed weights of all layers, each in memory of its own; a shape's random codes are drawn once."""
    layers: list[list[Any]] = [[] for _ in range(NUM_LAYERS)]
    for n, k in SHAPES.values():
        groups = -(-k // group_size)
        codes = torch.randint(0, 16, (n, k), dtype=torch.uint8)
        scales = (torch.rand(n, groups) * 0.01 + 0.01).half()
        zeros = torch.full((n, groups), 8, dtype=torch.uint8)
        for layer in layers:
            layer.append(kernels.pack_linear(codes, scales, zeros, group_size))
    return layers


def measure_layers(kernels: Any, limits: Limits, rows: list[int], group_size: int, repeats: int,
                   ) -> list[dict[str, Any]]:
    """All linear layers in order, once for each number of rows, in turn with the limit.

    Each layer has its own weights, so that no cache holds them.
    """
    layers = random_layers(kernels, group_size)
    nbytes = sum(weight.nbytes for layer in layers for weight in layer)
    operations = 2 * sum(weight.n * weight.k for layer in layers for weight in layer)
    results = []
    for m in rows:
        buffers = [(torch.randn(m, k), torch.empty(m, n)) for n, k in SHAPES.values()]

        def step(buffers: list[tuple[torch.Tensor, torch.Tensor]] = buffers) -> None:
            for layer in layers:
                for weight, (x, out) in zip(layer, buffers, strict=True):
                    kernels.linear(x, weight, out)

        step()
        few = m <= _FEW_ROWS
        unit, total = ("GB/s", nbytes / 1e9) if few else ("TOP/s", m * operations / 1e12)
        limit_now = limits.read_gb_s if few else limits.products_top_s
        pairs = [(limit_now(), total / timed(step)) for _ in range(repeats)]
        results.append({
            "what": f"linear layers, {m} rows", "unit": unit,
            "tokens_per_second": spread([m * done / total for _, done in pairs]),
            "achieved": spread([done for _, done in pairs]),
            "limit": spread([limit for limit, _ in pairs]),
            "share": spread([done / limit for limit, done in pairs])})
    return results
