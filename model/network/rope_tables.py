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


def rope_tables(rope: Rope, max_seq_len: int, device: torch.device, has_long: bool = False) -> RopeTables:
    """float32 [max_seq_len, dim / 2] each; angles in float32, as transformers computes them.

    has_long  another max_seq_len rows follow, for sequences that are rotated as long ones
    """
    positions = torch.arange(max_seq_len, dtype=torch.float32)
    angles = torch.cat([torch.outer(positions, torch.tensor(frequencies(rope, of_long), dtype=torch.float32))
                        for of_long in ((False, True) if has_long else (False,))])
    cos, sin = ((table * rope.magnitude).to(device) for table in (angles.cos(), angles.sin()))
    return RopeTables(cos, sin, rope.interleaved)


def query_scales(scale: QueryScale, max_seq_len: int, device: torch.device,
                 has_long: bool = False) -> Tensor:
    """float32, a row for each of rope_tables()."""
    positions = torch.arange(max_seq_len, dtype=torch.float32).repeat(2 if has_long else 1)
    return (1 + scale.beta * torch.log1p(torch.floor((positions + scale.offset) / scale.span))).to(device)


def table_bytes(ropes: set[Rope], scales: set[QueryScale], has_long: bool) -> int:
    """Of one position."""
    return 4 * (sum(rope.dim for rope in ropes) + len(scales)) * (2 if has_long else 1)
