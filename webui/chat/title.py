"""A session's title from its first message, until somebody gives it a better one."""

from __future__ import annotations

import re

LONGEST = 48


def title_from(text: str) -> str:
    """The first line that says something, without markdown's signs, cut at a word."""
    for line in text.splitlines():
        line = re.sub(r"^[\s>#*+`-]+|[*_`]{1,3}", "", line)
        line = " ".join("".join(c for c in line if c.isprintable()).split())
        if line:
            return _shorten(line)
    return ""


def _shorten(line: str) -> str:
    if len(line) <= LONGEST:
        return line
    cut = line[:LONGEST].rstrip()
    before_word = cut.rpartition(" ")[0]
    return (before_word if len(before_word) > LONGEST // 2 else cut).rstrip(" ,;:.-") + "…"
