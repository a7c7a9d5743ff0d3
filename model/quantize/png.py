"""A picture of rectangles and small letters, as a PNG. Knows nothing of what it shows.

Written here because a report should not need a library for drawing. Format: https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

Color = tuple[int, int, int]

_ROWS = {  # three dots by five, row by row; 1 is ink
    "0": "111 101 101 101 111", "1": "010 110 010 010 111", "2": "111 001 111 100 111",
    "3": "111 001 111 001 111", "4": "101 101 111 001 001", "5": "111 100 111 001 111",
    "6": "111 100 111 101 111", "7": "111 001 010 010 010", "8": "111 101 111 101 111",
    "9": "111 101 111 001 111", "a": "010 101 111 101 101", "b": "110 101 110 101 110",
    "c": "011 100 100 100 011", "d": "110 101 101 101 110", "e": "111 100 110 100 111",
    "f": "111 100 110 100 100", "g": "011 100 101 101 011", "h": "101 101 111 101 101",
    "i": "111 010 010 010 111", "j": "001 001 001 101 010", "k": "101 101 110 101 101",
    "l": "100 100 100 100 111", "m": "101 111 111 101 101", "n": "110 101 101 101 101",
    "o": "010 101 101 101 010", "p": "110 101 110 100 100", "q": "010 101 101 110 011",
    "r": "110 101 110 101 101", "s": "011 100 010 001 110", "t": "111 010 010 010 010",
    "u": "101 101 101 101 111", "v": "101 101 101 101 010", "w": "101 101 111 111 101",
    "x": "101 101 010 101 101", "y": "101 101 010 010 010", "z": "111 001 010 100 111",
    ".": "000 000 000 000 010", "%": "101 001 010 100 101", "-": "000 000 111 000 000",
    "_": "000 000 000 000 111", ",": "000 000 000 010 100", ":": "000 010 000 010 000"}
_DOT = 2
LETTER_WIDTH, LETTER_HEIGHT = 4 * _DOT, 5 * _DOT


class Picture:
    """Colors are red, green and blue, 0 to 255; x counts from the left, y from above."""

    def __init__(self, width: int, height: int, background: Color = (255, 255, 255)) -> None:
        self.pixels = np.full((height, width, 3), background, dtype=np.uint8)

    def rectangle(self, x: int, y: int, width: int, height: int, color: Color) -> None:
        self.pixels[max(0, y):max(0, y + height), max(0, x):max(0, x + width)] = color

    def text(self, x: int, y: int, text: str, color: Color = (0, 0, 0)) -> None:
        """In capitals; letters that are not known are left blank."""
        for position, letter in enumerate(text.lower()):
            for row, dots in enumerate(_ROWS.get(letter, "").split()):
                for column, dot in enumerate(dots):
                    if dot == "1":
                        left = x + position * LETTER_WIDTH + column * _DOT
                        self.rectangle(left, y + row * _DOT, _DOT, _DOT, color)

    def save(self, path: Path) -> None:
        height, width, _ = self.pixels.shape
        rows = np.concatenate([np.zeros((height, 1), np.uint8), self.pixels.reshape(height, -1)], axis=1)
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
                         + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
