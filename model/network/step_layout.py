"""Where the tensors of a step's input lie in one buffer, so that they go to a device with one copy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model.sizes import pages_for

_ALIGNMENT = 256


@dataclass(frozen=True)
class Layout:
    """Where each tensor lies in the one buffer; the tables are last, so that a step's part is a beginning."""

    max_tokens: int
    max_sequences: int
    max_pages: int
    num_groups: int  # of layers whose keys and values have pages of their own

    def _shapes(self) -> tuple[tuple[torch.dtype, tuple[int, ...]], ...]:
        t, s, groups = self.max_tokens, self.max_sequences, self.num_groups
        return ((torch.int32, (t,)), (torch.int32, (t,)), (torch.int64, (groups, t)), (torch.int32, (s + 1,)),
                (torch.int32, (s,)), (torch.int32, (s,)), (torch.int32, (t,)), (torch.int32, (t,)),
                (torch.int32, (s, groups, self.max_pages)))

    def _offsets(self) -> Iterator[int]:
        offset = 0
        for dtype, shape in self._shapes():
            yield offset
            offset += -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        yield offset

    @property
    def nbytes(self) -> int:
        return list(self._offsets())[-1]

    def used(self, num_sequences: int) -> int:
        """Bytes of the beginning that a step of so many sequences takes."""
        of_sequence = self.num_groups * self.max_pages * torch.int32.itemsize
        return list(self._offsets())[-2] + num_sequences * of_sequence

    def tensors(self, memory: Tensor) -> list[Tensor]:
        """token_ids, positions, slot_mappings, cu_seqlens, seq_lens, state_slots, row_slots, row_adapters,
        block_tables;
        memory uint8 [nbytes]."""
        return [memory[offset:offset + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
                for (dtype, shape), offset in zip(self._shapes(), self._offsets(), strict=False)]


def step_bytes(max_tokens: int, max_sequences: int, max_seq_len: int, num_groups: int) -> int:
    """What a StepTensors of these sizes takes on a device."""
    return Layout(max_tokens, max_sequences, pages_for(max_seq_len), num_groups).nbytes
