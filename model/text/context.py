"""Which messages of a long conversation the model still sees.

Stateless: the same conversation is always cut at the same place. The cut moves in steps of about a quarter of
the context, so that from turn to turn the prompt mostly grows at its end and what the engine has cached of it
stays valid; it moves only when it must, and never past a long message (a document that somebody asks about)
that still fits. What is long gone is never counted. Knows neither messages' contents nor tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class ContextFit:
    """Where the model's memory begins. 0: it sees everything. Otherwise: the system message(s) at the head,
    pinned messages, and messages[first_index:]. is_shortened: of the last message it sees the beginning and
    the end. is_exact: tokens were counted, not estimated. max_seq_len 0: not known."""

    first_index: int
    prompt_tokens: int
    max_seq_len: int
    is_shortened: bool = False
    is_exact: bool = True


def token_budget(max_seq_len: int, max_new_tokens: int) -> int:
    """How many tokens a prompt may have if the reply is to have room; at least half of the context."""
    return max_seq_len - min(max_new_tokens, max_seq_len // 2)


def first_kept(tokens_of: Callable[[int], int], lengths: Sequence[int], may_start: Sequence[bool],
               budget: int, step: int) -> int:
    """Index of the first message that stays when all may take `budget` tokens; the last one always stays.

    tokens_of  index -> tokens of a message; asked from the newest on, only as far as the budget goes
    lengths    bytes of each message, oldest first; where cuts may lie follows from these alone
    may_start  whether a conversation may begin with this message (a user's); kept to where possible
    step       bytes between two places for a cut; halved until what fits has two, as in a text of many tokens
    """
    earliest, tokens = len(lengths), 0
    while earliest and (tokens := tokens + tokens_of(earliest - 1)) <= budget:
        earliest -= 1
    earliest = min(earliest, max(0, len(lengths) - 1))
    if earliest == 0:
        return 0
    fits, width = sum(lengths[earliest:]), float(step)
    while width > 1 and 2 * width > fits:
        width /= 2  # the places of a step are among those of half of it
    places = (place for place in cut_places(lengths, may_start, width) if place >= earliest)
    starts = (index for index in range(earliest, len(lengths)) if may_start[index])
    return next(places, next(starts, earliest))


def cut_places(lengths: Sequence[int], may_start: Sequence[bool], step: float) -> Iterator[int]:
    """Where a cut may lie: at the first message that may start after each whole step of bytes, and before a
    turn (all until the next that may start) of a step or more, so that it is not left out while it fits.

    Whether a message is a place depends on what is before it and on its own turn, so the places stay as a
    conversation grows.
    """
    starts = [index for index, may in enumerate(may_start) if may]
    before = [0, *accumulate(lengths)]
    due = step
    for index, end in pairwise([*starts, len(lengths)]):
        if index and (before[index] >= due or before[end] - before[index] >= step):
            yield index
        if before[index] >= due:
            due = (before[index] // step + 1) * step
