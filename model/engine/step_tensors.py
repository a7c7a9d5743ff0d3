"""The inputs of a step, as tensors on the device of each stage: filled on the host, sent with one copy.

Knows the scheduler's chunks and the shapes of a StepInput, nothing of what is computed with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model.engine.sequences import Chunk
from model.families.cache_groups import cache_groups
from model.network.step import PromptRows, StepInput
from model.network.step_layout import Layout
from model.network.transformer import Transformer
from model.sizes import PAGE_SIZE, pages_for

_FEW_ROWS = 8
"""Tokens of a sequence that may be computed as sequences of one token each: each reads all its keys again."""
_MAX_VIEWS = 64


class HostBuffer:
    """The tensors on the host, as numpy views, which cost little for a few numbers."""

    def __init__(self, layout: Layout, is_pinned: bool) -> None:
        self.memory = torch.zeros(layout.nbytes, dtype=torch.uint8, pin_memory=is_pinned)
        self.tensors = layout.tensors(self.memory)
        (self.token_ids, self.positions, self.slots, self.cu_seqlens, self.seq_lens, self.state_slots,
         self.row_slots, self.row_adapters, self.block_tables) = (tensor.numpy() for tensor in self.tensors)
        self.sent: list[Any] = []  # events after the copies to the devices

    def wait(self) -> None:
        """Until nothing reads it any more."""
        for event in self.sent:
            event.synchronize()
        self.sent = []


class StepTensors:
    """Allocated once; a step of the same numbers of tokens and sequences gets the same tensors again.

    devices         of each stage
    recorded_sizes  of the model (see Recorder.sizes): steps of few tokens are filled up to one of them, and
                    every token is a sequence of its own there, so that their shape is the size alone
    least_prompt_rows  a chunk of a prompt with fewer rows is computed as rows that decode
    has_states      of the model: the rows of one sequence belong together
    num_groups      of layers whose keys and values have pages, and a table of each sequence, of their own
    """

    def __init__(self, max_tokens: int, max_sequences: int, max_seq_len: int, devices: Sequence[torch.device],
                 recorded_sizes: tuple[int, ...] = (), least_prompt_rows: int = _FEW_ROWS + 1,
                 has_states: bool = False, num_groups: int = 1) -> None:
        rows = max(max_sequences, *recorded_sizes, 1)
        self._layout = Layout(max(max_tokens, rows), rows, pages_for(max_seq_len), num_groups)
        self._stages, self._sizes = list(devices), recorded_sizes
        self._least_prompt_rows = least_prompt_rows
        self._few_rows = 1 if has_states else _FEW_ROWS
        self._long_offset = max_seq_len  # rows of the RoPE tables before those of long sequences
        others = {device for device in devices if device.type != "cpu"}
        # two in turn: the next step is written while the copy of the last one may still wait for its device
        is_pinned = any(device.type == "cuda" for device in others)
        self._buffers = [HostBuffer(self._layout, is_pinned) for _ in range(2 if others else 1)]
        self._memory = {device: torch.zeros(self._layout.nbytes, dtype=torch.uint8, device=device)
                        for device in others}
        self._tensors = {device: self._layout.tensors(memory) for device, memory in self._memory.items()}
        self._tensors[torch.device("cpu")] = self._buffers[0].tensors
        self._offsets = torch.arange(max(max_seq_len, rows + 1)).numpy()
        self._views: dict[tuple[int, int], list[StepInput]] = {}

    def in_order(self, chunks: Sequence[Chunk[Any]]) -> list[Chunk[Any]]:
        """Those that are computed as prompts last, so that they are taken together, and guides behind those
        that they guide, whose rows are sampled; else as they were."""
        return sorted(chunks, key=lambda chunk: (self.is_prompt(chunk), chunk.sequence.is_guide))

    def is_prompt(self, chunk: Chunk[Any]) -> bool:
        """Whether it is computed as a prompt. Not with a draft: how one is checked must be, to the bit, how
        its tokens are decoded."""
        return chunk.is_of_prompt and chunk.num_rows >= self._least_prompt_rows and not chunk.draft

    def fill(self, chunks: Sequence[Chunk[Any]]) -> list[StepInput]:
        """The tensors of a step, one input for each stage, drafts included; valid until the next call.

        Those of a recorded size have rows behind the tokens of the chunks, which mean nothing.
        """
        self._buffers.append(self._buffers.pop(0))
        buffer = self._buffers[-1]
        buffer.wait()
        size = self._recorded_size(chunks)
        row = 0
        for index, chunk in enumerate(chunks):
            self._write_tokens(buffer, chunk, row)
            if size is None:
                self._write_sequence(buffer, index, chunk, row + chunk.num_rows, chunk.start + chunk.num_rows)
            else:
                for offset in range(chunk.num_rows):
                    self._write_sequence(buffer, row + offset, chunk, row + offset + 1,
                                         chunk.start + offset + 1)
            row += chunk.num_rows
        if size is None:
            steps = self._sent(buffer, row, len(chunks))
            prompts = self._prompts(chunks, row)
            steps = [replace(step, prompts=prompts) for step in steps] if prompts else steps
        else:
            self._pad(buffer, row, size)
            steps = self._sent(buffer, size, size)
        if any(chunk.sequence.adapter.number >= 0 for chunk in chunks):
            return [replace(step, has_adapters=True) for step in steps]
        return steps

    def blank(self, size: int, has_adapters: bool = False) -> list[StepInput]:
        """A step of `size` rows that mean nothing and touch nothing, to try it out."""
        self._buffers[-1].wait()
        self._pad(self._buffers[-1], 0, size)
        return [replace(step, has_adapters=has_adapters)
                for step in self._sent(self._buffers[-1], size, size)]

    def _prompts(self, chunks: Sequence[Chunk[Any]], num_rows: int) -> tuple[PromptRows, ...]:
        """The chunks at the end that are computed as prompts."""
        found: list[PromptRows] = []
        for index in reversed(range(len(chunks))):
            chunk = chunks[index]
            if not self.is_prompt(chunk):
                break
            first = num_rows - chunk.num_rows
            found.insert(0, PromptRows(index, first, num_rows, chunk.start + chunk.num_rows))
            num_rows = first
        return tuple(found)

    def _recorded_size(self, chunks: Sequence[Chunk[Any]]) -> int | None:
        num_tokens = sum(chunk.num_rows for chunk in chunks)
        if not self._sizes or any(chunk.num_rows > self._few_rows for chunk in chunks):
            return None
        return next((size for size in self._sizes if size >= num_tokens), None)

    def _write_tokens(self, buffer: HostBuffer, chunk: Chunk[Any], row: int) -> None:
        sequence, start, end = chunk.sequence, chunk.start, chunk.start + chunk.num_rows
        offset = self._long_offset if sequence.rotated_for else 0
        buffer.row_slots[row:row + chunk.num_rows] = -1
        buffer.row_adapters[row:row + chunk.num_rows] = sequence.adapter.number
        for position, slot in sequence.saves.items():
            if start < position <= end:
                buffer.row_slots[row + position - start - 1] = slot
        if chunk.num_rows <= _FEW_ROWS:  # one by one in less time than arrays take to be made
            tokens = [*sequence.token_ids[start:start + chunk.count], *chunk.draft]
            for place, token_id in enumerate(tokens):
                position = start + place
                buffer.token_ids[row + place] = token_id
                buffer.positions[row + place] = position + offset
                for slots, table in zip(buffer.slots, sequence.tables, strict=True):
                    slots[row + place] = table.pages[position // PAGE_SIZE] * PAGE_SIZE + position % PAGE_SIZE
            return
        rows, positions = slice(row, row + chunk.num_rows), self._offsets[start:end]
        first_page = start // PAGE_SIZE
        buffer.token_ids[rows] = sequence.token_ids[start:start + chunk.count] + chunk.draft
        buffer.positions[rows] = positions + offset
        for slots, table in zip(buffer.slots, sequence.tables, strict=True):
            pages = torch.tensor(table.pages[first_page:pages_for(end)]).numpy()
            slots[rows] = pages[positions // PAGE_SIZE - first_page] * PAGE_SIZE + positions % PAGE_SIZE

    def _write_sequence(self, buffer: HostBuffer, index: int, chunk: Chunk[Any], end_row: int,
                        num_keys: int) -> None:
        for row, table in zip(buffer.block_tables[index], chunk.sequence.tables, strict=True):
            row[:len(table.pages)] = table.pages
        buffer.cu_seqlens[index + 1] = end_row
        buffer.seq_lens[index] = num_keys
        buffer.state_slots[index] = chunk.sequence.slot

    def _pad(self, buffer: HostBuffer, row: int, size: int) -> None:
        """Rows row .. size - 1: a token that is not written and looks at the first key of some page."""
        buffer.token_ids[row:size] = 0
        buffer.positions[row:size] = 0
        buffer.slots[:, row:size] = -1
        buffer.row_slots[row:size] = -1
        buffer.row_adapters[row:size] = -1
        buffer.state_slots[row:size] = -1
        buffer.block_tables[row:size, :, 0] = 0
        buffer.cu_seqlens[row + 1:size + 1] = self._offsets[row + 1:size + 1]
        buffer.seq_lens[row:size] = 1

    def _sent(self, buffer: HostBuffer, num_tokens: int, num_sequences: int) -> list[StepInput]:
        for device, memory in self._memory.items():
            used = self._layout.used(num_sequences)
            memory[:used].copy_(buffer.memory[:used], non_blocking=True)
            if device.type == "cuda":
                buffer.sent.append(torch.cuda.current_stream(device).record_event())
        key = (num_tokens, num_sequences)
        steps = self._views.get(key)
        if steps is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            inputs = {device: _step_input(tensors, *key) for device, tensors in self._tensors.items()}
            steps = self._views[key] = [inputs[device] for device in self._stages]
        return steps


def recorded_steps(transformer: Transformer, max_sequences: int, max_seq_len: int, logits: Tensor,
                   least_prompt_rows: int) -> StepTensors:
    """The tensors of a model's steps, after every step that is to be recorded ahead has run with them.

    logits             float32 [rows, vocab_size], for the most rows that are recorded
    least_prompt_rows  see StepTensors
    """
    sizes = tuple(size for size in transformer.recorded_sizes if size <= len(logits))
    spec = transformer.config.spec
    steps = StepTensors(transformer.max_tokens, max_sequences, max_seq_len, transformer.devices, sizes,
                        least_prompt_rows, spec.has_states, len(cache_groups(spec)))
    for size in sizes:
        transformer.logits(transformer.forward(steps.blank(size)), logits[:size])
        if transformer.has_adapters:
            transformer.forward(steps.blank(size, has_adapters=True))
    transformer.seal()
    return steps


def _step_input(tensors: list[Tensor], num_tokens: int, num_sequences: int) -> StepInput:
    token_ids, positions, slots, cu_seqlens, seq_lens, state_slots, row_slots, row_adapters, \
        block_tables = tensors
    return StepInput(token_ids[:num_tokens], positions[:num_tokens],
                     tuple(of_group[:num_tokens] for of_group in slots),
                     tuple(block_tables[:num_sequences].unbind(1)), cu_seqlens[:num_sequences + 1],
                     seq_lens[:num_sequences], state_slots[:num_sequences], row_slots[:num_tokens],
                     row_adapters[:num_tokens])
