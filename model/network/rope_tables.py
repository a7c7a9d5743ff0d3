"""Cosines and sines of every position, as the kernels take them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.families.rope import frequencies
from model.families.spec import QueryScale, Rope


class RopeTables(NamedTuple):
    """What `rope_write_kv` takes."""

    cos: Tensor        # float32 [rows, dim / 2]
    sin: Tensor        # the same
    interleaved: bool


def rope_tables(rope: Rope, max_seq_len: int, device: torch.device, long_length: int = 0) -> RopeTables:
    """float32 [max_seq_len, dim / 2] each; angles in float32, as transformers computes them.

    long_length  not 0: another max_seq_len rows follow, for sequences of so many tokens
    """
    parts = [_cos_sin(rope, max_seq_len, length) for length in ((0, long_length) if long_length else (0,))]
    cos, sin = (torch.cat(tables).to(device) for tables in zip(*parts, strict=True))
    return RopeTables(cos, sin, rope.interleaved)


def rotate_for(length: int, rope: Rope, tables: RopeTables) -> None:
    """Make the rows that follow those for sequences of `length` tokens, in place."""
    max_seq_len = len(tables.cos) // 2
    count = min(length, max_seq_len)
    for table, part in zip((tables.cos, tables.sin), _cos_sin(rope, count, length), strict=True):
        table[max_seq_len:max_seq_len + count].copy_(part)


def _cos_sin(rope: Rope, num_positions: int, length: int) -> tuple[Tensor, Tensor]:
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32),
                         torch.tensor(frequencies(rope, length), dtype=torch.float32))
    return angles.cos() * rope.magnitude, angles.sin() * rope.magnitude


def query_scales(scale: QueryScale, max_seq_len: int, device: torch.device,
                 has_long: bool = False) -> Tensor:
    """float32, a row for each of rope_tables()."""
    positions = torch.arange(max_seq_len, dtype=torch.float32).repeat(2 if has_long else 1)
    return (1 + scale.beta * torch.log1p(torch.floor((positions + scale.offset) / scale.span))).to(device)


def table_bytes(ropes: set[Rope], scales: set[QueryScale], has_long: bool) -> int:
    """Of one position."""
    return 4 * (sum(rope.dim for rope in ropes) + len(scales)) * (2 if has_long else 1)
