"""Where a sequence of tokens is broken: what is repeated on both sides of a breaker counts as two for DRY."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.text.tokenizer import Tokenizer


class SequenceBreaks:
    """The breakers of one request, looked for in the text of its tokens, however that is cut into tokens."""

    def __init__(self, breakers: Sequence[str], tokenizer: Tokenizer) -> None:
        self._breakers = [breaker.encode(errors="replace") for breaker in breakers]
        self._tokenizer = tokenizer
        self.reach = max(map(len, self._breakers), default=1)
        """So many tokens before those that are asked for decide on them."""

    def flags(self, token_ids: Sequence[int], first: int) -> list[int]:
        """For each token from `first` on: 1 if a breaker ends in it, else 0."""
        text, ends = bytearray(), []
        for token_id in token_ids:
            text += self._tokenizer.token_bytes(token_id) if token_id < self._tokenizer.vocab_size else b""
            ends.append(len(text))
        found = [0] * len(ends)
        for breaker in self._breakers:
            at = text.find(breaker)
            while at >= 0:
                found[bisect_left(ends, at + len(breaker))] = 1
                at = text.find(breaker, at + 1)
        return found[first:]
