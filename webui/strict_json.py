"""JSON as we accept and write it: UTF-8, numbers that other programs can hold, no bottomless nesting.

Python's json lets NaN, 1e999, "\\ud800" and integers of any length through and meets 100,000 brackets with
RecursionError; requests, session files and imports all come through here instead.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100  # ours has 5; what is read must be writable again, and that takes more of the stack
MAX_WHOLE = (1 << 63) - 1
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # json.dumps would make one each time


def loads(data: bytes) -> Any:
    """The value in `data`. Raises ValueError with a sentence on anything that is not clean JSON.

    Two things that editors and broken texts leave behind are no error: a byte order mark in front is
    skipped, and half a surrogate pair, which no UTF-8 can hold, becomes U+FFFD as it does in browsers.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_int=_whole)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    return _whole_characters(value) if _has_half_characters(value) else value


def from_base64(where: str, value: object) -> bytes:
    """The bytes that a document carries as a text. Raises ValueError with the place and what is wrong."""
    if not isinstance(value, str):
        raise ValueError(f"{where} is not a text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:  # binascii's, or a character beyond ASCII
        raise ValueError(f"{where} is not in base64") from None


def dumps(value: Any) -> bytes:
    """`value` as compact JSON in UTF-8. Raises ValueError where loads() would refuse the result."""
    return _encode(value).encode("utf-8")


def pretty(document: dict[str, Any], encode: Callable[[Any], bytes] = dumps) -> bytes:
    """A file that a person can read: one line a key, and one line an entry in lists of objects.

    encode  of such an entry, as dumps() does it
    """
    pieces = [b"{"]
    for key, value in document.items():
        pieces += b",\n " if len(pieces) > 1 else b"\n ", dumps(key), b": "
        if isinstance(value, list) and value and isinstance(value[0], dict):
            before = b"[\n  "
            for entry in value:
                pieces += before, encode(entry)
                before = b",\n  "
            pieces.append(b"\n ]")
        else:
            pieces.append(dumps(value))
    pieces.append(b"\n}\n")
    return b"".join(pieces)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON knows")


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) > MAX_WHOLE:
        raise ValueError("a number is too large")
    return number


def _has_half_characters(value: Any) -> bool:
    """Whether a text in `value` holds half a surrogate pair. Raises ValueError on what is refused."""
    found = False
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                found = found or not _is_whole(item)
            elif isinstance(item, float):
                if not math.isfinite(item):
                    raise ValueError("a number is too large")
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, dict):
                below.extend(item.keys())
                below.extend(item.values())
        if not below:
            return found
        level = below
    raise ValueError("the JSON is nested too deeply")


def _is_whole(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _whole_characters(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
