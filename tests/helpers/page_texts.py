"""The texts in a module of the page, and which of them people read: for the test that all of those go through
t(). Knows as much of JavaScript as our modules need."""

from __future__ import annotations

import re
from collections.abc import Iterator

_REGEX = r"/(?![/*])(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*"
_TOKEN = re.compile(rf'''
    (?P<comment> /\*.*?\*/ | //[^\n]* )
  | (?P<text> "(?:[^"\\\n]|\\.)*" )
  | (?P<tick> ` )
  | (?P<regex> (?<=[(,=:\[!&|?{{}};])\s*{_REGEX} | (?<=return)\s+{_REGEX} )
  | (?P<open> \{{ ) | (?P<close> \}} )''', re.VERBOSE | re.DOTALL)
_WORDS = re.compile(r"(?<![\w-])[A-Z][a-zà-ÿ]|[a-z]{2,}[,.:;]? [A-Za-z]|[a-z]…")
_LETTERS = re.compile(r"[A-Za-z]{2,}")
_SHOWN = re.compile(r'''(?:\b(?:text|label|help|title|placeholder|heading|alt|action)|"aria-label"):\ [^,;]*$
                      | (?:\.textContent\ =|setText\([^,;]*,|\btoast\(|\bannounce\()\ ?[^;]*$''', re.VERBOSE)
"""What stands before a text that is shown, on its line."""
_OF_CODE = re.compile(r'''(?:\b(?:t|tParts|h|querySelector|querySelectorAll|closest|matches|matchMedia|Error
                         |RangeError|addEventListener|getEntriesByType|includes|startsWith|icon)\(\s*
                       | \btn\(\s*(?:"(?:[^"\\\n]|\\.)*",\s*)?
                       | [!=]==\ | \bcase\s | \bfrom\s | \bimport\s )$''', re.VERBOSE)
"""What stands before one that is translated, or that no one reads: errors of ours for the console, too."""
_CLASSES = re.compile(r"\bclass: [^,]*$|\bclassName = [^;]*$")
_KINDS = re.compile(r"(?:ghost|primary|danger|small|at-start| )+")
"""Of a button: class names."""
_KEYS = re.compile(r"(?:(?:Arrow|Page)(?:Left|Right|Up|Down)|Home|End|Enter|Escape|Esc|Tab|Ctrl|Shift|Alt"
                   r"|[↑↓←→A-Z,./]| )+")
_SELECTOR = re.compile(r"[a-z., \[\]=-]*\[role=[a-z., \[\]=-]*")
NOT_TRANSLATED = {"Parlor", "{}{}Parlor", "Parlor {}. {}", "User", "You are {}, ", "You are {{char}}, ",
                  "Content-Type", "Known-Revision", "shift+KeyN", "shift+KeyP", "AltGraph",
                  "noopener noreferrer nofollow", "owner/name", "http://192.168.1.20:8000/v1"}
"""A name, what models and browsers read, examples of what is typed."""


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Where each begins and what it is, without its quotes; {} stands for what a template fills in."""
    at = 0
    open_: list[tuple[int, list[str]] | None] = []  # templates that are filled in just now, and other braces

    def rest(start: int) -> tuple[str, int, bool]:
        """A template's text up to its end or to what is filled in; whether it is that."""
        end = start
        while source[end] != "`" and not source.startswith("${", end):
            end += 2 if source[end] == "\\" else 1
        filled = source[end] != "`"
        return source[start:end], end + (2 if filled else 1), filled

    while token := _TOKEN.search(source, at):
        at = token.end()
        template = None
        if token.lastgroup == "text":
            yield token.start("text"), token["text"][1:-1]
        elif token.lastgroup == "tick":
            template = (token.start(), [])
        elif token.lastgroup == "open":
            open_.append(None)
        elif token.lastgroup == "close" and open_:
            template = open_.pop()
        if template:
            text, at, filled = rest(at)
            template[1].append(text)
            if filled:
                open_.append(template)
            else:
                yield template[0], "{}".join(template[1])


def untranslated(source: str) -> list[str]:
    """Of the texts those that people would read in English, whatever their language."""
    found = []
    for at, text in texts(source):
        line = source[source.rfind("\n", 0, at) + 1:at]
        shown = _SHOWN.search(line) and _LETTERS.search(text)
        if not (shown or _WORDS.search(text)) or text in NOT_TRANSLATED:
            continue
        if _OF_CODE.search(source[max(0, at - 300):at]) or _CLASSES.search(line) or _KINDS.fullmatch(text):
            continue
        if not _KEYS.fullmatch(text) and not _SELECTOR.fullmatch(text):
            found.append(text)
    return found
