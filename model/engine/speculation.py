"""Which tokens to guess ahead, and how many: a guess costs rows of a step and saves steps where it is right.

How often a sequence's guesses were right lately and what steps of so many rows took are measured as it goes;
a guess is computed only where that lets more tokens a second come out. It never changes them: see runner.py.
Knows numbers and token ids: no tensors, no model.
"""

from __future__ import annotations

from typing import Protocol

from model.engine.draft_record import StepCosts
from model.engine.job import Job
from model.engine.scheduler import Scheduler
from model.engine.sequences import Batch, Chunk

MAX_DRAFT = 16
"""Tokens of a draft at most."""
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Tokens of all drafts of a step together: few sizes, since each has to be tried, recorded and measured."""
_LEAST_GAIN = 1.15  # in tokens a second as measured, below which no guess is worth its trouble
_LEAST_CHANCE = 0.05  # of a token to be right, below which its row costs more
_Wanted = tuple[Chunk[Job], int, list[int] | None]
"""A chunk, how many tokens of a guess for it, and the guess; None: it is to be made."""


class Drafter(Protocol):
    """Something that guesses how a sequence goes on."""

    seconds_per_token: float  # what a guess costs by itself

    def find(self, job: Job, token_ids: list[int], limit: int) -> list[int] | None:
        """A guess of at most `limit` tokens that costs nothing, or None: only `make` can tell."""

    def make(self, wanted: list[tuple[Chunk[Job], int]]) -> list[list[int]]:
        """A guess for each chunk of at most so many tokens."""

    def forget(self, job: Job) -> None:
        """This job has ended."""


class Speculator:
    """Adds drafts to the steps of a scheduler, as many as pay."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.costs = StepCosts()
        self._rest = 0        # steps of as many sequences as now in which nobody is looked at
        self._num_chunks = 0

    def add_drafts(self, batch: Batch[Job], scheduler: Scheduler[Job]) -> None:
        """Put guesses into the chunks that decode."""
        wanted = self._wanted(batch, scheduler)
        if not wanted:
            return
        wanted = [(chunk, scheduler.room_for_draft(chunk, count), guess) for chunk, count, guess in wanted]
        made = self.drafter.make([(chunk, count) for chunk, count, guess in wanted if guess is None])
        for chunk, count, guess in wanted:
            chunk.draft = _possible(chunk.sequence.owner, made.pop(0) if guess is None else guess[:count])

    def would_guess(self, batch: Batch[Job], scheduler: Scheduler[Job]) -> bool:
        """Whether `add_drafts` would put any there: for a step that is on its way without."""
        return bool(self._wanted(batch, scheduler))

    def _wanted(self, batch: Batch[Job], scheduler: Scheduler[Job]) -> list[_Wanted]:
        """The guesses that are worth computing. While none was for long, most steps go without a look: what
        that takes in Python is 3 to 6% of a small model's step."""
        if self._rest and self._num_chunks == len(batch.chunks):
            self._rest -= 1
            return []
        wanted = self._looked_for(batch, scheduler)
        self._num_chunks = len(batch.chunks)
        self._rest = 0 if wanted else max(0, min(chunk.sequence.owner.drafts.next_look - chunk.start - 2
                                                 for chunk in batch.chunks))
        return wanted

    def _looked_for(self, batch: Batch[Job], scheduler: Scheduler[Job]) -> list[_Wanted]:
        found: list[tuple[Chunk[Job], list[int] | None, int]] = []
        for chunk in batch.chunks:
            job = chunk.sequence.owner
            if chunk.start + 1 < job.drafts.next_look or chunk.count != 1 or not chunk.is_last \
                    or not (limit := self._limit(chunk)):
                continue
            token_ids = chunk.sequence.token_ids
            job.drafts.look(token_ids)
            guess = self.drafter.find(job, token_ids, limit)
            if guess == []:
                job.drafts.leave(guess)
            else:
                found.append((chunk, guess, limit if guess is None else len(guess)))
        if not found:
            return []
        counts = self.choose([(chunk.sequence.owner.drafts.rate, length) for chunk, _, length in found],
                             batch.num_rows, scheduler.max_tokens - batch.num_rows)
        for (chunk, guess, _), count in zip(found, counts, strict=True):
            if not count:
                chunk.sequence.owner.drafts.leave(guess or [])
        return [(chunk, count, guess) for (chunk, guess, _), count in zip(found, counts, strict=True)
                if count]

    def choose(self, candidates: list[tuple[float, int]], rows: int, room: int) -> list[int]:
        """How many tokens of each guess to compute so that most tokens a second come out.

        candidates  (how likely a token of it is right, its length) of each guess
        rows, room  of the step without guesses, and how many more there may be
        """
        steps, counts = [], [0] * len(candidates)
        for index, (rate, length) in enumerate(candidates):
            chance = rate
            while chance > _LEAST_CHANCE and length > 0:
                steps.append((chance, index))
                chance, length = chance * rate, length - 1
        if rows + sum(chance for chance, _ in steps) < _LEAST_GAIN * rows:
            return counts
        steps = sorted(steps, key=lambda step: -step[0])[:max(0, min(room, _SIZES[-1]))]
        gain, best, best_count = float(rows), _LEAST_GAIN * rows / self.costs.of(rows), 0
        for count, (chance, _) in enumerate(steps, 1):
            gain += chance
            if count not in _SIZES:
                continue
            speed = gain / (self.costs.of(rows + count) + self.drafter.seconds_per_token * count)
            if speed > best:
                best, best_count = speed, count
        for _, index in steps[:best_count]:
            counts[index] += 1
        return counts

    def computed(self, batch: Batch[Job], seconds: float) -> None:
        """A step that took so long."""
        if not self._rest and all(chunk.count == 1 for chunk in batch.chunks):
            self.costs.note(batch.num_rows, seconds)

    def checked(self, chunk: Chunk[Job], tokens: list[int]) -> None:
        """What came out after a chunk with a draft: the right tokens of that, and one more."""
        job, num_tokens = chunk.sequence.owner, len(chunk.sequence.token_ids) + len(tokens)
        job.num_drafted += len(chunk.draft)
        job.drafts.checked(len(tokens) - 1, min(len(tokens), len(chunk.draft)), num_tokens)

    def forget(self, job: Job) -> None:
        """This job has ended."""
        self._rest = 0
        self.drafter.forget(job)

    def _limit(self, chunk: Chunk[Job]) -> int:
        """The draft must leave room for one more token in the reply and in the context; none for a prompt,
        nor where it depends on each token how the next one is chosen, or a guide would have to read it."""
        job = chunk.sequence.owner
        if job.row is None or not job.num_new or job.row.is_learning or chunk.sequence.partner is not None:
            return 0
        return min(MAX_DRAFT, job.row.history.numel() - job.row.num_tokens - 1)


def _possible(job: Job, draft: list[int]) -> list[int]:
    """The beginning of a draft that the reply could have: up to its end, and as its constraint allows."""
    ends = (index for index, token_id in enumerate(draft) if token_id in job.request.eos_token_ids)
    draft = draft[:next(ends, len(draft))]
    return draft if job.constraint is None else draft[:job.constraint.count_possible(draft)]
