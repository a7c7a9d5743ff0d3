"""Keeps message content from turning into control tokens.

A person may type `<|im_end|>`. Templates put message text and control tokens into one string, so before
rendering, each place in the content that could be read as (part of) a control token gets a stand-in: a
private-use character that occurs nowhere in the prompt. The tokenizer then recognises only the template's own
control tokens, and turns the stand-ins back while it encodes the plain text around them. Content without such
places, which is nearly all, goes through unchanged and is tokenized exactly as without a mask.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from model.text.errors import TemplateError

_STAND_INS = range(0x100000, 0x10FFFE)  # plane 16, private use
_PRIVATE = re.compile("[\U00100000-\U0010fffd]")


class ControlTokens(Protocol):
    """What is to be known of a tokenizer; see Tokenizer."""

    @property
    def control_parts(self) -> tuple[frozenset[str], frozenset[str], int]: ...

    def control_spans(self, text: str) -> list[tuple[int, int]]: ...


class Mask:
    """The stand-ins of one prompt."""

    def __init__(self, texts: Iterable[str], tokenizer: ControlTokens) -> None:
        """`texts`: everything that will be in the prompt; none of it may contain a stand-in.

        Methods raise TemplateError if there is none left that does not occur in them.
        """
        used = {char for text in texts for char in _PRIVATE.findall(text)}
        self._free = (char for char in map(chr, _STAND_INS) if char not in used)
        self._tokenizer = tokenizer
        self._stand_ins: dict[str, str] = {}
        self.hidden: dict[str, str] = {}
        """Stand-in -> the character it stands for."""

    def hide(self, text: str) -> str:
        """`text` in which nothing can be read as a control token."""
        while places := [start for start, _ in self._tokenizer.control_spans(text)
                         if text[start] not in self.hidden]:
            text = self._hide_places(text, places)
        return self._hide_places(text, self._ends(text))

    def reveal(self, text: str) -> str:
        """`text` with the stand-ins turned back."""
        return text.translate(str.maketrans(self.hidden)) if self.hidden else text

    def end_mark(self) -> str:
        """One more character that occurs nowhere, to find a place in the rendered text again."""
        return self._next_free()

    def _ends(self, text: str) -> list[int]:
        """Where `text` ends with a control token's beginning, or starts with one's end: what the template (or
        the next message) puts beside it could complete it."""
        heads, tails, longest = self._tokenizer.control_parts
        end, start = len(text.rstrip()), len(text) - len(text.lstrip())
        sizes = range(1, min(longest, end - start) + 1)
        places = [end - size for size in sizes if text[end - size:end] in heads]
        if any(text[start:start + size] in tails for size in sizes):
            places.append(start)
        return places

    def _hide_places(self, text: str, places: list[int]) -> str:
        chars = list(text) if places else []
        for place in places:
            chars[place] = self._stand_in(chars[place])
        return "".join(chars) if places else text

    def _stand_in(self, char: str) -> str:
        if char in self.hidden:
            return char
        if char not in self._stand_ins:
            self._stand_ins[char] = self._next_free()
            self.hidden[self._stand_ins[char]] = char
        return self._stand_ins[char]

    def _next_free(self) -> str:
        char = next(self._free, None)
        if char is None:
            raise TemplateError("the messages use every private character of Unicode's plane 16; none is "
                                "left to keep their text apart from control tokens. Take some out")
        return char
