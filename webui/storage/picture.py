"""The picture of a bot: a small PNG with its pixels and nothing else, kept as base64 in the bot's file.

The page makes pictures small before it sends them; here the pixels are unpacked, counted and packed anew, so
that neither what a camera wrote beside them nor anything hidden between the chunks is kept or passed on.
https://www.w3.org/TR/png-3/#11IHDR
"""

from __future__ import annotations

import struct
import zlib

from ..strict_json import from_base64
from .png_chunks import SIGNATURE, chunk, chunks

MAX_SIDE = 256  # pixels
MAX_BYTES = 300_000
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, each with an alpha channel
_KEPT = {b"IHDR", b"IDAT", b"IEND"}


def clean_picture(data: bytes) -> bytes:
    """`data`, a PNG file, with its pixels alone. Raises ValueError with what is wrong."""
    head, rows = _pixels(data)
    packed = zlib.compress(rows, 9)
    return SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def check_picture(where: str, value: object) -> None:
    """Whether `value` is a clean picture in base64, or "". Raises ValueError."""
    if value == "":
        return
    data = picture_bytes(where, value)
    try:
        _pixels(data)
        found = list(chunks(data))
    except ValueError as error:
        raise ValueError(f"{where} cannot be taken: {error}") from None
    length = len(SIGNATURE) + sum(len(content) + 12 for _, content in found)
    if length != len(data) or not {kind for kind, _ in found} <= _KEPT:
        raise ValueError(f"{where} holds more than its pixels")


def picture_bytes(where: str, value: object) -> bytes:
    """The bytes of a picture in base64. Raises ValueError if it is none, or too large."""
    if isinstance(value, str) and len(value) > MAX_BYTES * 4 // 3 + 4:
        raise ValueError(f"{where} has over {MAX_BYTES:,} bytes")
    return from_base64(where, value)


def _pixels(data: bytes) -> tuple[bytes, bytes]:
    """(content of IHDR, rows as they are unpacked: each a filter's byte and its pixels)."""
    head, packed = b"", []
    for kind, content in chunks(data):
        if kind == b"IHDR" and not head:
            head = content
        elif kind == b"IDAT":
            packed.append(content)
    if len(head) != 13:
        raise ValueError("it is no PNG picture")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", head)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError(f"it has {width:,} x {height:,} pixels; at most {MAX_SIDE} x {MAX_SIDE} are taken")
    if depth != 8 or colour not in _CHANNELS or compression or filtering or interlace:
        raise ValueError("it is not in plain colours or greys of 8 bits, or it is interlaced")
    row = 1 + width * _CHANNELS[colour]
    unpacking = zlib.decompressobj()
    try:
        rows = unpacking.decompress(b"".join(packed), row * height + 1)
    except zlib.error:
        raise ValueError("its pixels cannot be unpacked") from None
    if len(rows) != row * height or not unpacking.eof or unpacking.unused_data or max(rows[::row]) > 4:
        raise ValueError("its pixels are damaged")
    return head, rows
