"""Lore books: which entries the latest messages bring in, of a session's book and of a bot's own. Knows texts
only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from ..storage.lore_book import LoreBook
from ..storage.schema import Document

REACH = 8  # messages that are looked at
MAX_LOOKED_AT = 20_000  # characters of them
MAX_OF_A_BOOK = 20_000  # characters of a bot's book that are brought in
MAX_KEYS = 20_000  # of a bot's book that are looked for: it may be a stranger's


def brought_in(lore: Iterable[Document], texts: list[str]) -> list[Document]:
    """Of a session's book, the entries with a key in the last of these texts, in the book's order.

    Capitals do not count; a key is no part of a longer word, where words are written in Latin letters.
    """
    said = _Said.of(texts)
    return [entry for entry in lore if entry["text"].strip() and any(map(said.has, entry["keys"]))]


def brought_in_by_bot(book: LoreBook | None, texts: list[str]) -> list[Document]:
    """The same of the book of a character card, as {keys, text} in its insertion order.

    Entries that are constant always come; selective ones want one of their secondary keys, too. A key that is
    a regular expression is not looked for: a stranger's might not end.
    """
    said, left, room = _Said.of(texts), MAX_KEYS, MAX_OF_A_BOOK
    found, fitting = [], []
    for entry in (book or {}).get("entries", []):
        keys = [*entry["keys"], *(entry.get("secondary_keys") or [])]
        if entry.get("enabled") is False or not entry["content"].strip() or len(keys) > left:
            continue
        left -= len(keys)
        if entry.get("constant") or (not entry.get("use_regex") and _is_spoken_of(entry, said)):
            found.append(entry)
    for entry in sorted(found, key=lambda entry: entry.get("insertion_order") or 0):
        if len(entry["content"]) <= room:
            room -= len(entry["content"])
            fitting.append({"keys": entry["keys"], "text": entry["content"]})
    return fitting


class _Said(NamedTuple):
    exact: str
    folded: str

    @classmethod
    def of(cls, texts: list[str]) -> _Said:
        exact = "\n".join(texts[-REACH:])[-MAX_LOOKED_AT:]
        return cls(exact, exact.casefold())

    def has(self, key: str, is_cased: bool = False) -> bool:
        said = self.exact if is_cased else self.folded
        key = key.strip() if is_cased else key.strip().casefold()
        pattern = rf"(?<![A-Za-z0-9]){re.escape(key)}(?![A-Za-z0-9])"
        return bool(key) and key in said and re.search(pattern, said) is not None


def _is_spoken_of(entry: Document, said: _Said) -> bool:
    occurs = partial(said.has, is_cased=bool(entry.get("case_sensitive")))
    second = entry.get("secondary_keys") if entry.get("selective") else None
    return any(map(occurs, entry["keys"])) and (not second or any(map(occurs, second)))
