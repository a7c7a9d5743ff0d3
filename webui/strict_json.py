"""JSON as we accept and write it: UTF-8, finite numbers, no lone surrogates, no bottomless nesting.

Python's json lets NaN, 1e999 and "\\ud800" through and meets 100,000 brackets with RecursionError;
requests, session files and imports all come through here instead.
"""

from __future__ import annotations

import json
import math
from typing import Any


def loads(data: bytes) -> Any:
    """The value in `data`. Raises ValueError with a sentence on anything that is not clean JSON."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    _check(value)
    return value


def dumps(value: Any) -> bytes:
    """`value` as compact JSON in UTF-8. Raises ValueError where loads() would refuse the result."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")


def pretty(document: dict[str, Any]) -> bytes:
    """A file that a person can read: one line a key, and one line an entry in lists of objects."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            entries = ",\n  ".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in value)
            text = f"[\n  {entries}\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        lines.append(f" {json.dumps(key, ensure_ascii=False)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON knows")


def _check(value: Any) -> None:
    """Walk without recursion: a value that json could nest must not break the check."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError("a text holds half a surrogate pair") from None
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError("a number is too large")
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
