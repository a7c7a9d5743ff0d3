"""The index at the end of a packed copy (packed_copy.py): JSON, and a footer with its length and checksum."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import Any, BinaryIO

_FOOTER = struct.Struct("<16sQ32s")
"""Magic, bytes of the index before it, SHA-256 of the index."""
_MAGIC = b"parlor's packed\n"


class UnusableError(Exception):
    """What is there is no copy of this model; the message says why."""


def write_index(file: BinaryIO, index: dict[str, Any]) -> None:
    """At the end of what has been written."""
    data = json.dumps(index).encode()
    file.write(data)
    file.write(_FOOTER.pack(_MAGIC, len(data), hashlib.sha256(data).digest()))


def read_index(file: BinaryIO) -> dict[str, Any]:
    """Raises UnusableError if the file is not whole."""
    end = file.seek(0, os.SEEK_END) - _FOOTER.size
    if end < 0:
        raise UnusableError("it is too short")
    file.seek(end)
    magic, length, digest = _FOOTER.unpack(file.read(_FOOTER.size))
    if magic != _MAGIC or length > end:
        raise UnusableError("it does not end as one")
    file.seek(end - length)
    data = file.read(length)
    if hashlib.sha256(data).digest() != digest:
        raise UnusableError("its index has changed")
    index: dict[str, Any] = json.loads(data)
    return index
