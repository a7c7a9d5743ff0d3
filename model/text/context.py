"""Which messages of a long conversation the model still sees.

Stateless: the same conversation is always cut at the same place. The cut moves in steps of about a quarter of
the context, so that from turn to turn the prompt mostly grows at its end and what the engine has cached of it
stays valid. What is long gone is never counted. Knows neither messages' contents nor tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ContextFit:
    """Where the model's memory begins. 0: it sees everything. Otherwise: the system message(s) at the head
    and messages[first_index:]."""

    first_index: int
    prompt_tokens: int
    max_seq_len: int


def token_budget(max_seq_len: int, max_new_tokens: int) -> int:
    """How many tokens a prompt may have if the reply is to have room; at least half of the context."""
    return max_seq_len - min(max_new_tokens, max_seq_len // 2)


def first_kept(tokens_of: Callable[[int], int], lengths: Sequence[int], may_start: Sequence[bool],
               budget: int, step: int) -> int:
    """Index of the first message that stays when all may take `budget` tokens; the last one always stays.

    tokens_of  index -> tokens of a message; asked from the newest on, only as far as the budget goes
    lengths    characters of each message, oldest first; where cuts may lie follows from these alone
    may_start  whether a conversation may begin with this message (a user's); kept to where possible
    step       characters between two places for a cut; smaller ones are tried where a step exceeds the budget
    """
    earliest, tokens = len(lengths), 0
    while earliest and (tokens := tokens + tokens_of(earliest - 1)) <= budget:
        earliest -= 1
    earliest = min(earliest, max(0, len(lengths) - 1))
    if earliest == 0:
        return 0
    for divisor in (1, 2, 4, 8):
        for place in cut_places(lengths, may_start, max(1, step // divisor)):
            if place >= earliest:
                return place
    return next((index for index in range(earliest, len(lengths)) if may_start[index]), earliest)


def cut_places(lengths: Sequence[int], may_start: Sequence[bool], step: int) -> Iterator[int]:
    """Where a cut may lie: at the first message that may start after each whole step of characters.

    A message's place depends on what is before it only, so the places stay as a conversation grows.
    """
    due, before = step, 0
    for index, length in enumerate(lengths):
        if before >= due and may_start[index]:
            yield index
            due = (before // step + 1) * step
        before += length
