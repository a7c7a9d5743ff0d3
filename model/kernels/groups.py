"""Weights in small groups: what pack_groups takes, and what it means.

A scale for 16 or 32 columns, in one or two levels, and a zero point or a minimum, as GGML's types have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STEP_COLUMNS = 256
"""That share a step."""
TABLE_ZERO = 128
"""Added to the values of a table, so that codes are not negative."""


@dataclass(frozen=True)
class Groups:
    """A weight [n, k] in groups of `size` columns.

    weight = (value - zero) * scale * step - minimum * min_step; value = table[code] if there is a table,
    else code.
    """

    codes: Tensor                  # uint8 [n, k]
    bits: int
    size: int
    scales: Tensor                 # float16 [n, groups], or int8 and then times `steps`
    zero: int = 0                  # the same for all
    mins: Tensor | None = None     # float16 [n, groups], or uint8 and then times `min_steps`
    steps: Tensor | None = None    # float16 [n, k / 256]
    min_steps: Tensor | None = None
    table: tuple[int, ...] | None = None  # 16 numbers from -128 to 127

    @property
    def kind(self) -> str:
        """As the kernels name it, after PARLOR_LINEAR_*."""
        letter = "q" if self.is_plain else "g" if self.table is None else "t"
        return f"{letter}{self.bits}"

    @property
    def is_plain(self) -> bool:
        """Nothing but codes around one zero point, with a float16 scale each group."""
        return self.bits in (4, 8) and self.mins is None and self.steps is None and self.table is None

    def dequantize(self) -> Tensor:
        """float32 [n, k], as ggml computes it: scale * step first."""
        values = self.codes.float() - self.zero if self.table is None \
            else torch.tensor(self.table, dtype=torch.float32, device=self.codes.device)[self.codes.int()]
        n, k = self.codes.shape
        values = values.view(n, -1, self.size) * self._scales().unsqueeze(-1)
        if self.mins is not None:
            values = values - self._mins().unsqueeze(-1)
        return values.view(n, k)

    def widened(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """(codes, scales, zeros, bits) of pack_linear.

        Codes take 4 or 8 bits; products of two scales, and minimums divided by them, are rounded to float16.
        """
        codes, zero = self.codes, self.zero
        if self.table is not None:
            values = torch.tensor(self.table, device=codes.device) + TABLE_ZERO
            codes, zero = values.to(torch.uint8)[codes.int()], TABLE_ZERO
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
        return 4 if self.bits <= 4 and self.table is None else 8

    def table_bytes(self) -> list[int]:
        """What the kernels look up: values + 128."""
        return [value + TABLE_ZERO for value in self.table or ()]

    def _scales(self) -> Tensor:
        return self._product(self.scales, self.steps)

    def _mins(self) -> Tensor:
        assert self.mins is not None
        return self._product(self.mins, self.min_steps)

    def _product(self, numbers: Tensor, steps: Tensor | None) -> Tensor:
        """float32 [n, groups]."""
        if steps is None:
            return numbers.float()
        return numbers.float() * steps.float().repeat_interleave(STEP_COLUMNS // self.size, 1)


def check_groups(groups: Groups) -> None:
    """Raise ValueError if the parts do not fit together."""
    codes = groups.codes
    if codes.dtype != torch.uint8 or codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes are {codes.dtype} {tuple(codes.shape)}; expected uint8 [n, k], n and k > 0")
    n, k = codes.shape
    if groups.size not in (16, 32) or k % 32 or (groups.steps is not None and k % STEP_COLUMNS):
        raise ValueError(f"{k} columns in groups of {groups.size}; expected groups of 16 or 32 that fill "
                         f"units of 32 columns, and with steps of {STEP_COLUMNS}")
    levels = (torch.float16, torch.float16) if groups.steps is None else (torch.int8, torch.uint8)
    shape, steps = (n, k // groups.size), (n, k // STEP_COLUMNS)
    for name, part, dtype, expected in (("scales", groups.scales, levels[0], shape),
                                        ("mins", groups.mins, levels[1], shape),
                                        ("steps", groups.steps, torch.float16, steps),
                                        ("min_steps", groups.min_steps, torch.float16, steps)):
        if part is not None and (part.dtype != dtype or tuple(part.shape) != expected):
            raise ValueError(f"{name} are {part.dtype} {tuple(part.shape)}; expected {dtype} {expected}")
    if (groups.mins is not None and groups.steps is not None) != (groups.min_steps is not None):
        raise ValueError("min_steps belong to minimums in two levels, and only to those")
    if groups.table is not None and (groups.bits != 4 or len(groups.table) != 16):
        raise ValueError(f"a table of {len(groups.table)} values for {groups.bits} bits; expected 16 for 4")
    if not 2 <= groups.bits <= 8 or int(codes.max()) >= 1 << groups.bits:
        raise ValueError(f"the largest code is {int(codes.max())}; {groups.bits}-bit codes end at "
                         f"{(1 << groups.bits) - 1}")
