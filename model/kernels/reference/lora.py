"""Low-rank products beside weights in plain torch: see reference/operations.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.kernels.lora import LoraSegment, check_segments


def pack_lora(adapters: Sequence[Sequence[LoraSegment]], n: int, k: int,
              room: int = 0) -> list[Sequence[LoraSegment]]:
    """For `lora`: what each adapter adds to what a weight [n, k] gives. `room`: how many there may be with
    those that `put_lora` brings. Raises ValueError."""
    check_segments(adapters, n, k)
    return [*adapters, *([] for _ in range(room - len(adapters)))]


def put_lora(weight: list[Sequence[LoraSegment]], number: int, segments: Sequence[LoraSegment]) -> None:
    """What the adapter of this number adds from now on."""
    weight[number] = segments


def lora(x: Tensor, row_adapters: Tensor, weight: list[Sequence[LoraSegment]], out: Tensor,
         norm: Tensor | None = None, eps: float = 0.0) -> None:
    """out += what the adapter of each row adds; a row's result does not depend on the other rows.

    x             float32 [T, k], any row stride
    row_adapters  int32 [T]: numbers of `weight`; negative: nothing is added
    weight        of pack_lora
    out           float32 [T, n], any row stride
    norm          float32 [k] or None: x / sqrt(mean(x^2) + eps) * norm takes x's place
    """
    if norm is not None:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * norm
    for number, segments in enumerate(weight):
        rows = (row_adapters == number).nonzero()[:, 0]
        for segment in segments if len(rows) else ():
            added = x[rows] @ segment.down.float().T @ segment.up.float().T * segment.scale
            out[rows, segment.first:segment.first + len(segment.up)] += added
