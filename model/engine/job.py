"""What the engine keeps of a request while it runs: its sampling state, its clock, its scores."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from model.engine.request import FinishedEvent, PromptProgress, Request, RequestStats, TokenEvent
from model.engine.scheduler import Sequence
from model.kernels.sampling import SamplingRow


@dataclass(eq=False)
class Job:
    """The owner of a scheduler's Sequence. Either `row` (it is sampled) or `scores` (it is only scored)."""

    request: Request
    submitted: float
    row: SamplingRow | None
    scores: Tensor | None = None    # float32 [prompt - first_scored, vocab_size], filled chunk by chunk
    first_scored: int = 0
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    num_new: int = 0

    def report_prompt(self, sequence: Sequence[Job]) -> None:
        """Tell how much of the prompt is in the cache; nothing once the reply has begun."""
        if not self.num_new:
            total = sequence.prompt_length
            self.request.put(PromptProgress(min(sequence.num_computed, total), total, sequence.num_cached))

    def append(self, sequence: Sequence[Job], token_id: int) -> None:
        """The next token of the reply."""
        assert self.row is not None
        self.row.history[len(sequence.token_ids)] = token_id
        sequence.token_ids.append(token_id)
        self.row.num_tokens = len(sequence.token_ids)
        self.last_token = monotonic()
        self.first_token = self.first_token or self.last_token
        self.num_new += 1
        self.request.put(TokenEvent(token_id))

    def finish(self, sequence: Sequence[Job], reason: str) -> None:
        """Send the last event."""
        now = monotonic()
        started = self.started or now
        decoding = self.last_token - self.first_token
        self.request.put(FinishedEvent(reason, RequestStats(
            prompt_tokens=sequence.prompt_length, cached_tokens=sequence.num_cached, new_tokens=self.num_new,
            seconds_to_first_token=self.first_token - self.submitted if self.num_new else 0.0,
            prompt_seconds=(self.first_token or now) - started, decode_seconds=decoding,
            tokens_per_second=(self.num_new - 1) / decoding if decoding > 0 else 0.0,
            seed=self.request.seed)))


def sampled_sequence(request: Request, max_seq_len: int) -> Sequence[Job]:
    """A sequence that will be continued as `request.params` say. Raises ValueError for impossible tokens."""
    prompt, params = request.prompt, request.params
    capacity = min(len(prompt) + params.max_new_tokens, max_seq_len)
    history = torch.empty(capacity, dtype=torch.int32)
    history[:len(prompt)] = torch.tensor(prompt, dtype=torch.int32)
    row = SamplingRow(params, history=history, num_tokens=len(prompt), prompt_length=len(prompt),
                      seed=request.seed, eos_token_ids=request.eos_token_ids)
    return Sequence(Job(request, monotonic(), row), list(prompt), len(prompt), reuse_limit=len(prompt) - 1)


def scored_sequence(request: Request, first: int, vocab_size: int) -> Sequence[Job]:
    """A sequence of which the logits after each token from `first` on are wanted, and nothing else."""
    prompt = request.prompt
    scores = torch.empty(len(prompt) - first, vocab_size)
    job = Job(request, monotonic(), None, scores, first)
    return Sequence(job, list(prompt), len(prompt), reuse_limit=first)
