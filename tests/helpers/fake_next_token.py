"""What may come next, by script: forty words, each less likely than the one before, and 460 odd tokens.

The conversation was "alpha beta gamma alpha beta", so that DRY would keep gamma from coming again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch

from model import NextToken, PromptProgress, ReplyDone, RequestStats
from model.engine.next_token import next_logits

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
TEXTS = (*(f" {name}".encode() for name in NAMES), b"\n", b"<end>", b"\xf0\x9f", b"\t\x1b[0m",
         *(f" word{number}".encode() for number in range(26)))
END = TEXTS.index(b"<end>")
HISTORY = [0, 1, 2, 0, 1]
VOCAB_SIZE = 500


def next_token(reply_length: int = 0) -> NextToken:
    """With as many tokens of the history as the reply's."""
    logits = torch.cat([8 - 0.4 * torch.arange(len(TEXTS)), torch.linspace(-9, -12, VOCAB_SIZE - len(TEXTS))])
    found = next_logits(logits, HISTORY, reply_length, others=[END])
    texts = tuple(TEXTS[one.token_id] if one.token_id < len(TEXTS) else b"" for one in found.candidates)
    return NextToken(found, texts, frozenset([END]), frozenset([END]), len(HISTORY), reply_length)


class FakeReading:
    """See NextTokenReading; it waits at the model's gate."""

    first_index, is_shortened = 0, False

    def __init__(self, model: Any, prompt_tokens: int, found: NextToken) -> None:
        self.prompt_tokens = prompt_tokens
        self._model, self._found = model, found
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def events(self) -> Iterator[Any]:
        stats = RequestStats(self.prompt_tokens, 0, 0, 0.0, 0.0, 0.0, 0.0, 0)
        yield PromptProgress(self.prompt_tokens, self.prompt_tokens, 0)
        while not self._model.gate.wait(0.005):
            if self._cancelled.is_set():
                yield ReplyDone("cancelled", stats)
                return
        yield self._found
        yield ReplyDone("length", stats)
