"""Lore books: which entries the latest messages bring in, of a session's book and of a bot's own. Knows texts
only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from model import pattern_occurs

from ..storage.lore_book import LoreBook
from ..storage.schema import Document
from .macros import Macros, without_angles

REACH = 8  # messages that are looked at, where a book does not say otherwise
MAX_REACH = 1_000
MAX_LOOKED_AT = 20_000  # characters of them
MAX_OF_A_BOOK = 20_000  # characters of a bot's book that are brought in
MAX_KEYS = 20_000  # of a bot's book that are looked for: it may be a stranger's
MAX_PATTERNS = 32  # of an entry
MAX_SLOW = 3  # patterns that took too long; behind them none is looked for
MAX_ROUNDS = 8  # of entries that bring in entries
BYTES_PER_TOKEN = 4
DECORATORS = ("activate", "dont_activate", "activate_only_after", "activate_only_every", "additional_keys",
              "exclude_keys", "scan_depth", "depth", "position")
"""Those of V3 that are carried out; of the others an entry's text is freed."""


def brought_in(lore: Iterable[Document], texts: list[str]) -> list[Document]:
    """Of a session's book, the entries with a key in the last of these texts, in the book's order.

    Capitals do not count; a key is no part of a longer word, where words are written in Latin letters.
    """
    said = _Said.of(texts)
    return [entry for entry in lore if entry["text"].strip() and any(map(said.has, entry["keys"]))]


@dataclass(frozen=True)
class Brought:
    """An entry of a bot's book that is in a prompt; `depth` is that many messages before its end."""

    keys: list[str]
    text: str
    is_before: bool = False
    depth: int | None = None


def brought_in_by_bot(book: LoreBook | None, texts: list[str], number_of_replies: int = 0,
                      macros: Macros | None = None) -> list[Brought]:
    """The same of the book of a character card, in its insertion order, with its decorators carried out.

    texts              what was said, the latest last
    number_of_replies  how often bots have spoken

    Entries that are constant always come; selective ones want one of their secondary keys, too. Where the
    book says so, entries bring in others that their texts speak of. What is over the book's budget of tokens,
    counted as four bytes each, is left out, the least important first; a pattern that takes long is found
    nowhere.
    """
    book = book or {}
    macros = macros or Macros("", "")
    search = _Search(book, texts, number_of_replies)
    found = search.found()
    for _round in range(MAX_ROUNDS if book.get("recursive_scanning") is True else 0):
        latest = found[-search.fresh:] if search.fresh else []
        fresh = search.found_in("\n".join(macros.fill(one.text, hidden=True) for one in latest))
        if not fresh:
            break
        found += fresh
    room, fitting = _room(book), []
    for one in sorted(found, key=lambda one: -one.rank):
        text = without_angles(one.text)
        size = -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
        if size <= room.tokens and len(text) <= room.characters:
            room = _Room(room.tokens - size, room.characters - len(text))
            fitting.append((one.order, one.number, Brought(one.keys, text, one.is_before, one.depth)))
    return [brought for _order, _number, brought in sorted(fitting, key=lambda each: each[:2])]


class _Room(NamedTuple):
    tokens: float
    characters: int


def _room(book: LoreBook) -> _Room:
    budget = book.get("token_budget")
    is_number = isinstance(budget, int | float) and not isinstance(budget, bool) and budget > 0
    return _Room(budget if is_number else float("inf"), MAX_OF_A_BOOK)


@dataclass(frozen=True)
class _Entry:
    """As a search needs it: rank is how long it stays where there is too little room."""

    number: int
    keys: list[str]
    second: list[str]
    none_of: list[str]
    text: str
    order: float
    rank: float
    is_cased: bool
    is_pattern: bool
    always: bool
    reach: int
    is_before: bool
    depth: int | None


class _Search:
    """Of one book in what was said; each entry is found once."""

    def __init__(self, book: LoreBook, texts: list[str], number_of_replies: int) -> None:
        self._texts = texts
        self._slow = 0
        self._said: dict[int, _Said] = {}
        self.fresh = 0
        left = MAX_KEYS
        self._entries: list[_Entry] = []
        for number, entry in enumerate(book.get("entries", [])):
            read = _read(number, entry, _whole(book.get("scan_depth"), REACH), number_of_replies)
            size = len(read.keys) + len(read.second) + len(read.none_of) if read else 0
            if read and size <= left:
                left -= size
                self._entries.append(read)

    def found(self) -> list[_Entry]:
        """Those that what was said brings in."""
        return self._take(lambda entry: entry.always or self._is_spoken_of(entry, self._latest(entry.reach)))

    def found_in(self, text: str) -> list[_Entry]:
        """Those that other entries' texts bring in besides."""
        said = _Said.of([text])
        return self._take(lambda entry: self._is_spoken_of(entry, said))

    def _take(self, is_found: Callable[[_Entry], bool]) -> list[_Entry]:
        taken = [entry for entry in self._entries if is_found(entry)]
        numbers = {entry.number for entry in taken}
        self._entries = [entry for entry in self._entries if entry.number not in numbers]
        self.fresh = len(taken)
        return taken

    def _latest(self, reach: int) -> _Said:
        if reach not in self._said:
            self._said[reach] = _Said.of(self._texts, reach)
        return self._said[reach]

    def _is_spoken_of(self, entry: _Entry, said: _Said) -> bool:
        def occurs(key: str) -> bool:
            if not entry.is_pattern:
                return said.has(key, entry.is_cased)
            if not key or self._slow >= MAX_SLOW:
                return False
            occurs = pattern_occurs(key, said.exact, entry.is_cased)
            self._slow += occurs is None
            return bool(occurs)

        keys = entry.keys[:MAX_PATTERNS] if entry.is_pattern else entry.keys
        return any(map(occurs, keys)) and (not entry.second or any(map(occurs, entry.second))) \
            and not any(map(occurs, entry.none_of))


def _read(number: int, entry: Document, reach: int, number_of_replies: int) -> _Entry | None:
    """None for one that cannot be found now."""
    decorators, text = _decorated(entry["content"])
    if entry.get("enabled") is False or not text or not _is_time(decorators, number_of_replies):
        return None
    is_pattern = bool(entry.get("use_regex"))
    second = entry.get("secondary_keys") if entry.get("selective") and not is_pattern else None
    order = entry.get("insertion_order") or 0
    priority = entry.get("priority")
    activate = "activate" in decorators
    if "dont_activate" in decorators and not activate:
        return None
    position = decorators.get("position") or entry.get("position")
    depth = _whole(decorators["depth"], 0) if "depth" in decorators and "position" not in decorators else None
    return _Entry(
        number, entry["keys"], [*(second or []), *_listed(decorators.get("additional_keys"))],
        _listed(decorators.get("exclude_keys")) if not is_pattern else [], text, order,
        order if priority is None else priority, bool(entry.get("case_sensitive")), is_pattern,
        activate or (bool(entry.get("constant")) and not is_pattern),
        _whole(decorators.get("scan_depth"), reach),
        position in ("before_char", "before_desc"), depth)


def _is_time(decorators: dict[str, str], number_of_replies: int) -> bool:
    after, every = (_whole(decorators.get(f"activate_only_{name}"), 0) for name in ("after", "every"))
    return number_of_replies >= after and (every == 0 or number_of_replies % every == 0)


def _decorated(content: str) -> tuple[dict[str, str], str]:
    """The lines that begin with @@ at the top of an entry, by name, and the text below them. Of one that is
    not known here the next @@@ one that is counts."""
    decorators: dict[str, str] = {}
    lines = content.strip().splitlines()
    at, is_wanted = 0, True
    while at < len(lines) and (lines[at].startswith("@@") or not lines[at].strip()):
        line = lines[at].strip()
        name, _, value = line.lstrip("@").partition(" ")
        if line and (not line.startswith("@@@") or is_wanted):
            is_wanted = name not in DECORATORS
            if not is_wanted:
                decorators.setdefault(name, value.strip())
        at += 1
    return decorators, "\n".join(lines[at:]).strip()


def _whole(value: object, otherwise: int) -> int:
    """A whole number from 0 to MAX_REACH of a card, which may be a text of a decorator."""
    try:
        return min(max(int(float(value)), 0), MAX_REACH)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return otherwise


def _listed(value: str | None) -> list[str]:
    return [key.strip() for key in value.split(",") if key.strip()] if value else []


class _Said(NamedTuple):
    exact: str
    folded: str

    @classmethod
    def of(cls, texts: list[str], reach: int = REACH) -> _Said:
        exact = "\n".join(texts[-reach:] if reach else [])[-MAX_LOOKED_AT:]
        return cls(exact, exact.casefold())

    def has(self, key: str, is_cased: bool = False) -> bool:
        said = self.exact if is_cased else self.folded
        key = key.strip() if is_cased else key.strip().casefold()
        pattern = rf"(?<![A-Za-z0-9]){re.escape(key)}(?![A-Za-z0-9])"
        return bool(key) and key in said and re.search(pattern, said) is not None
