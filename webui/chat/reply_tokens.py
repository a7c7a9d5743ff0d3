"""The tokens of a reply as the model tells them, and which of them make up its text.

What a model writes and what is shown differ: thoughts, marks, a name in front, white space and stop strings
are left out, in the middle of a token sometimes. Knows nothing of files and engines.
"""

from __future__ import annotations

import codecs
import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace

from model import ScoredToken

from ..storage.token_files import Alternative, ReplyToken

NUM_OTHERS = 8
MAX_TOKENS = 50_000  # of one reply


class TokenRecorder:
    """Collects the tokens of one reply; `begun` are those of the text that was there before."""

    def __init__(self, begun: Sequence[ReplyToken] = ()) -> None:
        self._begun = list(begun)
        self._tokens: list[ReplyToken] = []

    def take(self, token: ScoredToken) -> None:
        if len(self._tokens) < MAX_TOKENS:
            self._tokens.append(reply_token(token))

    def tokens_of(self, text: str) -> list[ReplyToken] | None:
        """Those that make up the whole text; None if they do not."""
        data, before = text.encode(), b"".join(token.data for token in self._begun)
        if not data.startswith(before) or len(self._tokens) == MAX_TOKENS:
            return None
        found = tokens_within(self._tokens, data[len(before):])
        return None if found is None else [*self._begun, *found]


def reply_token(token: ScoredToken) -> ReplyToken:
    """A token that is part of the model's format has no bytes: it is not seen. What a model rules out, by
    logits of minus infinity, is no alternative."""
    others = [Alternative(other.data, other.logprob, not other.is_control)
              for other in token.top if (other.token_id, other.data) != (token.token_id, token.data)
              and other.logprob > -math.inf]
    return ReplyToken(b"" if token.is_control else token.data, token.logprob, token.entropy,
                      tuple(others[:NUM_OTHERS]))


def as_written(tokens: Sequence[ReplyToken]) -> tuple[str, list[bytes]]:
    """The first tokens as text, as few as end with a whole character, and the others one by one: how a model
    is told of a beginning that it is to go on with."""
    for count in range(1, len(tokens) + 1):
        with contextlib.suppress(UnicodeDecodeError):
            text = b"".join(token.data for token in tokens[:count]).decode()
            return text, [token.data for token in tokens[count:]]
    return "", [token.data for token in tokens]


def piece(data: bytes) -> dict[str, str]:
    """A token's bytes as the page gets them: `text`, and `bytes` in hex where they are no characters."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"text": "", "bytes": data.hex(" ").upper()}


def text_of(tokens: Sequence[ReplyToken]) -> str:
    """Their text, without the beginning of a character at its end."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(b"".join(token.data for token in tokens))


def tokens_within(tokens: Sequence[ReplyToken], data: bytes) -> list[ReplyToken] | None:
    """Of tokens that spell `data` and perhaps something before and after it: those of it, the first and the
    last cut to it. None if they do not spell it."""
    start = b"".join(token.data for token in tokens).rfind(data)
    if start < 0:
        return None
    found, at = [], -start
    for token in tokens:
        end = at + len(token.data)
        piece = token.data[max(0, -at):len(token.data) - max(0, end - len(data))]
        if piece and at < len(data):
            found.append(token if piece == token.data else replace(token, data=piece))
        at = end
    return found
