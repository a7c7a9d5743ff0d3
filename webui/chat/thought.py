"""How long a reply thinks before it answers. Knows nothing of models but what comes of them."""

from __future__ import annotations

import time

from model import TextDelta

from ..storage.schema import MAX_REPLY_NUMBER, Message


class Thought:
    """How long a reply has thought so far, in tokens and seconds."""

    def __init__(self) -> None:
        self.tokens, self.seconds = 0, 0.0
        self._began: float | None = None
        self.is_open = False

    def take(self, delta: TextDelta) -> bool:
        """True for the first words of an answer after it."""
        now = time.monotonic()
        if delta.channel == "think":
            self.tokens, self.is_open = delta.num_tokens_so_far, True
            self._began = self._began or now
        ended = self.is_open and delta.channel == "text"
        if self.is_open and self._began is not None:
            self.seconds = now - self._began
        self.is_open = self.is_open and not ended
        return ended

    def numbers(self, before: Message) -> dict[str, float]:
        """As a message has them: with those of the same thought before it went on."""
        if not self.tokens:
            return {}
        return {"thinking_tokens": min(self.tokens + (before.get("thinking_tokens") or 0), MAX_REPLY_NUMBER),
                "thinking_seconds": round(self.seconds + (before.get("thinking_seconds") or 0), 3)}
