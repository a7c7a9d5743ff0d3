"""A stream of server-sent events that a stranger writes: JSON by JSON, within limits.

The openai library's own reader keeps a line in memory however long it grows, and takes what ends without its
end for whole.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

MAX_EVENT = 4 << 20
MAX_STREAM = 256 << 20


class BadStream(ValueError):
    """What came is no such stream; a clause that says what it is."""


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The data of each event, to the end of the stream or [DONE]. Raises BadStream."""
    data: list[bytes] = []
    total = 0
    async for line in _lines(chunks):
        total += len(line)
        if total > MAX_STREAM or sum(map(len, data)) + len(line) > MAX_EVENT:
            raise BadStream("it sends more than a reply can have")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            whole, data = b"\n".join(data), []
            if whole.strip() == b"[DONE]":
                return
            yield _parsed(whole)
    if data and b"\n".join(data).strip() != b"[DONE]":
        yield _parsed(b"\n".join(data))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Without their ends, which may be those of any system."""
    begun: list[bytes] = []  # of a line whose end has not come
    size = 0
    async for chunk in chunks:
        first, *lines = chunk.split(b"\n")
        begun.append(first)
        size += len(first)
        if size > MAX_EVENT:
            raise BadStream("it sends a line without an end")
        if not lines:
            continue
        yield b"".join(begun).rstrip(b"\r")
        *whole, last = lines
        for line in whole:
            yield line.rstrip(b"\r")
        begun, size = [last], len(last)
    if size:
        yield b"".join(begun).rstrip(b"\r")


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadStream(f"it sends what is no JSON: {data[:60].decode(errors='replace')!r}") from None
    if not isinstance(found, dict):
        raise BadStream(f"it sends {type(found).__name__} where an object was expected")
    return found
