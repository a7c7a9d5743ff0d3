"""From the text a model writes to the text a reader sees: thinking apart, stop strings out.

Both parts work on a stream: what could still become a tag or a stop string is held back until it is clear.
However the text is cut into pieces, what comes out, joined, is the same. Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def _held(text: str, targets: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `targets` without completing it."""
    longest = max(map(len, targets), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(target.startswith(text[-size:]) for target in targets):
            return size
    return 0


class StopFilter:
    """Lets text through up to the first stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(dict.fromkeys(stop))
        self._buffer = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What is certain to come before any stop string. The stop string completed first counts; of
        several that end together, the one that begins first."""
        if self.stopped:
            return ""
        self._buffer += text
        found = [(self._buffer.find(stop) + len(stop), self._buffer.find(stop)) for stop in self._stop
                 if stop in self._buffer]
        if found:
            self.stopped = True
            shown, self._buffer = self._buffer[:min(found)[1]], ""
            return shown
        cut = len(self._buffer) - _held(self._buffer, self._stop)
        shown, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return shown

    def finish(self) -> str:
        """The text ends here: what was held is no stop string after all."""
        shown, self._buffer = self._buffer, ""
        return shown


class ThinkSplitter:
    """Tells a <think> block at the start of a reply from the reply itself.

    States: "start" (only white space so far, or half of the opening tag), "think", "text". A tag in the
    middle of a reply is just text.
    """

    def __init__(self, in_think: bool = False, may_think: bool = True) -> None:
        """`in_think`: the prompt has opened the block. `may_think`: False where a reply is continued."""
        self._state = "think" if in_think else "start" if may_think else "text"
        self._buffer = ""
        self._trim_think = True

    def push(self, text: str) -> list[tuple[str, str]]:
        """(channel, text) pieces, channel "think" or "text"."""
        self._buffer += text
        pieces: list[tuple[str, str]] = []
        if self._state == "start":
            self._leave_start()
        if self._state == "think":
            self._take_think(pieces)
        if self._state == "text" and self._buffer:
            pieces.append(("text", self._buffer))
            self._buffer = ""
        return [piece for piece in pieces if piece[1]]

    def finish(self) -> list[tuple[str, str]]:
        """What was held, in the channel that it is in; an unclosed block ends here."""
        rest, self._buffer = self._buffer, ""
        channel = "think" if self._state == "think" else "text"
        return [(channel, rest)] if rest else []

    def _leave_start(self) -> None:
        begun = self._buffer.lstrip()
        if begun.startswith(THINK_OPEN):
            self._state, self._buffer = "think", begun[len(THINK_OPEN):]
        elif not THINK_OPEN.startswith(begun):
            self._state = "text"

    def _take_think(self, pieces: list[tuple[str, str]]) -> None:
        if self._trim_think:
            self._buffer = self._buffer.lstrip()
            self._trim_think = not self._buffer
        thought, closed, rest = self._buffer.partition(THINK_CLOSE)
        if closed:
            self._state, self._buffer = "text", rest
        else:
            cut = len(thought) - _held(thought, [THINK_CLOSE])
            thought, self._buffer = thought[:cut], thought[cut:]
        pieces.append(("think", thought))


class ReplyText:
    """The whole way: thinking apart, then stop strings out of the text, then white space off its start."""

    def __init__(self, stop: Sequence[str], in_think: bool = False, continues: bool = False) -> None:
        """`continues`: the text goes on with one already written, so its start is left as it is."""
        self._think = ThinkSplitter(in_think, may_think=not continues)
        self._stop = StopFilter(stop)
        self._trim = not continues

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come: nothing more will be shown."""
        return self._stop.stopped

    def push(self, text: str) -> list[tuple[str, str]]:
        """(channel, text) pieces that may be shown now."""
        return self._shown([(channel, self._stop.push(piece) if channel == "text" else piece)
                            for channel, piece in self._think.push(text)])

    def finish(self) -> list[tuple[str, str]]:
        """The rest, at the end of the text, however it came."""
        pieces = [(channel, self._stop.push(piece) if channel == "text" else piece)
                  for channel, piece in self._think.finish()]
        return self._shown([*pieces, ("text", self._stop.finish())])

    def _shown(self, pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
        found = []
        for channel, text in pieces:
            if channel == "text" and self._trim:
                text = text.lstrip()
                self._trim = not text
            if text:
                found.append((channel, text))
        return found
