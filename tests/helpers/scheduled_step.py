"""A step of a scheduler without an engine: what a device takes as computed, and which guesses are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.engine.scheduler import Scheduler
from model.engine.sequences import TokenSequence


def with_guide(sequence: TokenSequence[str], guide: TokenSequence[str]) -> TokenSequence[str]:
    """`sequence`, with a partner."""
    sequence.partner, guide.partner, guide.is_guide = guide, sequence, True
    return sequence


def add_token(sequence: TokenSequence[str], token_id: int) -> None:
    """To all of its request, once all of it is computed."""
    if not any(one.num_remaining for one in sequence.pair):
        for one in sequence.pair:
            one.token_ids.append(token_id)


def step(scheduler: Scheduler[str], device: Any, draft: int = 0, right: int = 0,
         check: Callable[[TokenSequence[str], int], None] = lambda sequence, rows: None) -> dict[str, int]:
    """Compute one batch, with guesses of so many tokens, of which so many are right; rows by name.

    device  its run() takes the batch
    check   is called with each sequence and its rows before it is computed, and with one row after it
    """
    batch = scheduler.next_batch()
    for chunk in batch.chunks:
        if draft and chunk.is_last and not chunk.is_of_prompt and chunk.sequence.partner is None:
            chunk.draft = [100 + i for i in range(scheduler.room_for_draft(chunk, draft))]
        check(chunk.sequence, chunk.num_rows)
    device.run(batch)
    scheduler.computed(batch)
    ends = [chunk for chunk in batch.chunks if chunk.is_last]
    for chunk in batch.chunks:
        if chunk in ends and chunk.sequence.partner is not None:
            scheduler.accept(chunk, 0)
            add_token(chunk.sequence, 7)
        elif chunk in ends:
            accepted = min(right, len(chunk.draft))
            chunk.sequence.token_ids += [*chunk.draft[:accepted], 7]
            scheduler.accept(chunk, accepted)
        check(chunk.sequence, 1)
    return {chunk.sequence.owner: chunk.num_rows for chunk in batch.chunks}
