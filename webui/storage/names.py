"""A name for a bot that no other bot has: the model tells them apart by their names alone."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from .schema import MAX_NAME, NOT_IN_NAMES


def clean_name(name: str) -> str:
    """What of `name` may stand in a prompt as a speaker's name; "" if nothing may."""
    return " ".join(NOT_IN_NAMES.sub(" ", name).split())[:MAX_NAME].strip()


def free_name(name: str, taken: Iterable[str]) -> str:
    """`name`, or with the first number from 2 on that makes it another one than all that are taken."""
    known = {other.casefold() for other in taken}
    if name.casefold() not in known:
        return name
    for number in count(2):
        numbered = f"{name[:MAX_NAME - 5].strip()} {number}"
        if numbered.casefold() not in known:
            return numbered
    raise AssertionError("there is always another number")
