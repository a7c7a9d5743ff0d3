"""Guesses by a smaller model of the same vocabulary, with a cache of its own.

A guess is sampled as the real token will be, with the same settings and random number, so that it is right as
often as the two models agree. A long prompt is read in parts beside the steps of the large model. Where
layers keep a state, the one before a guess stays until it is known what of that was right: if not all was,
the small model goes on from there and reads the few tokens since once more, in one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import torch

from model.engine.job import Job
from model.engine.page_pool import PagePool, Table
from model.engine.runner import Sampler
from model.engine.sequences import Chunk, TokenSequence
from model.engine.step_tensors import recorded_steps
from model.network.transformer import Transformer
from model.sizes import LOGIT_ROWS, PAGE_SIZE


@dataclass
class _Mirror:
    """A sequence as the small model has it."""

    sequence: TokenSequence[None]
    num_taken: int = 0   # tokens that it has from the large model's sequence; guesses follow
    spare: int = -1      # slot for the state before guesses, where layers keep one
    num_spared: int = 0  # tokens after which that is the state; 0: none yet


class DraftModel:
    """A Drafter. What it has computed of a request is kept until the request ends."""

    def __init__(self, transformer: Transformer, pools: list[PagePool], max_sequences: int,
                 max_seq_len: int, num_slots: int = 0) -> None:
        """pools: the pages of each cache group; num_slots: of states, where layers keep one."""
        self.seconds_per_token = 0.0
        self._transformer = transformer
        self._max_seq_len = max_seq_len
        self._pools = pools
        self._free_slots = list(range(num_slots))
        self._mirrors: dict[Job, _Mirror] = {}
        self._sampler = Sampler(transformer.stages[-1].place)
        spec, self._device = transformer.config.spec, transformer.devices[-1]
        self._selected = torch.empty(LOGIT_ROWS, spec.hidden_size, device=self._device)
        self._logits = torch.empty(LOGIT_ROWS, spec.vocab_size, device=self._device)
        self._step = recorded_steps(transformer, max_sequences, max_seq_len, self._logits,
                                    transformer.least_prompt_rows)

    def find(self, job: Job, token_ids: list[int], limit: int) -> list[int] | None:
        """It must be computed; none where its own context is too short."""
        return None if len(token_ids) + limit <= self._max_seq_len else []

    def forget(self, job: Job) -> None:
        mirror = self._mirrors.pop(job, None)
        if mirror is not None:
            for pool, table in zip(self._pools, mirror.sequence.tables, strict=True):
                pool.release(table.held)
            if mirror.spare >= 0:
                self._free_slots += (mirror.sequence.slot, mirror.spare)

    def make(self, wanted: list[tuple[Chunk[Job], int]]) -> list[list[int]]:
        """Empty where pages or slots are wanting, or where a long prompt is not read to its end yet."""
        started = monotonic()
        drafts: list[list[int]] = [[] for _ in wanted]
        budget, chunks = self._transformer.max_tokens, {}
        for index, (chunk, count) in enumerate(wanted[:LOGIT_ROWS]):
            kept = self._mirror(chunk.sequence)
            if kept is None:
                continue
            mirror = kept.sequence
            num_rows = self._with_pages(mirror, min(mirror.num_alike, budget), count)
            if num_rows:
                chunks[index] = Chunk(mirror, mirror.num_computed, num_rows)
                budget -= num_rows
            if kept.spare >= 0 and num_rows == mirror.num_remaining:
                kept.num_spared = len(mirror.token_ids)
                mirror.saves = {kept.num_spared: kept.spare}
        was_long = budget < self._transformer.max_tokens // 2
        while chunks:
            self._guess({index: (chunk, wanted[index][0].sequence.owner) for index, chunk in chunks.items()},
                        drafts)
            chunks = {index: Chunk(chunk.sequence, chunk.sequence.num_computed, 1)
                      for index, chunk in chunks.items() if 0 < len(drafts[index]) < wanted[index][1]}
        num_made = sum(map(len, drafts))
        if num_made and not was_long:
            seconds, before = (monotonic() - started) / num_made, self.seconds_per_token
            self.seconds_per_token = before + 0.2 * (seconds - before) if before else seconds
        return drafts

    def _guess(self, chunks: dict[int, tuple[Chunk[None], Job]], drafts: list[list[int]]) -> None:
        """Compute these chunks; those that reach the end of their sequence get one more token."""
        chunks = dict(sorted(chunks.items(), key=lambda item: self._step.is_prompt(item[1][0])))
        hidden = self._transformer.forward(self._step.fill([chunk for chunk, _ in chunks.values()]))
        ends, rows, indices, first = [], [], [], 0
        for index, (chunk, job) in chunks.items():
            mirror = chunk.sequence
            first += chunk.count
            mirror.num_computed += chunk.count
            if mirror.num_remaining == 0 and job.row is not None:
                ends.append(first - 1)
                rows.append(job.row.at(len(mirror.token_ids)))
                rows[-1].allowed = None  # the mask is for another place; what it forbids is cut off later
                indices.append(index)
        if not rows:
            return
        logits = self._logits[:len(rows)]
        self._transformer.logits(torch.index_select(hidden, 0, torch.tensor(ends).to(self._device),
                                                    out=self._selected[:len(rows)]), logits)
        for index, row, token_id in zip(indices, rows, self._sampler.choose(logits, rows), strict=True):
            if token_id >= 0 and row.num_tokens < row.history.numel():
                row.write(row.num_tokens, [token_id])  # penalties of the next guess count it
                chunks[index][0].sequence.token_ids.append(token_id)
                drafts[index].append(token_id)

    def _mirror(self, sequence: TokenSequence[Job]) -> _Mirror | None:
        """The sequence as the small model has it, brought up to date; None if there is no slot for its state.
        It will not be taken back beyond where it goes on now: what the large model has agreed to stays."""
        kept = self._mirrors.get(sequence.owner) or self._new_mirror(sequence)
        if kept is None:
            return None
        mirror, agreed = kept.sequence, kept.num_taken
        known = min(mirror.num_computed, len(sequence.token_ids))
        while agreed < known and mirror.token_ids[agreed] == sequence.token_ids[agreed]:
            agreed += 1
        goes_on = min(mirror.num_computed, agreed, len(sequence.token_ids) - 1)
        if kept.spare >= 0 and goes_on < mirror.num_computed:
            if not 0 < kept.num_spared <= goes_on:  # of a reply that was thrown out and is at its token again
                self.forget(sequence.owner)
                return self._mirror(sequence)
            mirror.slot, kept.spare, goes_on = kept.spare, mirror.slot, kept.num_spared
            kept.num_spared = 0
        mirror.num_computed = goes_on
        mirror.token_ids, kept.num_taken = list(sequence.token_ids), len(sequence.token_ids)
        for pool, table in zip(self._pools, mirror.tables, strict=True):
            pool.release_behind(table, mirror.num_computed)
        return kept

    def _new_mirror(self, sequence: TokenSequence[Job]) -> _Mirror | None:
        mirror = TokenSequence(None, [], sequence.prompt_length, 0, tables=[Table() for _ in self._pools])
        kept = _Mirror(mirror)
        if self._transformer.config.spec.has_states:
            if len(self._free_slots) < 2:
                return None
            mirror.slot, kept.spare = self._free_slots.pop(), self._free_slots.pop()
        self._mirrors[sequence.owner] = kept
        return kept

    def _with_pages(self, mirror: TokenSequence[None], num_rows: int, num_guesses: int) -> int:
        """How many of the next rows there are pages for; the last one if guesses after it have some, too."""
        start = mirror.num_computed
        end = start + num_rows + (num_guesses if num_rows == mirror.num_remaining else 0)
        for pool, table in zip(self._pools, mirror.tables, strict=True):
            pool.extend(table, end)
        room = min(len(table.pages) for table in mirror.tables) * PAGE_SIZE - start
        return num_rows if start + room >= end else max(0, min(num_rows, room, mirror.num_remaining - 1))
