"""One step on the model: the scheduler's batch -> tensors -> forward pass -> next tokens and scores.

A draft is computed together with the token before it and then checked: each of its places gets the token
that sampling chooses there, with the history, the random number and the mask of that place, and the draft is
right as far as it is the same. So what comes out is what would come without it, only sooner.
Every tensor is allocated once. Knows sequences and tensors, not requests' events, threads or time.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import torch

from model.engine.job import Job
from model.engine.kv_cache import PAGE_SIZE, pages_for
from model.engine.logprobs import Scores, token_logprobs
from model.engine.request import TokenLogprob
from model.engine.sampler import Sampler
from model.engine.scheduler import Batch, Chunk
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

    def fill(self, chunks: Seq[Chunk[Any]]) -> StepInput:
        """The tensors of a step; valid until the next call."""
        row = 0
        for index, chunk in enumerate(chunks):
            sequence, start, end = chunk.sequence, chunk.start, chunk.start + chunk.num_rows
            pages = self._block_table[index, :len(sequence.pages)]
            pages[:] = sequence.pages
            if chunk.num_rows == 1:
                self._token_ids[row] = sequence.token_ids[start]
                self._positions[row] = start
                self._slots[row] = sequence.pages[start // PAGE_SIZE] * PAGE_SIZE + start % PAGE_SIZE
            else:
                rows, positions = slice(row, row + chunk.num_rows), self._offsets[start:end]
                self._token_ids[rows] = sequence.token_ids[start:start + chunk.count] + chunk.draft
                self._positions[rows] = positions
                self._slots[rows] = pages[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE
            row += chunk.num_rows
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


@dataclass
class Sampled:
    """What follows a chunk: the tokens of its draft that are right, and one more. -1: none is possible."""

    chunk: Chunk[Job]
    error: str = ""  # why there are none: the request's constraint cannot go on
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of the tokens, where they are wanted

    def check_draft(self) -> None:
        """Leave only what is true; called with a token for each row."""
        draft = self.chunk.draft
        wrong = (index for index, guess in enumerate(draft) if guess != self.tokens[index])
        count = next(wrong, len(draft)) + 1
        del self.tokens[count:], self.logprobs[count:]


class Runner:
    """The model with the buffers of a step."""

    def __init__(self, ops: Any, transformer: Transformer, max_sequences: int, max_seq_len: int) -> None:
        self._transformer = transformer
        self._sampler = Sampler(ops)
        self._step = StepTensors(transformer.max_tokens, max_sequences, max_seq_len)
        config = transformer.config
        self._selected = torch.empty(LOGIT_ROWS, config.hidden_size)
        self._logits = torch.empty(LOGIT_ROWS, config.vocab_size)

    def run(self, batch: Batch[Job]) -> list[Sampled]:
        """Compute a step; what follows every sequence that has come to its end.

        Logits that are wanted are given to the scores of their job.
        """
        if batch.copies:
            source, target = torch.tensor(batch.copies, dtype=torch.int32).t().contiguous()
            self._transformer.copy_pages(source, target)
        hidden = self._transformer.forward(self._step.fill(batch.chunks))
        places: list[int] = []             # rows of hidden after which a token is wanted
        owners: list[Sampled] = []         # whose, one for each of them
        rows: list[SamplingRow] = []
        found: list[Sampled] = []
        first = 0
        for chunk in batch.chunks:
            job = chunk.sequence.owner
            if job.scores is not None:
                self._score(job.scores, chunk, hidden[first:first + chunk.count])
            elif chunk.is_last:
                found.append(Sampled(chunk))
                try:
                    rows += job.sampling_rows(chunk.start + chunk.count, chunk.draft, self._logits.shape[1])
                    places += range(first + chunk.count - 1, first + chunk.num_rows)
                    owners += [found[-1]] * (len(chunk.draft) + 1)
                except ValueError as error:
                    found[-1].error = str(error)
            first += chunk.num_rows
        for begin in range(0, len(rows), LOGIT_ROWS):
            part = slice(begin, begin + LOGIT_ROWS)
            inputs = hidden[part] if len(rows) == first else self._gather(hidden, places[part])
            self._choose(inputs, rows[part], owners[part])
        for sampled in found:
            if not sampled.error:
                sampled.check_draft()
        return found

    def _gather(self, hidden: torch.Tensor, rows: list[int]) -> torch.Tensor:
        return torch.index_select(hidden, 0, torch.tensor(rows), out=self._selected[:len(rows)])

    def _choose(self, hidden: torch.Tensor, rows: list[SamplingRow], owners: list[Sampled]) -> None:
        """Give each owner the token after its row of hidden states; at most LOGIT_ROWS."""
        logits = self._logits[:len(rows)]
        self._transformer.logits(hidden, logits)
        tokens = self._sampler.choose(logits, rows)
        for index, (owner, token_id) in enumerate(zip(owners, tokens, strict=True)):
            owner.tokens.append(token_id)
            num_logprobs = owner.chunk.sequence.owner.num_logprobs
            if num_logprobs is not None:
                owner.logprobs += token_logprobs(logits[index:index + 1], [token_id], num_logprobs)

    def _score(self, scores: Scores, chunk: Chunk[Job], hidden: torch.Tensor) -> None:
        for begin in range(max(chunk.start, scores.first), chunk.start + chunk.count, LOGIT_ROWS):
            rows = hidden[begin - chunk.start:][:LOGIT_ROWS]
            logits = self._logits[:len(rows)]
            self._transformer.logits(rows, logits)
            scores.take(begin, logits)
