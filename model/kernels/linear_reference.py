"""The linear layer in plain torch: what every linear kernel is tested against.

Same functions and arguments as the compiled ones (linear.py), but the weight is kept dequantized in
float32 and activations are never rounded. Knows nothing of packing, threads or instruction sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DENSE_KINDS = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}
QUANTIZED_KINDS = {4: "q4", 8: "q8"}
EPILOGUES = ("store", "add", "silu_mul", "gate")
"""In the order of PARLOR_EPILOGUE_* in kernels.h."""


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


def check_quantized(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor,
    group_size: int,
    bits: int,
    perm: Tensor | None,
    bias: Tensor | None,
) -> None:
    """Raise ValueError if the parts of a quantized weight do not fit together."""
    if bits not in QUANTIZED_KINDS:
        raise ValueError(f"bits is {bits}; supported: 4 and 8 (store 2- and 3-bit codes as 4-bit ones)")
    if codes.dtype != torch.uint8 or codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes are {codes.dtype} {tuple(codes.shape)}; expected uint8 [n, k], n and k > 0")
    n, k = codes.shape
    if group_size != -1 and group_size < 1:
        raise ValueError(f"group_size is {group_size}; expected a positive number, or -1 for all columns")
    size = k if group_size == -1 else group_size
    groups = (n, -(-k // size))
    if scales.dtype != torch.float16 or tuple(scales.shape) != groups:
        raise ValueError(f"scales are {scales.dtype} {tuple(scales.shape)}; expected float16 {groups}")
    if zeros.dtype not in (torch.uint8, torch.float16) or tuple(zeros.shape) != groups:
        raise ValueError(f"zeros are {zeros.dtype} {tuple(zeros.shape)}; expected uint8 or float16 {groups}")
    if bits == 4 and int(codes.max()) > 15:
        raise ValueError(f"the largest code is {int(codes.max())}; 4-bit codes end at 15")
    check_perm_and_bias(n, k, perm, bias)


def check_dense(weight: Tensor, bias: Tensor | None) -> None:
    """Raise ValueError if a dense weight has another dtype or shape than the kernels take."""
    if weight.dtype not in DENSE_KINDS or weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(
            f"weight is {weight.dtype} {tuple(weight.shape)}; expected float16, bfloat16 or float32 [n, k]"
        )
    check_perm_and_bias(weight.shape[0], weight.shape[1], None, bias)


def check_perm_and_bias(n: int, k: int, perm: Tensor | None, bias: Tensor | None) -> None:
    """Raise ValueError unless perm is a permutation of 0..k-1 (int32) and bias float32 [n]."""
    if perm is not None:
        if perm.dtype != torch.int32 or tuple(perm.shape) != (k,):
            raise ValueError(f"perm is {perm.dtype} {tuple(perm.shape)}; expected int32 [{k}]")
        if not torch.equal(perm.sort().values, torch.arange(k, dtype=torch.int32, device=perm.device)):
            raise ValueError(f"perm does not hold each of 0..{k - 1} once")
    if bias is not None and (bias.dtype != torch.float32 or tuple(bias.shape) != (n,)):
        raise ValueError(f"bias is {bias.dtype} {tuple(bias.shape)}; expected float32 [{n}]")


def check_linear(x: Tensor, n: int, k: int, out: Tensor, norm: Tensor | None, epilogue: str) -> None:
    """Raise ValueError unless the arguments of linear() fit a weight [n, k]; rows are contiguous."""
    if epilogue not in EPILOGUES:
        raise ValueError(f"epilogue is {epilogue!r}; expected one of {', '.join(EPILOGUES)}")
    if epilogue == "silu_mul" and n % 2:
        raise ValueError(f"silu_mul takes gate and up from one weight; {n} outputs are not an even number")
    columns_out = n // 2 if epilogue == "silu_mul" else n
    for name, tensor, columns in (("x", x, k), ("out", out, columns_out)):
        if tensor.dtype != torch.float32 or tensor.ndim != 2 or tensor.shape[1] != columns:
            raise ValueError(
                f"{name} is {tensor.dtype} {list(tensor.shape)}; expected float32 [m, {columns}]"
            )
        if columns > 1 and tensor.stride(1) != 1:
            raise ValueError(f"{name} has column stride {tensor.stride(1)}; expected 1 (rows may be strided)")
    if x.shape[0] != out.shape[0]:
        raise ValueError(f"x has {x.shape[0]} rows, out has {out.shape[0]}; expected as many")
    if norm is not None and (norm.dtype != torch.float32 or tuple(norm.shape) != (k,)
                             or not norm.is_contiguous()):
        raise ValueError(f"norm is {norm.dtype} {list(norm.shape)}; expected float32 [{k}]")


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


def pack_dense(weight: Tensor, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
    """A dense weight [n, k] of float16, bfloat16 or float32. Raises ValueError for anything else."""
    check_dense(weight, bias)
    return LinearWeight(DENSE_KINDS[weight.dtype], weight.float(), bias, None, weight.nbytes)


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
