"""Weights in small groups: what pack_groups takes, and what it means.

A scale for 16, 32 or more columns, in one or two levels, and a zero point or a minimum, as GGML's types have
them, or codes into a table, as FP4 and NF4 have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

STEP_COLUMNS = 256
"""That share a step."""
TABLE_ZEROS = {"t4": 1 << 7, "w4": 1 << 14}
"""Added to the values of a table, so that none is negative: of 8 bits, and of 15."""
SCALE_KINDS = (torch.float16, torch.int8, torch.float8_e8m0fnu, torch.float8_e4m3fn)
"""In the order of PARLOR_SCALE_* in kernels.h."""
_PARTS = ("codes", "scales", "mins", "steps", "min_steps", "factors")
"""Of Groups, a row for each output."""


@dataclass(frozen=True)
class Groups:
    """A weight [n, k] in groups of `size` columns.

    weight = ((value - zero) * scale * step - minimum * min_step) * factor; value = table[code] if there is a
    table, else code.
    """

    codes: Tensor                  # uint8 [n, k]
    bits: int
    size: int
    scales: Tensor                 # [n, groups] float16; int8 and then times `steps`; or one of 8 bits
    zero: int = 0                  # the same for all
    mins: Tensor | None = None     # float16 [n, groups], or uint8 and then times `min_steps`
    steps: Tensor | None = None    # float16 [n, k / 256]
    min_steps: Tensor | None = None
    table: tuple[int, ...] | None = None  # 16 numbers from -128 to 127, or from -16,383 to 16,383
    factors: Tensor | None = None  # float32 [n]: with scales of 8 bits that are no steps, and large tables

    @property
    def kind(self) -> str:
        """As the kernels name it, after PARLOR_LINEAR_*."""
        if self.table is not None:
            return "t4" if all(-128 <= value <= 127 for value in self.table) else "w4"
        return f"{'q' if self.is_plain else 'g'}{self.bits}"

    @property
    def is_plain(self) -> bool:
        """Nothing but codes around one zero point, with a float16 scale each group."""
        return self.bits in (4, 8) and self.mins is None and self.steps is None and self.table is None

    @property
    def has_factors(self) -> bool:
        return self.kind == "w4" or SCALE_KINDS.index(self.scales.dtype) > 1

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """All that is kept beside the codes."""
        parts = (self.scales, self.mins, self.steps, self.min_steps, self.factors)
        return tuple(part for part in parts if part is not None)

    def rows(self, first: int, last: int) -> Groups:
        """The outputs first .. last - 1."""
        return self._each(lambda part: part[first:last])

    def chosen(self, outputs: Tensor) -> Groups:
        """These outputs, in this order. outputs: int64 [m]"""
        return self._each(lambda part: part[outputs.to(part.device)])

    def _each(self, of: Callable[[Tensor], Tensor]) -> Groups:
        return replace(self, **{name: of(part) for name in _PARTS
                                if (part := getattr(self, name)) is not None})

    @property
    def form(self) -> tuple[object, ...]:
        """What must agree between weights that are packed as one."""
        return (self.bits, self.size, self.zero, self.table, self.scales.dtype, self.mins is None,
                self.codes.shape[1])

    def dequantize(self) -> Tensor:
        """float32 [n, k], as ggml computes it: scale * step first."""
        values = self.codes.float() - self.zero if self.table is None \
            else torch.tensor(self.table, dtype=torch.float32, device=self.codes.device)[self.codes.int()]
        n, k = self.codes.shape
        values = values.view(n, -1, self.size) * self._scales().unsqueeze(-1)
        if self.mins is not None:
            values = values - self._mins().unsqueeze(-1)
        return values.view(n, k)

    def widened(self) -> tuple[Tensor, Tensor, Tensor, int] | Tensor:
        """(codes, scales, zeros, bits) of pack_linear, or the weight in float16 where the table is large.

        Codes take 4 or 8 bits; products of two scales, and minimums divided by them, are rounded to float16.
        """
        if self.kind == "w4":
            return self.dequantize().to(torch.float16)
        codes, zero = self.codes, self.zero
        if self.table is not None:
            zero = TABLE_ZEROS["t4"]
            values = torch.tensor(self.table, device=codes.device) + zero
            codes = values.to(torch.uint8)[codes.int()]
        scales = self._scales()
        zeros = torch.full(scales.shape, zero, dtype=torch.uint8, device=codes.device)
        if self.mins is not None:
            mins = self._mins()
            flat = scales.to(torch.float16) == 0  # all weights of such a group are -minimum: code 0, zero 1
            codes = torch.where(flat.repeat_interleave(self.size, 1), 0, codes)
            zeros = torch.where(flat, 1.0, zero + mins / torch.where(flat, 1.0, scales)).to(torch.float16)
            scales = torch.where(flat, mins, scales)
        return codes, scales.to(torch.float16), zeros, self.widened_bits

    @property
    def widened_bits(self) -> int:
        return 16 if self.kind == "w4" else 4 if self.bits <= 4 and self.table is None else 8

    def _scales(self) -> Tensor:
        """float32 [n, groups], steps and factors in them."""
        scales = self._product(self.scales, self.steps)
        return scales if self.factors is None else scales * self.factors.unsqueeze(-1)

    def _mins(self) -> Tensor:
        assert self.mins is not None
        return self._product(self.mins, self.min_steps)

    def _product(self, numbers: Tensor, steps: Tensor | None) -> Tensor:
        """float32 [n, groups]."""
        if steps is None:
            return numbers.float()
        return numbers.float() * steps.float().repeat_interleave(STEP_COLUMNS // self.size, 1)


@dataclass(frozen=True)
class GroupRows:
    """A weight [n, k] that is never there as a whole: its rows are read as they are packed."""

    n: int
    first: Groups                        # of one row: what all have in common
    read: Callable[[int, int], Groups]   # read(first, last): those rows

    @property
    def k(self) -> int:
        return self.first.codes.shape[1]

    @classmethod
    def of(cls, groups: Groups) -> GroupRows:
        return cls(len(groups.codes), groups.rows(0, 1), groups.rows)


def stacked(parts: Sequence[GroupRows]) -> GroupRows:
    """The rows of weights of one form, one after the other."""
    def read(first: int, last: int) -> Groups:
        found, start = [], 0
        for part in parts:
            begin, end = max(first - start, 0), min(last - start, part.n)
            if begin < end:
                found.append(part.read(begin, end))
            start += part.n
        return found[0] if len(found) == 1 else _joined(found)

    return GroupRows(sum(part.n for part in parts), parts[0].first, read)


def _joined(found: Sequence[Groups]) -> Groups:
    def all_of(name: str) -> Tensor | None:
        parts = [part for groups in found if (part := getattr(groups, name)) is not None]
        return torch.cat(parts) if parts else None

    return replace(found[0], **{name: all_of(name) for name in _PARTS})


def check_groups(groups: Groups) -> None:
    """Raise ValueError if the parts do not fit together."""
    codes = groups.codes
    if codes.dtype != torch.uint8 or codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes are {codes.dtype} {tuple(codes.shape)}; expected uint8 [n, k], n and k > 0")
    n, k = codes.shape
    if groups.table is not None and (groups.bits != 4 or len(groups.table) != 16
                                     or max(map(abs, groups.table)) >= TABLE_ZEROS["w4"]):
        raise ValueError(f"a table of {len(groups.table)} values for {groups.bits} bits; expected 16 for 4, "
                         "none beyond 16,383")
    _check_size(groups, k)
    dtype = groups.scales.dtype
    if dtype not in SCALE_KINDS or (dtype == torch.int8) != (groups.steps is not None):
        raise ValueError(f"scales are {dtype}; expected int8 with steps, else float16 or floats of 8 bits")
    if groups.has_factors and groups.kind != "w4" and (groups.table is None or groups.mins is not None):
        raise ValueError(f"scales are {dtype}; expected them with a table only")
    mins = torch.float16 if groups.steps is None else torch.uint8
    shape, steps = (n, k // groups.size), (n, k // STEP_COLUMNS)
    for name, part, wanted, expected in (("scales", groups.scales, dtype, shape),
                                        ("mins", groups.mins, mins, shape),
                                        ("steps", groups.steps, torch.float16, steps),
                                        ("min_steps", groups.min_steps, torch.float16, steps),
                                        ("factors", groups.factors, torch.float32, (n,))):
        if part is not None and (part.dtype != wanted or tuple(part.shape) != expected):
            raise ValueError(f"{name} are {part.dtype} {tuple(part.shape)}; expected {wanted} {expected}")
    if (groups.factors is not None) != groups.has_factors:
        raise ValueError(f"factors belong to scales of 8 bits and tables of 15, not to {groups.kind}")
    if (groups.mins is not None and groups.steps is not None) != (groups.min_steps is not None):
        raise ValueError("min_steps belong to minimums in two levels, and only to those")
    if not 2 <= groups.bits <= 8 or int(codes.max()) >= 1 << groups.bits:
        raise ValueError(f"the largest code is {int(codes.max())}; {groups.bits}-bit codes end at "
                         f"{(1 << groups.bits) - 1}")


def _check_size(groups: Groups, k: int) -> None:
    size = groups.size
    is_whole = size >= 32 and size & (size - 1) == 0 and k % max(size, 1) == 0 if groups.kind == "w4" \
        else size in (16, 32)
    if not is_whole or k % 32 or (groups.steps is not None and k % STEP_COLUMNS):
        raise ValueError(f"{k} columns in groups of {size}; expected groups of 16 or 32 that fill "
                         f"units of 32 columns, and with steps of {STEP_COLUMNS}; with a table of 15 bits "
                         "any power of two that divides the columns")
