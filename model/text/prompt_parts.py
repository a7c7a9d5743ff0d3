"""A prompt as people look at it: its exact text in parts, each with the tokens that begin in it.

Where the text of each message lies is found by rendering the conversation once more with marks round these
texts: characters that occur in none of them. What the template puts between them is a part, too. Knows
tokens by their bytes only, and no engine.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from model.text.context import ContextFit
from model.text.messages import ChatMessage

_MARKS = range(0xF0000, 0xFFFFE)  # plane 15, private use: stand-ins of a Mask are of plane 16
_MARK = re.compile("[\U000f0000-\U000ffffd]")


@dataclass(frozen=True)
class PromptPart:
    """A piece of a prompt. `index`: of the message whose text it is; None: what stands round the messages."""

    text: str
    index: int | None
    num_tokens: int


@dataclass(frozen=True)
class PromptView:
    """What a reply would be made from. What the texts of `parts` are together is what the model reads.

    cached_tokens  of the beginning of the prompt, which the engine need not read again; None: not known
    cached_chars   the characters of these
    is_template    whether what stands round the messages is known: of another engine's model it is not
    """

    parts: tuple[PromptPart, ...]
    fit: ContextFit
    cached_tokens: int | None = None
    cached_chars: int | None = None
    is_template: bool = True


def marked(messages: Mapping[int, ChatMessage]) -> tuple[list[ChatMessage], dict[str, int]] | None:
    """The messages with marks round their texts and thoughts, and which mark begins which one's; all of them
    end with the mark of -1. White space at the ends stays outside: templates may take it off.

    None where more characters are wanted than there are.
    """
    used = {char for m in messages.values() for char in _MARK.findall(m.content + m.thinking + m.name)}
    free = [char for char in map(chr, _MARKS) if char not in used]
    if len(free) <= len(messages):
        return None
    end, *begins = free[:len(messages) + 1]

    def wrapped(text: str, begin: str) -> str:
        core = text.strip()
        return text.replace(core, f"{begin}{core}{end}", 1) if core else text

    found = [replace(m, content=wrapped(m.content, begin), thinking=wrapped(m.thinking, begin))
             for m, begin in zip(messages.values(), begins, strict=True)]
    return found, {end: -1} | dict(zip(begins, messages, strict=True))


def spans_of(text: str, rendered: str, marks: dict[str, int]) -> list[tuple[int, int, int]]:
    """(start, end, message) of the messages' texts within `text`, by what was `rendered` with marks; empty
    where the marks have changed what the template makes of the messages."""
    spans, plain, at, begun = [], [], 0, (0, -1)
    for piece in re.split(f"([{''.join(map(re.escape, marks))}])", rendered):
        if piece not in marks:
            plain.append(piece)
            at += len(piece)
        elif marks[piece] >= 0:
            begun = (at, marks[piece])
        elif begun[1] >= 0:
            spans.append((begun[0], at, begun[1]))
            begun = (at, -1)
    return spans if "".join(plain) == text else []


def token_starts(text: str, pieces: Iterable[bytes]) -> list[int] | None:
    """Where in `text` each token begins, in characters, by the tokens' bytes; None where they do not spell
    it. A tokenizer may put a space in front of a word that has none."""
    data, at, starts = text.encode(), 0, []
    for piece in pieces:
        if not data.startswith(piece, at):
            if not (piece.startswith(b" ") and data.startswith(piece[1:], at)):
                return None
            piece = piece[1:]
        starts.append(at)
        at += len(piece)
    if at != len(data):
        return None
    if len(data) == len(text):
        return starts
    characters = [0, *accumulate(byte & 0xC0 != 0x80 for byte in data)]  # that begin before each byte
    return [characters[start] for start in starts]


def parts_of(text: str, spans: Sequence[tuple[int, int, int]], starts: Sequence[int] | None,
             count: Callable[[str], int]) -> tuple[PromptPart, ...]:
    """`text` cut at the ends of the spans. `starts`: see token_starts; where they are not known `count` tells
    how many tokens each part has by itself."""
    cuts: list[tuple[int, int, int | None]] = []
    at = 0
    for start, end, index in spans:
        cuts += [(at, start, None), (start, end, index)]
        at = end
    cuts.append((at, len(text), None))

    def num_tokens(start: int, end: int) -> int:
        if starts is None:
            return count(text[start:end])
        return bisect_left(starts, end) - bisect_left(starts, start)

    return tuple(PromptPart(text[start:end], index, num_tokens(start, end))
                 for start, end, index in cuts if end > start)
