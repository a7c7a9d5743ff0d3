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
    """Where each tensor lies in the one buffer; the table is last, so that a step's part is a beginning."""

    max_tokens: int
    max_sequences: int
    max_pages: int

    def _shapes(self) -> tuple[tuple[torch.dtype, tuple[int, ...]], ...]:
        t, s = self.max_tokens, self.max_sequences
        return ((torch.int32, (t,)), (torch.int32, (t,)), (torch.int64, (t,)), (torch.int32, (s + 1,)),
                (torch.int32, (s,)), (torch.int32, (s,)), (torch.int32, (t,)), (torch.int32, (t,)),
                (torch.int32, (s, self.max_pages)))

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
        return list(self._offsets())[-2] + num_sequences * self.max_pages * torch.int32.itemsize

    def tensors(self, memory: Tensor) -> list[Tensor]:
        """token_ids, positions, slot_mapping, cu_seqlens, seq_lens, state_slots, row_slots, row_adapters,
        block_table;
        memory uint8 [nbytes]."""
        return [memory[offset:offset + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
                for (dtype, shape), offset in zip(self._shapes(), self._offsets(), strict=False)]


def step_bytes(max_tokens: int, max_sequences: int, max_seq_len: int) -> int:
    """What a StepTensors of these sizes takes on a device."""
    return Layout(max_tokens, max_sequences, pages_for(max_seq_len)).nbytes
