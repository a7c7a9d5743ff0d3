"""Whether strangers' regular expressions occur in texts: looked for in a process with limits of time and
memory, for an expression of a few characters may take years.

As Python's `re` understands them, and JavaScript's between slashes: /lamps?/i. One that is wrong, or that
takes too long, occurs nowhere.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from model.text.limited_process import Gone, LimitedProcess, OverTime, ProcessLimits, serve

PATTERN_LIMITS = ProcessLimits(seconds=0.5, memory_bytes=512 << 20)
MAX_REMEMBERED = 2_000
_SLASHES = re.compile(r"/(.+)/([a-z]*)", re.DOTALL)
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}
_JS_NAME = re.compile(r"\(\?<(?![=!])")


class Patterns:
    """One question at a time; answers are remembered, so that a text that is asked about for each reply
    costs nothing."""

    def __init__(self, limits: ProcessLimits = PATTERN_LIMITS) -> None:
        self._process = LimitedProcess("model.text.patterns", limits)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, bool, str], bool] = {}
        self._slow: set[str] = set()

    def occurs(self, pattern: str, text: str, is_cased: bool) -> bool | None:
        """Whether `text` has what `pattern` describes; None if that takes too long, and from then on. One
        without slashes ignores capitals unless is_cased."""
        key = (pattern, is_cased, text)
        with self._lock:
            if pattern in self._slow:
                return None
            if key not in self._known:
                while len(self._known) >= MAX_REMEMBERED:
                    del self._known[next(iter(self._known))]
                try:
                    self._known[key] = self._process.ask(
                        {"pattern": pattern, "text": text, "is_cased": is_cased})
                except (OverTime, Gone):
                    self._slow.add(pattern)
                    return None
            return self._known[key]

    def close(self) -> None:
        self._process.close()


def compiled(pattern: str, is_cased: bool) -> re.Pattern[str] | None:
    """None if it is wrong."""
    slashed = _SLASHES.fullmatch(pattern)
    source, letters = (slashed[1], slashed[2]) if slashed else (pattern, "" if is_cased else "i")
    try:
        flags = sum(_FLAGS[letter] for letter in set(letters) - set("gudy"))
        return re.compile(_JS_NAME.sub("(?P<", source), flags)
    except (re.error, KeyError, OverflowError, RecursionError):
        return None


def answer(request: Any) -> bool:
    """What the process does."""
    pattern = compiled(request["pattern"], request["is_cased"])
    return pattern is not None and pattern.search(request["text"]) is not None


_PATTERNS = Patterns()


def pattern_occurs(pattern: str, text: str, is_cased: bool = False) -> bool | None:
    """See Patterns.occurs()."""
    return _PATTERNS.occurs(pattern, text, is_cased)


if __name__ == "__main__":
    serve(answer)
