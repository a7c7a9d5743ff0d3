"""The states of running sequences: which slot is whose, and which snapshots a step makes.

A sequence's slot holds the state after its `num_computed` tokens. Within a step the state after any row can
be written to one more slot (`saves`): after marks of a prompt it stays as a snapshot, and after each row of a
guess until it is known how much of that is right. Lists and integers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic

from model.engine.prefix_cache import Match
from model.engine.sequences import Chunk, Owner, TokenSequence
from model.engine.state_pool import StatePool
from model.sizes import PAGE_SIZE

_SPACING = 512
"""Tokens of a long prompt between snapshots."""


def marks_of(prompt_length: int, start: int, further: Iterable[int] = ()) -> list[int]:
    """After how many tokens of a prompt snapshots are made: where a reply begins (its last token is computed
    anew whenever it is asked again), every so many tokens, and after `further` ones; those beyond `start`."""
    marks = {prompt_length - 1, *range(_SPACING, prompt_length, _SPACING), *further}
    return sorted(mark for mark in marks if start < mark < prompt_length)


class SequenceStates(Generic[Owner]):
    """What a Scheduler keeps of states, in the slots of `pool`."""

    def __init__(self, pool: StatePool) -> None:
        self.pool = pool
        self.copies: list[tuple[int, int]] = []  # (source slot, target slot), for the step being planned

    def give(self, sequence: TokenSequence[Owner], match: Match, known: Match) -> None:
        """A slot, with what the snapshot of `match` holds; call only while the pool has one. `known`: what
        the pages alone would give. Where that ends, this prompt and another part; so others may, too."""
        if match.state >= 0:
            self.pool.use(match.state)
        slot = self.pool.allocate()
        assert slot is not None
        if match.state >= 0 and slot != match.state:
            self.copies.append((match.state, slot))
        sequence.slot = slot
        sequence.marks = marks_of(sequence.prompt_length, match.num_tokens,
                                  (*sequence.turns, known.num_tokens))

    def awaits_copy(self, sequence: TokenSequence[Owner]) -> bool:
        """Whether its state is to come from a snapshot in the step being planned."""
        return any(target == sequence.slot for _, target in self.copies)

    def uncopy(self, sequence: TokenSequence[Owner]) -> None:
        """If its state is not there yet, it will not be needed any more."""
        if self.awaits_copy(sequence):
            self.copies = [copy for copy in self.copies if copy[1] != sequence.slot]
            self.drop(sequence)

    def plan_snapshots(self, chunks: Sequence[Chunk[Owner]]) -> None:
        """Slots for the states after the marks of prompts that these chunks pass."""
        for chunk in chunks:
            for mark in chunk.sequence.marks if chunk.is_of_prompt else ():
                if chunk.start < mark <= chunk.start + chunk.count:
                    slot = self.pool.allocate_for_snapshot()
                    if slot is None:
                        return
                    chunk.sequence.saves[mark] = slot

    def save_rows(self, chunk: Chunk[Owner], wanted: int) -> int:
        """How many tokens of a draft can be taken back: there is a slot for the state before each."""
        first = chunk.start + chunk.count
        for position in range(first, first + wanted):
            slot = self.pool.allocate_spare()
            if slot is None:
                return position - first
            chunk.sequence.saves[position] = slot
        return wanted

    def accept(self, chunk: Chunk[Owner], count: int) -> None:
        """The first `count` tokens of the chunk's draft are right: the state is the one after them."""
        sequence = chunk.sequence
        if count < len(chunk.draft):
            right = sequence.saves.pop(chunk.start + chunk.count + count)
            self.pool.release(sequence.slot)
            sequence.slot = right
        self._drop_saves(sequence)

    def keep_snapshots(self, sequence: TokenSequence[Owner]) -> None:
        """The marks that a step has passed."""
        for position, slot in sorted(sequence.saves.items()):
            self._keep(sequence, position, slot)
        sequence.saves.clear()

    def keep(self, sequence: TokenSequence[Owner]) -> None:
        """It runs no more: its slot becomes a snapshot, for itself or whoever continues it."""
        if sequence.slot >= 0 and sequence.num_computed:
            self._keep(sequence, sequence.num_computed, sequence.slot)
            sequence.slot = -1
        self.drop(sequence)

    def drop(self, sequence: TokenSequence[Owner]) -> None:
        """Its slots hold nothing of use."""
        self._drop_saves(sequence)
        if sequence.slot >= 0:
            self.pool.release(sequence.slot)
            sequence.slot = -1

    def _keep(self, sequence: TokenSequence[Owner], position: int, slot: int) -> None:
        count = position // PAGE_SIZE
        self.pool.keep(slot, sequence.chains[count], tuple(sequence.token_ids[count * PAGE_SIZE:position]))

    def _drop_saves(self, sequence: TokenSequence[Owner]) -> None:
        for slot in sequence.saves.values():
            self.pool.release(slot)
        sequence.saves.clear()
