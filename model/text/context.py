"""Which messages of a long conversation the model still sees.

Stateless: the same conversation is always cut at the same place. The cut moves in steps of a quarter of the
context, so that from turn to turn the prompt mostly grows at its end and what the engine has cached of it
stays valid. Counts only; knows neither messages' contents nor tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def first_kept(sizes: Sequence[int], may_start: Sequence[bool], excess: int, step: int) -> int:
    """Index of the first message that stays when at least `excess` tokens must go.

    sizes      tokens of each message, oldest first
    may_start  whether a conversation may begin with this message (a user's); kept to where possible
    step       tokens; what goes is a multiple of it, rounded up to whole messages
    """
    if excess <= 0 or not sizes:
        return 0
    to_drop = -(-excess // step) * step
    dropped = index = 0
    while index < len(sizes) - 1 and dropped < to_drop:
        dropped += sizes[index]
        index += 1
    return next((later for later in range(index, len(sizes)) if may_start[later]), index)
