"""Linear layers in the compiled library: packing weights once, multiplying by them.

The meaning of every function is reference/linear.py; the packed layout is cpu/linear/linear.h. Knows
tensors and the C interface, nothing of checkpoints, layers or models.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.kernels.binding import Library
from model.kernels.float8 import Float8, check_float8
from model.kernels.groups import SCALE_KINDS, TABLE_ZEROS, GroupRows, Groups, check_groups
from model.kernels.linear_checks import (
    DENSE_KINDS,
    EPILOGUES,
    QUANTIZED_KINDS,
    check_dense,
    check_linear,
    check_perm_and_bias,
    check_quantized,
)
from model.kernels.rounding import SIZE, check_rounded

KINDS = ("q4", "q8", "f16", "bf16", "f32", "g2", "g3", "g4", "g5", "g6", "t4", "w4", "f8")
"""In the order of PARLOR_LINEAR_* in kernels.h."""
ZERO_ONE, ZERO_U8, ZERO_F16, ZERO_MIN = range(4)
"""PARLOR_ZERO_* in kernels.h."""
ALIGNMENT = 64
HUGE_PAGE = 2 << 20
ARENA_BYTES = 64 << 20
"""Weights share buffers of this size, so that small ones lie on huge pages too."""
ROW_UNIT = 16
"""Rows that are packed together."""
CODES_AT_A_TIME = 1 << 19
"""That are unpacked before they are packed: few enough for a cache."""


_PARTS = ("codes", "scales", "zeros", "blocks", "spans", "steps", "min_steps", "factors", "block_scales")
"""Of a WeightStruct, that lie in the packed buffer."""


class WeightStruct(ctypes.Structure):
    """`struct linear_weight` of kernels.h, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n", "k", "group_size")),
        *((name, ctypes.c_int32) for name in ("kind", "zero_kind", "zero", "exact", "scale_kind")),
        ("table", ctypes.c_uint16 * 16),
        *((name, ctypes.c_void_p) for name in ("bias", "perm")),
        *((name, ctypes.c_int64) for name in ("padded_k", "num_groups", "num_blocks", "num_spans", "nbytes")),
        *((name, ctypes.c_void_p) for name in _PARTS),
    ]


@dataclass(frozen=True)
class LinearWeight:
    """A packed weight [n, k]. `struct` is what the C functions take; the tensors keep its memory alive."""

    struct: WeightStruct
    buffer: Tensor
    bias: Tensor | None
    perm: Tensor | None

    @property
    def n(self) -> int:
        return self.struct.n

    @property
    def k(self) -> int:
        return self.struct.k

    @property
    def kind(self) -> str:
        return KINDS[self.struct.kind]

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weight, bias and perm included."""
        return sum(t.nbytes for t in (self.buffer, self.bias, self.perm) if t is not None)

    def record(self) -> bytes:
        """What `rebuilt` wants beside the tensors: the struct, with places in the buffer for addresses."""
        struct = WeightStruct.from_buffer_copy(self.struct)
        for name in _PARTS:
            address = getattr(self.struct, name)
            setattr(struct, name, None if address is None else address - self.buffer.data_ptr() + 1)
        struct.bias = struct.perm = None
        return bytes(struct)

    @classmethod
    def rebuilt(cls, record: bytes, buffer: Tensor, bias: Tensor | None, perm: Tensor | None) -> LinearWeight:
        """A weight that was packed elsewhere, from copies of its tensors; `buffer` is aligned as packed ones.
        """
        struct = WeightStruct.from_buffer_copy(record)
        for name in _PARTS:
            place = getattr(struct, name)
            setattr(struct, name, None if place is None else buffer.data_ptr() + place - 1)
        struct.bias, struct.perm = (None if part is None else part.data_ptr() for part in (bias, perm))
        return cls(struct, buffer, bias, perm)

    def hollow(self) -> LinearWeight:
        """Its sizes without its memory; not to be multiplied by."""
        struct = WeightStruct(n=self.n, k=self.k, kind=self.struct.kind)
        return LinearWeight(struct, torch.empty(0), None, None)


class LinearOperations:
    """pack_linear, pack_dense and linear; the class that inherits them has loaded the library."""

    stream: Any = None
    """What the C functions get as their last argument."""
    library: Library
    call: Callable[..., None]
    """call(name, *arguments): a C function, tensors standing for their addresses; raises on an error code."""
    _arena: Tensor | None = None
    _arena_used = 0

    def pack_linear(
        self,
        codes: Tensor,
        scales: Tensor,
        zeros: Tensor,
        group_size: int,
        bits: int = 4,
        perm: Tensor | None = None,
        bias: Tensor | None = None,
        exact: bool = False,
    ) -> LinearWeight:
        """Pack a quantized weight: weight[n][j] = (codes[n][j] - zeros[n][g]) * scales[n][g].

        g       j // group_size
        codes   uint8 [n, k], one code a byte, columns sorted by group
        scales  float16 [n, groups];  zeros  uint8 or float16 [n, groups];  group_size -1: one group
        perm    int32 [k]: column j multiplies x[perm[j]] (act-order);  bias  float32 [n]
        exact   activations stay float32; otherwise they are rounded to 12 bits in spans of 256 columns
        Raises ValueError if the parts do not fit together.
        """
        check_quantized(codes, scales, zeros, group_size, bits, perm, bias)
        size = codes.shape[1] if group_size == -1 else min(group_size, codes.shape[1])
        zero_kind, zero, zeros = _simplest_zeros(zeros)
        struct = _new_struct(codes, QUANTIZED_KINDS[bits], exact, bias, perm)
        struct.group_size, struct.zero_kind, struct.zero = size, zero_kind, zero
        sources = [t.contiguous() for t in (codes, scales, zeros)]
        return self._pack("linear_pack_quantized", struct, sources, bias, perm)

    def pack_groups(self, groups: Groups, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
        """Pack a weight in small groups; its parts are kept as they are.

        bias   float32 [n]
        exact  as in pack_linear
        Raises ValueError if the parts do not fit together.
        """
        check_groups(groups)
        return self._pack_group_rows(GroupRows.of(groups), bias, exact, len(groups.codes))

    def round_groups(self, values: Tensor, bits: int) -> Groups:
        """As rounding.round_groups."""
        check_rounded(values, bits)
        n, k = values.shape
        codes, scales = torch.empty(n, k, dtype=torch.uint8), torch.empty(n, k // SIZE)
        self.call("linear_round", values.contiguous(), scales.numel(), bits, codes, scales, self.stream)
        return Groups(codes, bits, SIZE, scales.to(torch.float16), 1 << bits - 1)

    def pack_group_rows(self, rows: GroupRows, bias: Tensor | None = None,
                        exact: bool = False) -> LinearWeight:
        """As pack_groups, of rows that are read some at a time: no more than those are there unpacked."""
        return self._pack_group_rows(rows, bias, exact, max(ROW_UNIT, CODES_AT_A_TIME // rows.k))

    def _pack_group_rows(self, rows: GroupRows, bias: Tensor | None, exact: bool,
                         at_once: int) -> LinearWeight:
        check_perm_and_bias(rows.n, rows.k, None, bias)
        struct = _group_struct(rows, exact, bias)
        self.call("linear_plan", ctypes.byref(struct))
        buffer = self._allocate(struct.nbytes)
        step = -(-at_once // ROW_UNIT) * ROW_UNIT
        for first in range(0, rows.n, step):
            groups = rows.read(first, min(rows.n, first + step))
            check_groups(groups)
            parts = (groups.codes, groups.scales, groups.mins, groups.steps, groups.min_steps, groups.factors)
            sources = [None if part is None else part.contiguous() for part in parts]
            self.call("linear_pack_groups", ctypes.byref(struct), first, len(groups.codes), *sources, buffer,
                      self.stream)
        return LinearWeight(struct, buffer, bias, None)

    def pack_dense(self, weight: Tensor, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
        """Pack a weight [n, k] of float16, bfloat16 or float32 in its own dtype. ValueError for others."""
        check_dense(weight, bias)
        struct = _new_struct(weight, DENSE_KINDS[weight.dtype], exact, bias, None)
        return self._pack("linear_pack_dense", struct, [weight.contiguous()], bias, None)

    def pack_float8(self, weight: Float8, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
        """Pack floats of 8 bits as they are. ValueError if the parts do not fit together."""
        check_float8(weight)
        check_perm_and_bias(*weight.values.shape, None, bias)
        struct = _new_struct(weight.values, "f8", exact, bias, None)
        struct.group_size = weight.size
        parts = (weight.values, weight.factors, weight.scales)
        sources = [None if part is None else part.contiguous() for part in parts]
        return self._pack("linear_pack_float8", struct, sources, bias, None)

    def linear(self, x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None = None,
               eps: float = 0.0, epilogue: str = "store") -> None:
        """y = x @ weight^T + bias, and what `epilogue` says: see reference.linear.linear().

        A row's result does not depend on the other rows. Raises ValueError if the shapes disagree.
        """
        self.multiply("linear", x, weight, out, norm, eps, epilogue)

    def multiply(self, function: str, x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None,
                 eps: float, epilogue: str, *more: int) -> None:
        """`linear` by a C function with its arguments and `more`."""
        check_linear(x, weight.n, weight.k, out, norm, epilogue)
        self.call(function, x, x.stride(0), len(x), norm, eps, ctypes.byref(weight.struct), out,
                  out.stride(0), EPILOGUES.index(epilogue), *more, self.stream)

    def _pack(
        self,
        function: str,
        struct: WeightStruct,
        sources: Sequence[Tensor | None],
        bias: Tensor | None,
        perm: Tensor | None,
    ) -> LinearWeight:
        self.call("linear_plan", ctypes.byref(struct))
        buffer = self._allocate(struct.nbytes)
        self.call(function, ctypes.byref(struct), *sources, buffer, self.stream)
        return LinearWeight(struct, buffer, bias, perm)

    def _allocate(self, nbytes: int) -> Tensor:
        """`nbytes` aligned bytes; a large weight gets a buffer of its own, others share one."""
        if nbytes >= ARENA_BYTES // 4:
            return self._new_buffer(nbytes)
        if self._arena is None or self._arena_used + nbytes > self._arena.numel():
            self._arena, self._arena_used = self._new_buffer(ARENA_BYTES), 0
        buffer = self._arena[self._arena_used : self._arena_used + nbytes]
        self._arena_used += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return buffer

    def _new_buffer(self, nbytes: int) -> Tensor:
        """uint8 [nbytes] from a huge page's start on, untouched; the system lends pages as they are used."""
        memory = torch.empty(nbytes + HUGE_PAGE, dtype=torch.uint8)
        start = -memory.data_ptr() % HUGE_PAGE
        self.call("advise_huge_pages", memory, memory.numel())
        return memory[start : start + nbytes]


def _new_struct(
    weight: Tensor, kind: str, exact: bool, bias: Tensor | None, perm: Tensor | None
) -> WeightStruct:
    n, k = weight.shape
    return WeightStruct(
        n=n,
        k=k,
        kind=KINDS.index(kind),
        exact=int(exact),
        bias=None if bias is None else bias.data_ptr(),
        perm=None if perm is None else perm.data_ptr(),
    )


def _group_struct(rows: GroupRows, exact: bool, bias: Tensor | None) -> WeightStruct:
    groups = rows.first
    struct = _new_struct(groups.codes, groups.kind, exact, bias, None)
    struct.n, struct.group_size = rows.n, groups.size
    struct.scale_kind = SCALE_KINDS.index(groups.scales.dtype)
    struct.zero_kind, struct.zero = (ZERO_ONE, groups.zero) if groups.mins is None else (ZERO_MIN, 0)
    if groups.table is not None:
        struct.zero = TABLE_ZEROS[groups.kind]
        struct.table = (ctypes.c_uint16 * 16)(*(value + struct.zero for value in groups.table))
    return struct


def _simplest_zeros(zeros: Tensor) -> tuple[int, int, Tensor]:
    """(kind, the one zero point, zeros) in the cheapest exact form: one number, else bytes, else float16."""
    whole = zeros.dtype == torch.uint8 or bool((zeros == zeros.round()).all())
    if not whole or not zeros.min() >= 0 or not zeros.max() <= 255:
        return ZERO_F16, 0, zeros.to(torch.float16)
    as_bytes = zeros.to(torch.uint8)
    if bool((as_bytes == as_bytes[0, 0]).all()):
        return ZERO_ONE, int(as_bytes[0, 0]), as_bytes
    return ZERO_U8, 0, as_bytes
