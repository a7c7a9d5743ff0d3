"""From the model's text to what is shown: no name in front, no white space around.

A small state machine over pieces: what may still turn out to be the bot's own "Name:" or trailing space is
held back until the next piece decides. Knows nothing of tokens.
"""

from __future__ import annotations


class OwnNameFilter:
    """The visible text of one reply, piece by piece."""

    def __init__(self, name: str, *, continues: bool = False) -> None:
        self._prefix = f"{name}:"
        self._at_start = not continues
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown now that `piece` has come; may be empty."""
        self._held += piece
        if self._at_start:
            self._held = self._held.lstrip()
            if len(self._held) <= len(self._prefix) and self._prefix.startswith(self._held):
                return ""
            self._begin()
        if not self._held:
            return ""
        visible = self._held.rstrip()
        self._held = self._held[len(visible):]
        return visible

    def finish(self) -> str:
        """The reply ended: what was held back is text after all, and space at the end is dropped."""
        if self._at_start:
            self._begin()
        visible, self._held = self._held.rstrip(), ""
        return visible

    def _begin(self) -> None:
        """Decide about the name in front, once enough has come to know."""
        self._held = self._held.removeprefix(self._prefix).lstrip()
        self._at_start = not self._held
        if self._at_start:
            self._prefix = ""
