"""A step of sequences whose layers have states: some begin, some go on from their slot, some are padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StateStep:
    """What every function of reference/states.py is told about a step, after the states."""

    slots: Tensor
    cu_seqlens: Tensor
    seq_lens: Tensor

    @classmethod
    def of(cls, sequences: Sequence[tuple[int, int, int]]) -> StateStep:
        """Of (rows, tokens with these rows, slot) of each sequence."""
        rows, lengths, slots = torch.tensor(sequences, dtype=torch.int32).T.contiguous()
        bounds = torch.cat((torch.zeros(1, dtype=torch.int32), rows.cumsum(0, dtype=torch.int32)))
        return cls(slots, bounds, lengths)

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.slots, self.cu_seqlens, self.seq_lens

    @property
    def num_rows(self) -> int:
        return int(self.cu_seqlens[-1])

    @property
    def is_row_used(self) -> Tensor:
        """bool [T]: false for padding."""
        return (self.slots >= 0).repeat_interleave(self.cu_seqlens.diff())


MIXED = StateStep.of([(1, 9, 2), (5, 5, 0), (0, 3, 5), (1, 1, -1), (19, 30, 4), (2, 2, -5), (1, 1, 3)])
"""Decoding, a prompt, nothing, padding, a later chunk, padding of two rows, a prompt of one token.
The chunk is longer than the rows that a GPU takes to shared memory at a time (kAhead in cuda/state.cu)."""
NUM_SLOTS = 6

