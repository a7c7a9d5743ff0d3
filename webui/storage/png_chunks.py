"""PNG files as their chunks. https://www.w3.org/TR/png-3/#5DataRep"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of every chunk up to IEND, checked. Raises ValueError with a sentence's end."""
    if not data.startswith(SIGNATURE):
        raise ValueError("it is no PNG file")
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        head = data[at:at + 8]
        if len(head) < 8:
            raise ValueError("the file breaks off between two chunks")
        length, kind = struct.unpack(">I4s", head)
        content, check = data[at + 8:at + 8 + length], data[at + 8 + length:at + 12 + length]
        if len(check) < 4:
            raise ValueError(f"the file breaks off in a chunk of {length:,} bytes")
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(check, "big"):
            raise ValueError(f"a chunk is damaged (its checksum is wrong, at byte {at:,})")
        yield kind, content
        if kind == b"IEND":
            return
        at += 12 + length
    raise ValueError(f"it has over {MAX_CHUNKS:,} chunks")


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I4s", len(content), kind) + content + check.to_bytes(4, "big")
