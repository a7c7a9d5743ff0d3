"""One step on the model: the scheduler's batch -> tensors -> forward pass -> next tokens and scores.

Every tensor is allocated once. Knows sequences and tensors, not requests' events, threads or time.
"""

from __future__ import annotations

from typing import Any

import torch

from model.engine.job import Job
from model.engine.kv_cache import PAGE_SIZE, pages_for
from model.engine.sampler import Sampler
from model.engine.scheduler import Batch, Chunk, Sequence
from model.kernels.sampling import SamplingRow
from model.network.transformer import StepInput, Transformer

LOGIT_ROWS = 64
"""Rows of logits that there is memory for; where more are wanted they are sampled in turn."""


class StepTensors:
    """The inputs of a step, filled through numpy views, which cost little for a few numbers."""

    def __init__(self, max_tokens: int, max_sequences: int, max_seq_len: int) -> None:
        self._tensors = (torch.zeros(max_tokens, dtype=torch.int32),
                         torch.zeros(max_tokens, dtype=torch.int32),
                         torch.zeros(max_tokens, dtype=torch.int64),
                         torch.zeros(max_sequences, pages_for(max_seq_len), dtype=torch.int32),
                         torch.zeros(max_sequences + 1, dtype=torch.int32),
                         torch.zeros(max_sequences, dtype=torch.int32))
        (self._token_ids, self._positions, self._slots, self._block_table, self._cu_seqlens,
         self._seq_lens) = (tensor.numpy() for tensor in self._tensors)
        self._offsets = torch.arange(max_seq_len).numpy()
        self._views: dict[tuple[int, int], StepInput] = {}

    def fill(self, chunks: list[Chunk[Job]]) -> StepInput:
        """The tensors of a step; valid until the next call."""
        row = 0
        for index, chunk in enumerate(chunks):
            sequence, start, end = chunk.sequence, chunk.start, chunk.start + chunk.count
            pages = self._block_table[index, :len(sequence.pages)]
            pages[:] = sequence.pages
            if chunk.count == 1:
                self._token_ids[row] = sequence.token_ids[start]
                self._positions[row] = start
                self._slots[row] = sequence.pages[start // PAGE_SIZE] * PAGE_SIZE + start % PAGE_SIZE
            else:
                rows, positions = slice(row, row + chunk.count), self._offsets[start:end]
                self._token_ids[rows] = sequence.token_ids[start:end]
                self._positions[rows] = positions
                self._slots[rows] = pages[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE
            row += chunk.count
            self._cu_seqlens[index + 1] = row
            self._seq_lens[index] = end
        return self._step_input(row, len(chunks))

    def _step_input(self, num_tokens: int, num_sequences: int) -> StepInput:
        key = (num_tokens, num_sequences)
        step = self._views.get(key)
        if step is None:
            if len(self._views) >= 64:
                self._views.clear()
            token_ids, positions, slots, block_table, cu_seqlens, seq_lens = self._tensors
            step = self._views[key] = StepInput(
                token_ids[:num_tokens], positions[:num_tokens], slots[:num_tokens],
                block_table[:num_sequences], cu_seqlens[:num_sequences + 1], seq_lens[:num_sequences])
        return step


class Runner:
    """The model with the buffers of a step."""

    def __init__(self, ops: Any, transformer: Transformer, max_sequences: int, max_seq_len: int) -> None:
        self._transformer = transformer
        self._sampler = Sampler(ops)
        self._step = StepTensors(transformer.max_tokens, max_sequences, max_seq_len)
        config = transformer.config
        self._selected = torch.empty(LOGIT_ROWS, config.hidden_size)
        self._logits = torch.empty(LOGIT_ROWS, config.vocab_size)

    def run(self, batch: Batch[Job]) -> list[tuple[Sequence[Job], int]]:
        """Compute a step; the next token of every sequence that has come to its end, -1 if none is possible.

        Logits that are wanted are written to the scores of their job.
        """
        if batch.copies:
            source, target = torch.tensor(batch.copies, dtype=torch.int32).t().contiguous()
            self._transformer.copy_pages(source, target)
        hidden = self._transformer.forward(self._step.fill(batch.chunks))
        rows: list[int] = []
        sampled: list[Sequence[Job]] = []
        row = 0
        for chunk in batch.chunks:
            job = chunk.sequence.owner
            if job.scores is not None:
                self._score(job, chunk, hidden[row:row + chunk.count])
            elif chunk.is_last:
                rows.append(row + chunk.count - 1)
                sampled.append(chunk.sequence)
            row += chunk.count
        tokens: list[int] = []
        for first in range(0, len(rows), LOGIT_ROWS):
            part = slice(first, first + LOGIT_ROWS)
            tokens += self._choose(hidden[part] if len(rows) == row else self._gather(hidden, rows[part]),
                                   [s.owner.row for s in sampled[part] if s.owner.row is not None])
        return list(zip(sampled, tokens, strict=True))

    def _gather(self, hidden: torch.Tensor, rows: list[int]) -> torch.Tensor:
        return torch.index_select(hidden, 0, torch.tensor(rows), out=self._selected[:len(rows)])

    def _choose(self, hidden: torch.Tensor, rows: list[SamplingRow]) -> list[int]:
        """The next tokens after these rows of hidden states, at most LOGIT_ROWS."""
        logits = self._logits[:len(rows)]
        self._transformer.logits(hidden, logits)
        return self._sampler.choose(logits, rows)

    def _score(self, job: Job, chunk: Chunk[Job], hidden: torch.Tensor) -> None:
        first = max(chunk.start, job.first_scored)
        end = chunk.start + chunk.count
        if first < end and job.scores is not None:
            self._transformer.logits(hidden[first - chunk.start:],
                                     job.scores[first - job.first_scored:end - job.first_scored])
