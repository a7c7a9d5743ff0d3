"""The linear layer in plain torch: what every linear kernel is tested against.

Same functions and arguments as the compiled ones (kernels/linear.py), but the weight is kept dequantized in
float32 and activations are never rounded. Knows nothing of packing, threads or instruction sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.kernels.float8 import Float8, check_float8
from model.kernels.groups import GroupRows, Groups, check_groups
from model.kernels.linear_checks import (
    DENSE_KINDS,
    QUANTIZED_KINDS,
    check_dense,
    check_linear,
    check_perm_and_bias,
    check_quantized,
)


@dataclass(frozen=True)
class LinearWeight:
    """A linear layer's weight as the reference keeps it: float32 [n, k], dequantized."""

    kind: str
    weight: Tensor
    bias: Tensor | None
    perm: Tensor | None
    nbytes: int

    @property
    def n(self) -> int:
        return self.weight.shape[0]

    @property
    def k(self) -> int:
        return self.weight.shape[1]


def dequantize(codes: Tensor, scales: Tensor, zeros: Tensor, group_size: int) -> Tensor:
    """Weights from codes: weight[n][k] = (codes[n][k] - zeros[n][g]) * scales[n][g], g = k // group_size.

    codes        uint8 [n, k]
    scales       float16 [n, groups], groups = ceil(k / group_size)
    zeros        uint8 or float16 [n, groups]
    group_size   columns that share a scale; -1 = all of them; the last group may be shorter
    returns      float32 [n, k]
    """
    k = codes.shape[1]
    size = k if group_size == -1 else group_size
    group = torch.arange(k, device=codes.device) // size
    return (codes.float() - zeros.float()[:, group]) * scales.float()[:, group]


def pack_linear(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor,
    group_size: int,
    bits: int = 4,
    perm: Tensor | None = None,
    bias: Tensor | None = None,
    exact: bool = False,
) -> LinearWeight:
    """A quantized weight; arguments as in dequantize(). `exact` changes nothing here: always exact.

    perm   int32 [k]: column j of codes multiplies x[perm[j]] (GPTQ's act-order, columns sorted by group)
    bias   float32 [n], added to every row of the product
    Raises ValueError if the parts do not fit together.
    """
    check_quantized(codes, scales, zeros, group_size, bits, perm, bias)
    weight = dequantize(codes, scales, zeros, group_size)
    nbytes = codes.numel() * bits // 8 + scales.nbytes + zeros.nbytes
    return LinearWeight(QUANTIZED_KINDS[bits], weight, bias, perm, nbytes)


def pack_groups(groups: Groups, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
    """A weight in small groups; its meaning is Groups.dequantize(). Raises ValueError if parts do not fit."""
    check_groups(groups)
    check_perm_and_bias(*groups.codes.shape, None, bias)
    nbytes = groups.codes.numel() * groups.bits // 8 + sum(part.nbytes for part in groups.numbers)
    return LinearWeight(groups.kind, groups.dequantize(), bias, None, nbytes)


def pack_group_rows(rows: GroupRows, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
    """pack_groups() of all rows."""
    return pack_groups(rows.read(0, rows.n), bias, exact)


def pack_dense(weight: Tensor, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
    """A dense weight [n, k] of float16, bfloat16 or float32. Raises ValueError for anything else."""
    check_dense(weight, bias)
    return LinearWeight(DENSE_KINDS[weight.dtype], weight.float(), bias, None, weight.nbytes)


def pack_float8(weight: Float8, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
    """Floats of 8 bits; their meaning is Float8.dequantize(). Raises ValueError if parts do not fit."""
    check_float8(weight)
    check_perm_and_bias(*weight.values.shape, None, bias)
    return LinearWeight("f8", weight.dequantize(), bias, None, weight.nbytes)


def linear(x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None = None, eps: float = 0.0,
           epilogue: str = "store") -> None:
    """y = x @ weight^T + bias, and what `epilogue` says.

    x         float32 [m, k], any row stride; column j of a permuted weight takes x[:, perm[j]]
    out       float32 [m, n], any row stride, not overlapping x
    norm      float32 [k] or None: x / sqrt(mean(x^2) + eps) * norm, row by row, takes x's place
    epilogue  store     out = y
              add       out += y
              silu_mul  out [m, n / 2] = silu(y[:, :n / 2]) * y[:, n / 2:], silu(a) = a / (1 + exp(-a))
              gate      out = silu(out) * y: where gate and up are weights of their own
    Raises ValueError if the shapes disagree.
    """
    check_linear(x, weight.n, weight.k, out, norm, epilogue)
    if norm is not None:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * norm
    product = (x if weight.perm is None else x[:, weight.perm.long()]) @ weight.weight.T
    if weight.bias is not None:
        product += weight.bias
    if epilogue == "add":
        out += product
    elif epilogue == "silu_mul":
        gate, up = product.chunk(2, dim=-1)
        out.copy_(torch.nn.functional.silu(gate) * up)
    elif epilogue == "gate":
        out.copy_(torch.nn.functional.silu(out) * product)
    else:
        out.copy_(product)
