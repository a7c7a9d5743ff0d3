"""The lore book of a bot: texts that belong into a prompt when one of their keys is spoken of.

As character cards carry it (`character_book`), so that it goes out as it came in; fields that are not known
here are kept. https://github.com/kwaroran/character-card-spec-v3/blob/f3a86af019fbd99f788f7a1155f399655b34ab35/SPEC_V3.md
Checks only: what a prompt makes of it is no matter of the disk.
"""

from __future__ import annotations

from typing import Any

from .. import strict_json

LoreBook = dict[str, Any]

MAX_ENTRIES = 2_000
MAX_KEYS = 500  # of an entry
MAX_KEY = 1_000  # characters
MAX_CONTENT = 50_000
MAX_BYTES = 2 << 20  # of the whole as JSON
_FLAGS = ("enabled", "constant", "selective", "use_regex", "case_sensitive")
_NUMBERS = ("insertion_order", "priority")


def check_lore_book(where: str, value: object) -> LoreBook | None:
    """`value` if it is None or a lore book. Raises ValueError with the place and what is wrong."""
    if value is None:
        return None
    entries = value.get("entries") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise ValueError(f"{where} is not an object with a list of at most {MAX_ENTRIES:,} entries")
    for index, entry in enumerate(entries):
        _check_entry(f"entry {index + 1} of {where}", entry)
    if (size := len(strict_json.dumps(value))) > MAX_BYTES:
        raise ValueError(f"{where} has {size >> 10:,} KiB; at most {MAX_BYTES >> 10:,} are possible")
    return value


def _check_entry(where: str, entry: object) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not an object")
    content = entry.get("content")
    if not isinstance(content, str) or len(content) > MAX_CONTENT:
        raise ValueError(f"{where} has no content of at most {MAX_CONTENT:,} characters")
    _check_keys(f"the keys of {where}", entry.get("keys"))
    if entry.get("secondary_keys") is not None:
        _check_keys(f"the secondary keys of {where}", entry["secondary_keys"])
    for name in _FLAGS:
        if not isinstance(entry.get(name), bool | None):
            raise ValueError(f"{name} of {where} is not true or false")
    for name in _NUMBERS:
        if isinstance(entry.get(name), bool) or not isinstance(entry.get(name), int | float | None):
            raise ValueError(f"{name} of {where} is not a number")


def _check_keys(where: str, keys: object) -> None:
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError(f"{where} are not a list of at most {MAX_KEYS}")
    if not all(isinstance(key, str) and len(key) <= MAX_KEY for key in keys):
        raise ValueError(f"{where} are not texts of at most {MAX_KEY:,} characters")
