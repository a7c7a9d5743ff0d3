"""Token ids -> text, one token at a time, without ever showing half a character.

Each token stands for some bytes; a character is shown when its last byte is there. The pieces that come out,
joined, are the text of all tokens at once. Bytes that are no UTF-8 become U+FFFD.
Knows nothing of tokenizers, stop strings or channels.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence

from model.files import ModelLoadError

_MAX_VOCABULARY = 1 << 22


class Detokenizer:
    """One text in the making."""

    def __init__(self, token_bytes: Sequence[bytes], hidden_ids: frozenset[int] = frozenset(),
                 strip_leading_space: bool = False) -> None:
        """`token_bytes`: the bytes of each token id. `hidden_ids`: tokens that are not shown.
        `strip_leading_space`: the text starts a string, where SentencePiece had put a space in front."""
        self._token_bytes = token_bytes
        self._hidden_ids = hidden_ids
        self._strip = strip_leading_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The characters that this token completes; often none."""
        if token_id in self._hidden_ids or not 0 <= token_id < len(self._token_bytes):
            return ""
        data = self._token_bytes[token_id]
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What is still held: an incomplete character, as U+FFFD."""
        return self._decoder.decode(b"", final=True)


def whole_text(tokens: Iterable[bytes]) -> str:
    """The text of tokens, without the beginning of a character at its end."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(b"".join(tokens))


def byte_table(texts: Mapping[str, bytes], ids: Mapping[str, int]) -> list[bytes]:
    """The bytes of each token by its id; ids are checked before anything is allocated."""
    size = max(ids.values(), default=-1) + 1
    if not 0 < size <= _MAX_VOCABULARY or min(ids.values()) < 0:
        raise ModelLoadError(f"token ids up to {size - 1:,}; expected 1 to {_MAX_VOCABULARY:,} tokens")
    table = [b""] * size
    for text, token_id in ids.items():
        table[token_id] = texts[text]
    return table
