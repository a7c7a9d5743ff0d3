"""Numbers rounded to groups of 4- or 8-bit codes: what round_groups of every device means, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from model.kernels.groups import Groups

SIZE = 32
"""Columns that share a scale."""
BITS = (4, 8)
_CANDIDATES = {4: (0.70, 0.025), 8: (0.97, 0.002)}
"""What part of the codes' range the largest number takes: first of 16, and the step to the next."""
_LEAST = 1e-30


def round_groups(values: Tensor, bits: int) -> Groups:
    """The nearest codes around 2^(bits - 1) for float32 [n, k]; 32 divides k.

    Of 16 steps for each group it takes the one that loses least. For given codes c of numbers x the best step
    is sum(x * c) / sum(c^2), and it lowers the sum of squared errors by sum(x * c)^2 / sum(c^2).
    """
    check_rounded(values, bits)
    n, k = values.shape
    groups, middle = values.view(-1, SIZE), 1 << bits - 1
    largest = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    best, scales = torch.full_like(largest, -1.0), torch.zeros_like(largest)
    first, step = _CANDIDATES[bits]
    for index in range(16):
        inverse = (-middle * (first + step * index) / largest).where(largest.abs() > _LEAST, 0.0)
        codes = (groups * inverse).round().clamp(-middle, middle - 1)
        products, squares = (groups * codes).sum(1, keepdim=True), codes.square().sum(1, keepdim=True)
        gain = (products * (products / squares)).where(squares > 0, 0.0)
        scales = torch.where(gain > best, (products / squares).where(squares > 0, 0.0), scales)
        best = torch.maximum(best, gain)
    halves = scales.to(torch.float16)
    steps = halves.float()
    codes = (groups / steps).where(steps != 0, 0.0).round().clamp(-middle, middle - 1) + middle
    return Groups(codes.to(torch.uint8).view(n, k), bits, SIZE, halves.view(n, -1), middle)


def check_rounded(values: Tensor, bits: int) -> None:
    """Raise ValueError for what cannot be rounded."""
    if bits not in BITS:
        raise ValueError(f"bits is {bits}; expected 4 or 8")
    if values.dtype != torch.float32 or values.ndim != 2 or values.shape[1] % SIZE or not values.numel():
        raise ValueError(f"values are {values.dtype} {tuple(values.shape)}; expected float32 [n, k], k a "
                         f"multiple of {SIZE}")
