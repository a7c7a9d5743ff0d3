"""Guesses by looking up: where the last tokens occurred before, what followed then may follow now.

(Prompt lookup decoding: https://github.com/apoorvumang/prompt-lookup-decoding)
"""

from __future__ import annotations

from model.engine.job import Job
from model.engine.sequences import Chunk

ORDER = 3
"""Tokens that must be the same."""


class NgramIndex:
    """Where each run of ORDER tokens of one sequence occurred last, but for the one at its very end."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}  # run -> index of what followed it
        self._length = ORDER  # runs that end before this are in the index

    def find(self, token_ids: list[int], limit: int) -> list[int]:
        """What followed when the sequence last ended as it does now; at most `limit` tokens."""
        for end in range(self._length, len(token_ids)):
            self._next[tuple(token_ids[end - ORDER:end])] = end
        self._length = max(self._length, len(token_ids))
        start = self._next.get(tuple(token_ids[-ORDER:]), len(token_ids))
        found = token_ids[start:start + limit]
        return (found * -(-limit // len(found)))[:limit] if found else []  # what reaches the end goes round


class NgramDrafter:
    """An index for each request."""

    seconds_per_token = 0.0

    def __init__(self) -> None:
        self._indices: dict[Job, NgramIndex] = {}

    def find(self, job: Job, token_ids: list[int], limit: int) -> list[int] | None:
        index = self._indices.get(job)
        if index is None:
            index = self._indices[job] = NgramIndex()
        return index.find(token_ids, limit)

    def make(self, wanted: list[tuple[Chunk[Job], int]]) -> list[list[int]]:
        return []

    def forget(self, job: Job) -> None:
        self._indices.pop(job, None)
