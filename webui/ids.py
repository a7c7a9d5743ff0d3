"""Ids of sessions, messages, bots and replies: made here, checked here, nowhere else.

An id is also a file's name, so nothing becomes part of a path that did not pass check_id().
"""

from __future__ import annotations

import re
import secrets

from .errors import NotFound

_ID = re.compile(r"[0-9a-f]{16}")


def new_id() -> str:
    """Sixteen random hex digits."""
    return secrets.token_hex(8)


def is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def check_id(value: object, what: str = "entry") -> str:
    """`value` if it is an id; raises NotFound otherwise, for there is nothing under such a name."""
    if not is_id(value):
        raise NotFound(f"There is no such {what}.")
    return str(value)
