"""Rows with gaps between them, and a check that a kernel has left the gaps alone."""

from __future__ import annotations

import torch
from torch import Tensor

GUARD = 12345.0


def strided(rows: int, columns: int, gap: int = 5) -> tuple[Tensor, Tensor]:
    """(view, its memory): random rows that lie `gap` floats apart, at an address that only 4 divides."""
    memory = torch.full((rows * (columns + gap) + 1,), GUARD)
    view = torch.as_strided(memory, (rows, columns), (columns + gap, 1), 1)
    view.copy_(torch.randn(rows, columns))
    return view, memory


def assert_gaps_untouched(view: Tensor, memory: Tensor) -> None:
    outside = torch.ones_like(memory, dtype=torch.bool)
    torch.as_strided(outside, view.shape, view.stride(), view.storage_offset()).fill_(False)
    assert (memory[outside] == GUARD).all()
