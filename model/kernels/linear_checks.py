"""Whether the arguments of linear operations fit together: one check for the reference and the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

DENSE_KINDS = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}
QUANTIZED_KINDS = {4: "q4", 8: "q8"}
EPILOGUES = ("store", "add", "silu_mul", "gate")
"""In the order of PARLOR_EPILOGUE_* in kernels.h."""


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
