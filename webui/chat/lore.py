"""The lore book of a session: which entries the latest messages bring in. Knows texts only."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..storage.schema import Document

REACH = 8  # messages that are looked at
MAX_LOOKED_AT = 20_000  # characters of them


def brought_in(lore: Iterable[Document], texts: list[str]) -> list[Document]:
    """The entries with a key in the last of these texts, in the book's order.

    Capitals do not count; a key is no part of a longer word, where words are written in Latin letters.
    """
    said = "\n".join(texts[-REACH:])[-MAX_LOOKED_AT:].casefold()
    return [entry for entry in lore if entry["text"].strip()
            and any(_occurs(key.strip().casefold(), said) for key in entry["keys"])]


def _occurs(key: str, said: str) -> bool:
    pattern = rf"(?<![a-z0-9]){re.escape(key)}(?![a-z0-9])"
    return bool(key) and key in said and re.search(pattern, said) is not None
