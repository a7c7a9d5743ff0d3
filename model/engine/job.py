"""What the engine keeps of a request while it runs: its sampling state, its clock, its scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

import torch
from torch import Tensor

from model.engine.draft_record import DraftRecord
from model.engine.loaded_adapters import NO_ADAPTER, AdapterKey
from model.engine.logprobs import Scores
from model.engine.request import (
    FinishedEvent,
    PromptProgress,
    Request,
    RequestStats,
    SequenceBreaks,
    TokenConstraint,
    TokenEvent,
    TokenLogprob,
)
from model.engine.sequences import TokenSequence
from model.engine.tally import Tally
from model.kernels.sampling import SamplingRow

_MAX_TURNS = 8
"""Ends of a prompt's messages, the last ones, where others are expected to go on differently."""


@dataclass(eq=False)
class Job:
    """The owner of a TokenSequence, and of its guide. Either `row` (it is sampled) or `scores` (it is only
    scored)."""

    request: Request
    submitted: float
    row: SamplingRow | None
    scores: Scores | None = None
    num_logprobs: int | None = None            # alternatives that are told with each token; None: nothing is
    constraint: TokenConstraint | None = None
    breaks: SequenceBreaks | None = None       # where DRY is on
    limit: int = 0                             # tokens of the sequence at which the context is full
    kept: Tensor | None = field(default=None, repr=False)
    """float32 [vocab_size]: of it and its guide the logits after all tokens of the one that was there first,
    until the other is."""
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    num_new: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    drafts: DraftRecord = field(default_factory=DraftRecord)
    _masks: Tensor | None = field(default=None, repr=False)  # int32 [rows, (vocab_size + 31) // 32]

    def report_prompt(self, sequence: TokenSequence[Job]) -> None:
        """Tell how much of the prompt (and of its guide's) is in the cache; nothing once the reply has
        begun."""
        if not self.num_new:
            done = sum(min(one.num_computed, one.prompt_length) for one in sequence.pair)
            self.request.put(PromptProgress(done, *prompt_tokens(sequence)))

    def sampling_rows(self, num_tokens: int, draft: list[int], vocab_size: int) -> list[SamplingRow]:
        """How the tokens after `num_tokens` and after each of `draft` are chosen, if all before it is true.

        Each counts on history, random number and mask of its own place, so that what it chooses is what would
        be chosen there one by one.
        """
        assert self.row is not None
        if draft:
            self.row.write(num_tokens, draft)
            self.find_breaks(num_tokens, num_tokens + len(draft))
        self.row.allowed = None  # that of the token before
        rows = [self.row, *(self.row.at(num_tokens + i + 1) for i in range(len(draft)))]
        if self.constraint is not None and not self.constraint.is_free:
            for row, mask in zip(rows, self._fill_masks(self.constraint, draft, vocab_size), strict=True):
                row.allowed = mask
        return rows

    def row_after(self, num_tokens: int) -> SamplingRow:
        """How the token after so many is chosen where no mask is needed; of these the last may still be to
        come."""
        assert self.row is not None
        self.row.allowed = None
        return self.row.at(num_tokens)

    def _fill_masks(self, constraint: TokenConstraint, draft: list[int], vocab_size: int) -> Tensor:
        if self._masks is None or len(self._masks) <= len(draft):
            self._masks = torch.empty(len(draft) + 1, -(-vocab_size // 32), dtype=torch.int32)
        masks = self._masks[:len(draft) + 1]
        for mask, token_id in zip(masks.numpy(), [*draft, None], strict=True):
            constraint.fill_mask(mask)
            if token_id is not None:
                constraint.accept([token_id])
        constraint.take_back(len(draft))
        return masks

    def find_breaks(self, first: int, end: int) -> None:
        """Note which of the tokens first .. end - 1 of the history are breaks."""
        if self.row is None or self.row.breaks is None or self.breaks is None:
            return
        begin = max(0, first - self.breaks.reach)
        flags = self.breaks.flags(self.row.history[begin:end].tolist(), first - begin)
        self.row.breaks[first:end] = torch.tensor(flags, dtype=torch.uint8)

    def append(self, sequence: TokenSequence[Job], token_id: int,
               logprob: TokenLogprob | None = None) -> None:
        """The next token of the reply. Raises ValueError if the constraint does not know it."""
        assert self.row is not None
        if self.constraint is not None:
            self.constraint.accept([token_id])
        self.row.write(len(sequence.token_ids), [token_id])
        for one in sequence.pair:
            one.token_ids.append(token_id)
        self.find_breaks(len(sequence.token_ids) - 1, len(sequence.token_ids))
        self.row.num_tokens = len(sequence.token_ids)
        self.last_token = monotonic()
        self.first_token = self.first_token or self.last_token
        self.num_new += 1
        self.request.put(TokenEvent(token_id, logprob))

    def finish(self, sequence: TokenSequence[Job], reason: str, tally: Tally) -> None:
        """Count the request, unless it was only scored, and send the last event."""
        now = monotonic()
        started = self.started or now
        decoding = self.last_token - self.first_token
        total, cached = prompt_tokens(sequence)
        stats = RequestStats(
            prompt_tokens=total, cached_tokens=cached, new_tokens=self.num_new,
            seconds_to_first_token=self.first_token - self.submitted if self.num_new else 0.0,
            prompt_seconds=(self.first_token or now) - started, decode_seconds=decoding,
            tokens_per_second=(self.num_new - 1) / decoding if decoding > 0 else 0.0,
            seed=self.request.seed, drafted_tokens=self.num_drafted, accepted_tokens=self.num_accepted)
        if self.row is not None:
            tally.add_request(reason, stats, started - self.submitted, now - self.submitted)
        self.request.put(FinishedEvent(reason, stats))


def prompt_tokens(sequence: TokenSequence[Job]) -> tuple[int, int]:
    """Tokens of a request's prompts, and how many of them the cache had."""
    return sum(one.prompt_length for one in sequence.pair), sum(one.num_cached for one in sequence.pair)


def sampled_sequence(request: Request, limit: int, num_logprobs: int | None = None,
                     constraint: TokenConstraint | None = None, adapter: AdapterKey = NO_ADAPTER,
                     breaks: SequenceBreaks | None = None, num_begun: int = 0) -> TokenSequence[Job]:
    """A sequence that will be continued as `request.params` say, up to `limit` tokens, and its guide. Raises
    ValueError for impossible tokens."""
    prompt, params = request.prompt, request.params
    capacity = min(len(prompt) + params.max_new_tokens, limit)
    history = torch.empty(capacity, dtype=torch.int32)
    history[:len(prompt)] = torch.tensor(prompt, dtype=torch.int32)
    row = SamplingRow(params, history=history, num_tokens=len(prompt), prompt_length=len(prompt),
                      seed=request.seed, eos_token_ids=request.eos_token_ids)
    job = Job(request, monotonic(), row, num_logprobs=num_logprobs, constraint=constraint, breaks=breaks,
              limit=limit)
    if breaks is not None and "dry" in row.stages:
        row.breaks = torch.zeros(capacity, dtype=torch.uint8)
        job.find_breaks(0, len(prompt))
    sequence = _prompt_sequence(job, prompt, adapter, num_begun)
    if request.guide:
        sequence.partner = _prompt_sequence(job, request.guide, adapter, num_begun)
        sequence.partner.partner, sequence.partner.is_guide = sequence, True
    return sequence


def _prompt_sequence(job: Job, prompt: list[int], adapter: AdapterKey, num_begun: int) -> TokenSequence[Job]:
    turns = [index + 1 for index, token_id in enumerate(prompt) if token_id in job.request.eos_token_ids]
    return TokenSequence(job, list(prompt), len(prompt), reuse_limit=len(prompt) - 1,
                         turns=tuple(turns[-_MAX_TURNS:]), adapter=adapter, num_begun=num_begun)


def scored_sequence(request: Request, scores: Scores, adapter: AdapterKey = NO_ADAPTER) -> TokenSequence[Job]:
    """A sequence of which the logits after each token from `scores.first` on are wanted, and nothing else."""
    prompt = request.prompt
    return TokenSequence(Job(request, monotonic(), None, scores), list(prompt), len(prompt),
                         reuse_limit=scores.first, turns=(scores.first,), adapter=adapter,
                         is_whole=scores.first == 0)
