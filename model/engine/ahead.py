"""Steps in a row: where it can, a device begins the next one before the host knows the tokens of this one.

Between two steps of a GPU the host would read tokens, send events and plan: a fifth of a step. So a step in
which every sequence merely goes on by a token is begun at once behind the one in front, and the device itself
hands on the tokens. Where the host must know a token first (for a mask, a guess, a guide), it waits. What was
computed for a sequence that turns out to have ended is thrown away; it lies behind all that counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from model.engine.job import Job
from model.engine.runner import Runner, Sampled, TokensToCome
from model.engine.scheduler import Scheduler
from model.engine.sequences import Batch, Chunk
from model.engine.speculation import Speculator
from model.sizes import LOGIT_ROWS

_TO_COME = 0
"""In the place of a token that only the device knows."""


@dataclass(eq=False)
class _Begun:
    """A step that the device computes."""

    batch: Batch[Job]          # without those that have ended since
    chunks: list[Chunk[Job]]   # all of it
    tokens: TokensToCome       # of `chunks`
    began: float


class Steps:
    """The steps of one engine: plan one, then run it."""

    def __init__(self, runner: Runner, scheduler: Scheduler[Job], is_wanted: Callable[[], bool]) -> None:
        """is_wanted: whether somebody waits for the present step to be over, other than its sequences."""
        self._runner, self._scheduler, self._is_wanted = runner, scheduler, is_wanted
        self._begun: _Begun | None = None
        self._would_guess = False
        self._last_read = 0.0
        self.seconds = 0.0
        """That the last step took."""
        self.num_ahead = 0
        """Steps that were begun before the tokens in front of them were known."""

    def plan(self, speculator: Speculator | None) -> Batch[Job]:
        """The next step, which may have begun. Call only while there is work."""
        if self._begun is not None:
            batch = self._begun.batch
            batch.chunks = [chunk for chunk in batch.chunks if chunk.sequence in self._scheduler.running]
            for chunk in batch.chunks:  # the token in front is known by now
                chunk.count, chunk.draft = 1, []
            if batch.chunks:
                self._would_guess = speculator is not None and speculator.would_guess(batch, self._scheduler)
                return batch
            self._begun = None
        self._would_guess = False
        batch = self._scheduler.next_batch()
        if speculator is not None:
            speculator.add_drafts(batch, self._scheduler)
        return batch

    def run(self, batch: Batch[Job]) -> list[Sampled]:
        """What follows every sequence of the planned batch that has come to its end."""
        begun, self._begun = self._begun, None
        if begun is None:
            self._runner.rotate_for(batch.rotated_for)
            if not (self._runner.runs_ahead and len(batch.chunks) <= LOGIT_ROWS and not batch.copies
                    and all(map(_is_plain, batch.chunks))):
                began = monotonic()
                found = self._runner.run(batch)
                self.seconds = monotonic() - began
                return found
            begun = _Begun(batch, batch.chunks, self._runner.begin(batch.chunks), monotonic())
        if (following := self._following(begun)) is not None:
            tokens = self._runner.begin(following.chunks, begun.tokens)
            self._begun = _Begun(following, following.chunks, tokens, monotonic())
            self.num_ahead += 1
        read = begun.tokens.read()
        now = monotonic()
        self.seconds, self._last_read = now - max(begun.began, self._last_read), now
        alive = set(batch.chunks)
        return [Sampled(chunk, tokens=[token]) for chunk, token in zip(begun.chunks, read, strict=True)
                if chunk in alive]

    def forget(self) -> None:
        """Nobody waits for the step that has begun any more."""
        self._begun = None

    def _following(self, begun: _Begun) -> Batch[Job] | None:
        """The step after one whose tokens are not known, if they need not be."""
        chunks, scheduler = begun.batch.chunks, self._scheduler
        if (len(chunks) < len(begun.chunks) or len(chunks) < len(scheduler.running) or scheduler.waiting
                or self._would_guess or self._is_wanted() or not all(map(_goes_on, chunks))
                or any(scheduler.room_for_draft(chunk, 1) < 1 for chunk in chunks)):
            return None
        return Batch([Chunk(chunk.sequence, chunk.start + 1, 0, [_TO_COME]) for chunk in chunks], [])


def _is_plain(chunk: Chunk[Job]) -> bool:
    """Whether one token is wanted, chosen by what the device is told at once, and nothing beside it."""
    job = chunk.sequence.owner
    return (chunk.num_rows == 1 and chunk.is_last and job.row is not None and chunk.sequence.partner is None
            and job.num_logprobs is None and job.constraint is None and not job.row.is_learning
            and job.row.breaks is None)


def _goes_on(chunk: Chunk[Job]) -> bool:
    """Whether, unless the token says so, the reply does not end with the one that is being chosen."""
    job = chunk.sequence.owner
    assert job.row is not None
    return chunk.start + 2 < job.row.history.numel() and not job.request.cancelled
