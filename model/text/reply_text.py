"""From the text a model writes to the text a reader sees: thinking apart, stop strings out.

Both parts work on a stream: what could still become a tag or a stop string is held back until it is clear.
However the text is cut into pieces, what comes out, joined, is the same. Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from model.text.thinking import THINK, Part, ThinkFormat, first_mark

if TYPE_CHECKING:
    from model.text.calls.reading import CallReader


def held(text: str, targets: Sequence[str]) -> int:
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
        self.found = ""  # what stopped it

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
            end, start = min(found)
            self.found = self._buffer[start:end]
            shown, self._buffer = self._buffer[:start], ""
            return shown
        cut = len(self._buffer) - held(self._buffer, self._stop)
        shown, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return shown

    def finish(self) -> str:
        """The text ends here: what was held is no stop string after all."""
        shown, self._buffer = self._buffer, ""
        return shown


class ThinkSplitter:
    """Tells the thoughts at the start of a reply from the reply itself.

    Parts: "start" (only white space or a part of a mark so far), "think", "text". After a thought comes
    "start" again: an answer's mark, or another thought. A mark in the middle of an answer is just text.
    """

    def __init__(self, at: Part = "start", think_format: ThinkFormat = THINK,
                 continues: bool = False) -> None:
        """`at`: where the prompt ends. `continues`: inside a text whose white space is left as it is."""
        self._part = at
        self._format = think_format
        self._buffer = ""
        self._trim_think = not continues
        self._ends = StopFilter(think_format.ends if at == "text" or think_format.always else ())

    @property
    def ended(self) -> bool:
        """Whether the mark that ends the answer has come."""
        return self._ends.stopped

    def push(self, text: str) -> list[tuple[str, str]]:
        """(channel, text) pieces, channel "think" or "text"."""
        self._buffer += text
        pieces: list[tuple[str, str]] = []
        while self._part != "text" and (self._leave_start() if self._part == "start"
                                        else self._leave_think(pieces)):
            pass
        if self._part == "text":
            pieces.append(("text", self._ends.push(self._buffer)))
            self._buffer = ""
        return [piece for piece in pieces if piece[1]]

    def finish(self) -> list[tuple[str, str]]:
        """What was held, in the channel that it is in; an unclosed thought ends here."""
        rest, self._buffer = self._buffer, ""
        if self._part == "start" and self._format.always:
            rest = ""  # half a mark
        pieces = [("think" if self._part == "think" else "text", rest)]
        return [piece for piece in (*pieces, ("text", self._ends.finish())) if piece[1]]

    def _leave_start(self) -> bool:
        """Pass one mark, or find that this is the answer. False if more text is needed to tell."""
        begun, marks = self._buffer.lstrip(), self._format
        found = first_mark(begun, marks.opens, marks.answers, marks.between)
        if found is None:
            return False
        self._part, mark = found
        if mark:
            self._buffer = begun[len(mark):]
        if mark in marks.answers:
            self._ends = StopFilter(marks.ends)
        return True

    def _leave_think(self, pieces: list[tuple[str, str]]) -> bool:
        """Take what is thought. True once the thought is over."""
        if self._trim_think:
            self._buffer = self._buffer.lstrip()
            self._trim_think = not self._buffer
        thought, closed, rest = self._buffer.partition(self._format.close)
        if closed:
            self._part, self._buffer, self._trim_think = "start", rest, True
            if not self._format.answers:  # it begins here
                self._ends = StopFilter(self._format.ends)
        else:
            cut = len(thought) - held(thought, [self._format.close])
            thought, self._buffer = thought[:cut], thought[cut:]
        pieces.append(("think", thought))
        return bool(closed)


class ReplyText:
    """The whole way: thinking apart, then stop strings out of the text, then white space off its start."""

    def __init__(self, stop: Sequence[str], at: Part = "start", continues: bool = False,
                 think_format: ThinkFormat = THINK, calls: CallReader | None = None) -> None:
        """`at`: where the prompt ends. `continues`: the text goes on with one already written, so its start
        is left as it is. `calls`: takes calls of tools out of the answer."""
        self._think = ThinkSplitter(at, think_format, continues)
        self._stop = StopFilter(stop)
        self._calls = calls
        self._trim = at != "text" or not continues

    @property
    def stopped(self) -> bool:
        """Whether a stop string or the answer's end has come: nothing more will be shown."""
        return self._stop.stopped or self._think.ended or (self._calls is not None and self._calls.stopped)

    @property
    def stop_string(self) -> str:
        """The one that stopped it; "" if none did."""
        return self._stop.found

    @property
    def reason(self) -> Literal["stop", "eos"]:
        """Why it stopped: by a stop string, or because the model ended its answer."""
        return "stop" if self._stop.stopped else "eos"

    def push(self, text: str) -> list[tuple[str, str]]:
        """(channel, text) pieces that may be shown now; with `calls` the channels "call" (a function's name)
        and "arguments" (more of its JSON), too."""
        return self._shown(self._without_stop(self._with_calls(self._think.push(text))))

    def finish(self) -> list[tuple[str, str]]:
        """The rest, at the end of the text, however it came."""
        pieces = self._with_calls(self._think.finish())
        if self._calls is not None:
            pieces += self._calls.finish()
        return self._shown([*self._without_stop(pieces), ("text", self._stop.finish())])

    def _with_calls(self, pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
        if self._calls is None:
            return pieces
        return [found for channel, piece in pieces
                for found in (self._calls.push(piece) if channel == "text" else [(channel, piece)])]

    def _without_stop(self, pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for channel, piece in pieces:
            if channel == "call":  # what was held is no stop string: the text goes no further
                found.append(("text", self._stop.finish()))
            found.append((channel, self._stop.push(piece) if channel == "text" else piece))
        return found

    def _shown(self, pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
        found = []
        for channel, text in pieces:
            if channel == "text" and self._trim:
                text = text.lstrip()
                self._trim = not text
            if text:
                found.append((channel, text))
        return found
