"""One step on the model: the scheduler's batch -> tensors -> forward pass -> next tokens and scores.

A draft is computed together with the token before it and then checked: each of its places gets the token
that sampling chooses there, with the history, the random number and the mask of that place, and the draft is
right as far as it is the same. So what comes out is what would come without it, only sooner.
Every tensor is allocated once. Knows sequences and tensors, not requests' events, threads or time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.devices import failure_text
from model.engine.job import Job
from model.engine.logprobs import Scores, token_logprobs
from model.engine.request import TokenLogprob
from model.engine.sequences import Batch, Chunk
from model.engine.step_tensors import recorded_steps
from model.kernels.sampling import SamplingRow
from model.network.place import Place
from model.network.transformer import Transformer
from model.sizes import LOGIT_ROWS

log = logging.getLogger(__name__)


class Sampler:
    """From logits to the next token of each sequence, by the kernel `sample`; kernels/reference/ says what it
    computes."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def choose(self, logits: Tensor, rows: list[SamplingRow]) -> list[int]:
        """The next token of each row; -1 where every token is banned or the logits are not numbers.

        logits  float32 [len(rows), vocab_size]
        """
        learns = any(row.is_learning for row in rows)
        surprises = torch.zeros(len(rows), dtype=torch.float64, device=logits.device) if learns else None
        with self._place.active():
            chosen = self._place.ops.sample(logits, rows, None, surprises).tolist()
        if surprises is not None:
            for row, surprise in zip(rows, surprises.tolist(), strict=True):
                if row.is_learning:
                    row.learn(surprise)
        return chosen


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

    def __init__(self, transformer: Transformer, max_sequences: int, max_seq_len: int) -> None:
        self._transformer = transformer
        self._sampler = Sampler(transformer.stages[-1].place)
        spec, self._device = transformer.config.spec, transformer.devices[-1]
        self._selected = torch.empty(LOGIT_ROWS, spec.hidden_size, device=self._device)
        self._logits = torch.empty(LOGIT_ROWS, spec.vocab_size, device=self._device)
        self._step = recorded_steps(transformer, max_sequences, max_seq_len, self._logits,
                                    transformer.least_prompt_rows)

    def run(self, batch: Batch[Job]) -> list[Sampled]:
        """Compute a step; what follows every sequence that has come to its end.

        Logits that are wanted are given to the scores of their job.
        """
        if batch.copies:
            sources, targets = torch.tensor(batch.copies, dtype=torch.int32).permute(1, 2, 0).contiguous()
            self._transformer.copy_pages(sources, targets)
        if batch.state_copies:
            source, target = torch.tensor(batch.state_copies).t().contiguous()
            self._transformer.copy_states(source, target)
        chunks = self._step.in_order(batch.chunks)
        hidden = self._transformer.forward(self._step.fill(chunks))
        places: list[int] = []             # rows of hidden after which a token is wanted
        owners: list[Sampled] = []         # whose, one for each of them
        rows: list[SamplingRow] = []
        found: list[Sampled] = []
        first = 0
        for chunk in chunks:
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
                except BaseException as error:  # of this request alone
                    log.exception("a request's sampling cannot be set up")
                    found[-1].error = failure_text(error)
            first += chunk.num_rows
        for begin in range(0, len(rows), LOGIT_ROWS):
            part = slice(begin, begin + LOGIT_ROWS)
            inputs = hidden[part] if len(rows) == first else self._gather(hidden, places[part])
            self._choose(inputs, rows[part], owners[part])
        for sampled in found:
            if not sampled.error:
                sampled.check_draft()
        return found

    def _gather(self, hidden: Tensor, rows: list[int]) -> Tensor:
        index = torch.tensor(rows).to(self._device, non_blocking=True)
        return torch.index_select(hidden, 0, index, out=self._selected[:len(rows)])

    def _choose(self, hidden: Tensor, rows: list[SamplingRow], owners: list[Sampled]) -> None:
        """Give each owner the token after its row of hidden states; at most LOGIT_ROWS. A recorded step has
        more rows behind them."""
        logits = self._logits[:len(hidden)]
        self._transformer.logits(hidden, logits)
        tokens = self._sampler.choose(logits[:len(rows)], rows)
        for index, (owner, token_id) in enumerate(zip(owners, tokens, strict=True)):
            owner.tokens.append(token_id)
            num_logprobs = owner.chunk.sequence.owner.num_logprobs
            if num_logprobs is not None:
                owner.logprobs += token_logprobs(logits[index:index + 1], [token_id], num_logprobs)

    def _score(self, scores: Scores, chunk: Chunk[Job], hidden: Tensor) -> None:
        for begin in range(max(chunk.start, scores.first), chunk.start + chunk.count, LOGIT_ROWS):
            rows = hidden[begin - chunk.start:][:LOGIT_ROWS]
            logits = self._logits[:len(rows)]
            self._transformer.logits(rows, logits)
            scores.take(begin, logits)
