"""A step of a scheduler without an engine: what a device takes as computed, and which guesses are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.engine.scheduler import Scheduler
from model.engine.sequences import TokenSequence


def step(scheduler: Scheduler[str], device: Any, draft: int = 0, right: int = 0,
         check: Callable[[TokenSequence[str], int], None] = lambda sequence, rows: None) -> dict[str, int]:
    """Compute one batch, with guesses of so many tokens, of which so many are right; rows by name.

    device  its run() takes the batch
    check   is called with each sequence and its rows before it is computed, and with one row after it
    """
    batch = scheduler.next_batch()
    for chunk in batch.chunks:
        if draft and chunk.is_last and not chunk.is_of_prompt:
            chunk.draft = [100 + i for i in range(scheduler.room_for_draft(chunk, draft))]
        check(chunk.sequence, chunk.num_rows)
    device.run(batch)
    scheduler.computed(batch)
    for chunk in batch.chunks:
        if chunk.is_last:
            accepted = min(right, len(chunk.draft))
            chunk.sequence.token_ids += [*chunk.draft[:accepted], 7]
            scheduler.accept(chunk, accepted)
        check(chunk.sequence, 1)
    return {chunk.sequence.owner: chunk.num_rows for chunk in batch.chunks}
