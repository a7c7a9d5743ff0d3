"""Weights that are floats of 8 bits: what pack_float8 takes, and what it means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OUTPUTS = 16
"""That share the scales of their columns: a row block of the kernels."""


@dataclass(frozen=True)
class Float8:
    """A weight [n, k]: weight = value * factor of the output * scale of 16 outputs and `size` columns."""

    values: Tensor                  # float8_e4m3fn [n, k], none of them NaN
    factors: Tensor                 # float32 [n]
    scales: Tensor | None = None    # float32 [ceil(n / 16), ceil(k / size)]; None: size is k
    size: int = 0                   # a multiple of 32, or k

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.factors.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def dequantize(self) -> Tensor:
        """float32 [n, k]."""
        n, k = self.values.shape
        weight = self.values.float()
        weight *= self.factors.unsqueeze(-1)
        if self.scales is not None:
            weight *= self.scales.repeat_interleave(OUTPUTS, 0)[:n].repeat_interleave(self.size, 1)[:, :k]
        return weight


def check_float8(weight: Float8) -> None:
    """Raise ValueError if the parts do not fit together."""
    values, size = weight.values, weight.size
    if values.dtype != torch.float8_e4m3fn or values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"values are {values.dtype} {tuple(values.shape)}; expected float8_e4m3fn [n, k]")
    n, k = values.shape
    if weight.factors.dtype != torch.float32 or tuple(weight.factors.shape) != (n,):
        raise ValueError(f"factors are {weight.factors.dtype} {tuple(weight.factors.shape)}; expected "
                         f"float32 [{n}]")
    if weight.scales is None:
        if size != k:
            raise ValueError(f"size is {size}; expected {k} without scales")
        return
    if size % 32 or not 0 < size < k:
        raise ValueError(f"size is {size}; expected a multiple of 32 below {k}")
    shape = (-(-n // OUTPUTS), -(-k // size))
    if weight.scales.dtype != torch.float32 or tuple(weight.scales.shape) != shape:
        raise ValueError(f"scales are {weight.scales.dtype} {tuple(weight.scales.shape)}; expected float32 "
                         f"{shape}")
