"""One step on the model: the scheduler's batch -> tensors -> forward pass -> next tokens and scores.

A draft is computed together with the token before it and then checked: each of its places gets the token
that sampling chooses there, with the history, the random number and the mask of that place, and the draft is
right as far as it is the same. So what comes out is what would come without it, only sooner.
Where a sequence has a guide the logits after both are combined before one token is sampled for the two; what
is there first is kept until the other is.
Every tensor is allocated once. Knows sequences and tensors, not requests' events, threads or time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from model.devices import failure_text
from model.engine.guidance import guided
from model.engine.job import Job
from model.engine.logprobs import Scores, token_logprobs
from model.engine.request import TokenLogprob
from model.engine.sequences import Batch, Chunk, TokenSequence
from model.engine.step_tensors import recorded_steps
from model.kernels.lora import LoraSegment
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


class TokensToCome:
    """The tokens of a step that the device computes: to be read, or handed on to the step behind it."""

    def __init__(self, chosen: Tensor) -> None:
        self.chosen = chosen  # int32 [rows], on the device
        self._host, self._event = chosen, None
        if chosen.device.type == "cuda":
            # Read on its own: what is launched meanwhile on this stream need not be done.
            self._host = torch.empty(chosen.shape, dtype=chosen.dtype, pin_memory=True)
            self._host.copy_(chosen, non_blocking=True)
            self._event = torch.cuda.current_stream(chosen.device).record_event()

    def read(self) -> list[int]:
        """Wait for them."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()


@dataclass
class Sampled:
    """What follows a chunk: the tokens of its draft that are right, and one more. -1: none is possible."""

    chunk: Chunk[Job]  # with a guide: of the one of the two that was there last
    error: str = ""  # why there are none: the request's constraint cannot go on
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of the tokens, where they are wanted

    @property
    def sequence(self) -> TokenSequence[Job]:
        """The one whose tokens they are."""
        return self.chunk.sequence.pair[0]

    def check_draft(self) -> None:
        """Leave only what is true; called with a token for each row."""
        draft = self.chunk.draft
        wrong = (index for index, guess in enumerate(draft) if guess != self.tokens[index])
        count = next(wrong, len(draft)) + 1
        del self.tokens[count:], self.logprobs[count:]


@dataclass
class _Wanted:
    """A row of hidden states whose logits are wanted: to sample the token after it, or to be kept."""

    place: int
    sampled: Sampled | None = None    # None: they are kept
    row: SamplingRow | None = None
    guide: int | None = None          # place of the row that guides it
    keeper: Job | None = None         # who keeps them, or has kept those that belong to them

    @property
    def num_places(self) -> int:
        return 1 if self.guide is None else 2


class Runner:
    """The model with the buffers of a step."""

    def __init__(self, transformer: Transformer, max_sequences: int, max_seq_len: int) -> None:
        self._transformer = transformer
        self._place = transformer.stages[-1].place
        self._sampler = Sampler(self._place)
        spec, self._device = transformer.config.spec, transformer.devices[-1]
        self._selected = torch.empty(LOGIT_ROWS, spec.hidden_size, device=self._device)
        self._logits = torch.empty(LOGIT_ROWS, spec.vocab_size, device=self._device)
        self._rotated_for = 0
        self._step = recorded_steps(transformer, max_sequences, max_seq_len, self._logits,
                                    transformer.least_prompt_rows)

    @property
    def runs_ahead(self) -> bool:
        """Whether a step can begin behind one whose tokens are not known: with one device, which hands them
        on, and without states, which a step for nothing would change."""
        return (self._place.ops.runs_ahead and len(self._transformer.stages) == 1
                and not self._transformer.config.spec.has_states)

    def begin(self, chunks: list[Chunk[Job]], previous: TokensToCome | None = None) -> TokensToCome:
        """Have the device compute a step of one row for each chunk, at most LOGIT_ROWS, and choose their
        tokens.

        previous  of the same sequences: the tokens that go in, where the host does not know them
        """
        steps = self._step.fill(chunks)
        with self._place.active():
            if previous is not None:
                steps[0].token_ids[:len(chunks)].copy_(previous.chosen)
            hidden = self._transformer.forward(steps)
            logits = self._logits[:len(hidden)]
            self._transformer.logits(hidden, logits)
            rows = [chunk.sequence.owner.row_after(chunk.start + 1) for chunk in chunks]
            ahead = {} if previous is None else {"previous": previous.chosen}
            return TokensToCome(self._place.ops.sample(logits[:len(chunks)], rows, **ahead))

    def rotate_for(self, length: int) -> None:
        """The long sequences of the steps to come are rotated for so many tokens; 0: there are none."""
        if length not in (0, self._rotated_for):
            self._rotated_for = length
            self._transformer.rotate_for(length)

    def put_adapter(self, number: int, added: Mapping[str, list[LoraSegment]]) -> None:
        """See Adapters.put."""
        self._transformer.put_adapter(number, added)

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
        wanted: list[_Wanted] = []
        found: list[Sampled] = []
        ends: dict[TokenSequence[Job], int] = {}  # of those with a partner: places after which a token comes
        first = 0
        for chunk in chunks:
            if chunk.is_last and chunk.sequence.partner is not None:
                ends[chunk.sequence] = first + chunk.count - 1
            first += chunk.num_rows
        first = 0
        for chunk in chunks:
            job = chunk.sequence.owner
            if job.scores is not None:
                self._score(job.scores, chunk, hidden[first:first + chunk.count])
            elif chunk.is_last and chunk.sequence.partner is not None:
                wanted += self._of_pair(chunk, ends, found)
            elif chunk.is_last:
                wanted += self._sampled(chunk, first + chunk.count - 1, found)
            first += chunk.num_rows
        self._choose_all(wanted, hidden, first)
        for sampled in found:
            if not sampled.error:
                sampled.check_draft()
        return found

    def _sampled(self, chunk: Chunk[Job], place: int, found: list[Sampled]) -> list[_Wanted]:
        """What is to be sampled after a chunk that ends at `place`."""
        sampled = Sampled(chunk)
        found.append(sampled)
        try:
            rows = chunk.sequence.owner.sampling_rows(len(sampled.sequence.token_ids), chunk.draft,
                                                      self._logits.shape[1])
            return [_Wanted(place + offset, sampled, row) for offset, row in enumerate(rows)]
        except ValueError as error:
            sampled.error = str(error)
        except BaseException as error:  # of this request alone
            log.exception("a request's sampling cannot be set up")
            sampled.error = failure_text(error)
        return []

    def _of_pair(self, chunk: Chunk[Job], ends: dict[TokenSequence[Job], int],
                 found: list[Sampled]) -> list[_Wanted]:
        """The same for a sequence with a guide, or for a guide: both are needed for a token."""
        sequence, job = chunk.sequence, chunk.sequence.owner
        assert sequence.partner is not None
        if sequence.partner not in ends and sequence.partner.num_remaining:
            return [_Wanted(ends[sequence], keeper=job)]
        if sequence.is_guide and sequence.partner in ends:
            return []
        wanted = self._sampled(chunk, ends[sequence], found)
        return [replace(one, guide=ends.get(sequence.partner), keeper=job) for one in wanted]

    def _choose_all(self, wanted: list[_Wanted], hidden: Tensor, num_rows: int) -> None:
        """Choose what is wanted, at most LOGIT_ROWS logits at once: what is sampled, then what guides it,
        then what is kept. All of the `num_rows` rows, in order, need not be gathered."""
        parts: list[list[_Wanted]] = [[]]
        size = 0
        for one in sorted(wanted, key=lambda one: one.sampled is None):
            if size + one.num_places > LOGIT_ROWS:
                parts.append([])
                size = 0
            parts[-1].append(one)
            size += one.num_places
        places = [_places(part) for part in parts]
        is_all = [place for of_part in places for place in of_part] == list(range(num_rows))
        begin = 0
        for part, of_part in zip(parts, places, strict=True):
            if part:
                self._choose(hidden[begin:begin + LOGIT_ROWS] if is_all else self._gather(hidden, of_part),
                             part)
            begin += len(of_part)

    def _gather(self, hidden: Tensor, rows: list[int]) -> Tensor:
        index = torch.tensor(rows).to(self._device, non_blocking=True)
        return torch.index_select(hidden, 0, index, out=self._selected[:len(rows)])

    def _choose(self, hidden: Tensor, part: list[_Wanted]) -> None:
        """Give each owner the token after its row of hidden states, and keep what is to be kept; at most
        LOGIT_ROWS. A recorded step has more rows behind them."""
        logits = self._logits[:len(hidden)]
        self._transformer.logits(hidden, logits)
        sampled = [one for one in part if one.sampled]
        beside = iter(logits[len(sampled):])
        own = [self._guided(one, row, beside) for one, row in zip(sampled, logits, strict=False)]
        for one in part[len(sampled):]:
            one.keeper.kept = next(beside).clone()
        tokens = self._sampler.choose(logits[:len(sampled)], [one.row for one in sampled])
        for one, row, token_id in zip(sampled, own, tokens, strict=True):
            one.sampled.tokens.append(token_id)
            num_logprobs = one.sampled.sequence.owner.num_logprobs
            if num_logprobs is not None:
                one.sampled.logprobs += token_logprobs(row[None], [token_id], num_logprobs)

    def _guided(self, wanted: _Wanted, row: Tensor, beside: Iterator[Tensor]) -> Tensor:
        """Put the guided logits into a row that is to be sampled, if there is a guide; returns the model's
        own."""
        job = wanted.keeper
        if job is None:
            return row
        other = job.kept if wanted.guide is None else next(beside)
        assert other is not None and wanted.sampled is not None
        own, other = (other, row) if wanted.sampled.chunk.sequence.is_guide else (row, other)
        mixed = guided(own, other, job.request.params.guidance_scale)
        own = own.clone() if own is row and job.num_logprobs is not None else own
        row.copy_(mixed)
        job.kept = None
        return own

    def _score(self, scores: Scores, chunk: Chunk[Job], hidden: Tensor) -> None:
        for begin in range(max(chunk.start, scores.first), chunk.start + chunk.count, LOGIT_ROWS):
            rows = hidden[begin - chunk.start:][:LOGIT_ROWS]
            logits = self._logits[:len(rows)]
            self._transformer.logits(rows, logits)
            scores.take(begin, logits)


def _places(part: list[_Wanted]) -> list[int]:
    """Of the rows whose logits are computed together: what is sampled, what guides it, what is kept."""
    return [*(one.place for one in part if one.sampled),
            *(one.guide for one in part if one.guide is not None),
            *(one.place for one in part if not one.sampled)]
