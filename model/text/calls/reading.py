"""Calls in a reply, read as it is written: text and calls apart, arguments as JSON, piece by piece.

However the text is cut into pieces, what comes out, joined, is the same. What only looks like a call stays
text. Knows nothing of tokens.
"""

from __future__ import annotations

import json
import re

from model.text.calls.styles import CallStyle
from model.text.calls.toolbox import Toolbox
from model.text.calls.values import from_keys, from_pairs, from_python, from_tags
from model.text.reply_text import held

_LONGEST_HEAD = 1024  # characters
Pieces = list[tuple[str, str]]


class BodyEnd:
    """Finds where arguments end that begin with a bracket, in a stream. `quotes`: what texts stand in."""

    def __init__(self, quotes: str = '"') -> None:
        self._depth, self._quotes = 0, quotes
        self._in_text, self._escaped = "", False

    def find(self, text: str) -> int:
        """How much of `text` belongs to them; -1 if all of it does and more must come."""
        for index, char in enumerate(text):
            if self._in_text:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == self._in_text:
                    self._in_text = ""
            elif char in self._quotes:
                self._in_text = char
            elif char in "{[(":
                self._depth += 1
            elif char in "}])":
                self._depth -= 1
                if self._depth <= 0:
                    return index + 1
        return -1


class CallReader:
    """Pieces are (channel, text): "text"; "call", a function's name; "arguments", more of that call's
    JSON."""

    def __init__(self, style: CallStyle, toolbox: Toolbox) -> None:
        self._style, self._toolbox = style, toolbox
        self._head, self._tail = re.compile(style.head), re.compile(style.tail)
        self._buffer = ""
        self._opened = ""     # an opening without its head: it may yet be text
        self._read = self._read_text
        self._name = ""
        self._end = BodyEnd()
        self._searched = 0    # how much of the buffer has no tail
        self._written = False  # whether the answer has begun
        self.stopped = False
        """Whether nothing more is to come: the one call is done, or what ends a reply after calls has
        come."""

    def push(self, text: str) -> Pieces:
        """What is clear by now."""
        self._buffer += text
        pieces: Pieces = []
        while not self.stopped and self._read(pieces):
            pass
        return [piece for piece in pieces if piece[1]]

    def finish(self) -> Pieces:
        """The text ends here: what was held is what it is."""
        rest, self._buffer = self._opened + self._buffer, ""
        if self.stopped or self._read == self._read_tail or (self._read == self._read_after
                                                             and not rest.strip()):
            return []
        channel = "text"
        if self._read == self._read_arguments:
            channel = "arguments"
            rest = rest if self._style.body == "json" else self._converted(rest)
        return [(channel, rest)] if rest else []

    def _read_text(self, pieces: Pieces) -> bool:
        openings = self._style.openings
        if self._style.at_start:
            begun = self._buffer.lstrip()
            if self._written or not any(begun.startswith(mark) or mark.startswith(begun) for mark
                                        in openings):
                return self._let_through(pieces, len(self._buffer))
            found = next(((0, mark) for mark in openings if begun.startswith(mark)), None)
            self._buffer = begun
        else:
            found = min(((self._buffer.find(mark), mark) for mark in openings if mark in self._buffer),
                        default=None)
            if found is None:
                return self._let_through(pieces, len(self._buffer) - held(self._buffer, openings))
        if found is None:
            return False
        self._let_through(pieces, found[0])
        self._opened = "" if self._style.kept else found[1]
        self._buffer = self._buffer[len(self._opened):]
        self._read = self._read_head
        return True

    def _let_through(self, pieces: Pieces, size: int) -> bool:
        pieces.append(("text", self._buffer[:size]))
        self._written = self._written or bool(self._buffer[:size].strip())
        self._buffer = self._buffer[size:]
        return False

    def _read_head(self, pieces: Pieces) -> bool:
        found = self._head.match(self._buffer)
        if found:
            self._name = found["name"].strip()
            pieces.append(("call", self._name))
            self._buffer, self._opened = self._buffer[found.end():], ""
            self._end = BodyEnd("\"'" if self._style.body == "python" else '"')
            self._searched, self._written, self._read = 0, False, self._read_arguments
            return True
        if len(self._buffer) <= _LONGEST_HEAD:
            return False
        self._buffer, self._opened, self._written = self._opened + self._buffer, "", True
        self._let_through(pieces, len(self._buffer))
        self._read = self._read_text
        return False

    def _read_arguments(self, pieces: Pieces) -> bool:
        if not self._written:  # of the arguments
            self._buffer = self._buffer.lstrip()
            self._written = bool(self._buffer)
        if self._style.body == "json":
            end = self._end.find(self._buffer)
            size = len(self._buffer) if end < 0 else end
            pieces.append(("arguments", self._buffer[:size]))
            self._buffer = self._buffer[size:]
            if end >= 0:
                self._read = self._read_tail
            return end >= 0
        if self._style.body == "python":
            end = self._end.find(self._buffer[self._searched:])
            if end < 0:
                self._searched = len(self._buffer)
                return False
            end += self._searched
            pieces.append(("arguments", self._converted(self._buffer[:end])))
            return self._call_over(end)
        found = self._tail.search(self._buffer, self._searched)
        if found is None:
            self._searched = max(0, len(self._buffer) - _LONGEST_HEAD)
            return False
        pieces.append(("arguments", self._converted(self._buffer[:found.start()])))
        return self._call_over(found.end())

    def _read_tail(self, _pieces: Pieces) -> bool:
        found = self._tail.match(self._buffer)
        if found is None and len(self._buffer) <= _LONGEST_HEAD:
            return False
        return self._call_over(found.end() if found else len(self._buffer))

    def _call_over(self, size: int) -> bool:
        self._buffer, self._written = self._buffer[size:], True
        self._read = self._read_after
        self.stopped = not self._toolbox.parallel
        return True

    def _read_after(self, _pieces: Pieces) -> bool:
        """Between calls white space is nothing; what is no further call is text again."""
        begun, style = self._buffer.lstrip(), self._style
        if not begun:
            return False
        if style.ends and begun.startswith(style.ends):
            self.stopped = True
            return False
        if style.between and begun.startswith(style.between):
            self._opened, self._buffer = style.between, begun[len(style.between):]
            self._read = self._read_head
            return True
        if style.closing and begun.startswith(style.closing):
            self._buffer = begun[len(style.closing):]
            return True
        marks = (*style.ends, *style.openings, style.between, style.closing)
        if any(mark.startswith(begun) for mark in marks):
            return False  # it may become one of these
        if any(begun.startswith(mark) for mark in style.openings):
            self._buffer = begun
        self._read = self._read_text
        return True

    def _converted(self, text: str) -> str:
        """Arguments of another form as JSON; as they are where they make no sense."""
        if self._style.body in ("tags", "keys"):
            tool = self._toolbox.tool(self._name)
            read = from_tags if self._style.body == "tags" else from_keys
            return json.dumps(read(text, tool.schema if tool else {}), ensure_ascii=False)
        try:
            value = from_python(text) if self._style.body == "python" else from_pairs(text, self._style.quote)
            return json.dumps(value, ensure_ascii=False)
        except ValueError:
            return text
