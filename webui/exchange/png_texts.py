"""The texts in PNG files, where character cards stand. No pixel is decoded.

https://www.w3.org/TR/png-3/#11textinfo
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from ..storage.png_chunks import SIGNATURE, chunk, chunks

MAX_TEXT = 8 << 20  # bytes of one text, once it is unpacked
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def text_of(data: bytes, *keywords: str) -> bytes | None:
    """The text under the first of `keywords` that there is, as bytes; None if there is none.

    Raises ValueError on a damaged file, and on a text of over MAX_TEXT bytes.
    """
    found: dict[str, bytes] = {}
    for kind, content in chunks(data):
        if kind in _TEXTS:
            keyword, _, rest = content.partition(b"\0")
            name = keyword.decode("latin-1").lower()
            if name in keywords and name not in found:
                found[name] = _unpacked(kind, rest)
    return next((found[keyword] for keyword in keywords if keyword in found), None)


def with_texts(data: bytes, texts: Mapping[str, bytes]) -> bytes:
    """The file with these texts (tEXt, so latin-1) and without those that it had. Raises ValueError."""
    parts = [SIGNATURE]
    for kind, content in chunks(data):
        if kind in _TEXTS:
            continue
        if kind == b"IEND":
            parts += [chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text)
                      for keyword, text in texts.items()]
        parts.append(chunk(kind, content))
    return b"".join(parts)


def _unpacked(kind: bytes, rest: bytes) -> bytes:
    """The text of a chunk, behind its keyword."""
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        if rest[:1] != b"\0":
            raise ValueError("a text in it is packed in a way that PNG does not have")
        rest = rest[1:]
    elif kind == b"iTXt":
        if len(rest) < 2:
            raise ValueError("a text in it breaks off")
        packed, method = rest[0] == 1, rest[1]
        if rest[0] > 1 or (packed and method != 0):
            raise ValueError("a text in it is packed in a way that PNG does not have")
        _language, _, rest = rest[2:].partition(b"\0")
        _translated, _, rest = rest.partition(b"\0")
    if packed:
        unpacking = zlib.decompressobj()
        try:
            rest = unpacking.decompress(rest, MAX_TEXT + 1)
        except zlib.error:
            raise ValueError("a text in it cannot be unpacked") from None
        if not unpacking.eof and len(rest) <= MAX_TEXT:
            raise ValueError("a text in it breaks off")
    if len(rest) > MAX_TEXT:
        raise ValueError(f"a text in it has over {MAX_TEXT >> 20} MiB")
    return rest
