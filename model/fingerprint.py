"""What tells a model's files from others: a digest of their sizes and of samples of their bytes.

A model may have hundreds of gigabytes, so most of them are not read; two files of one size that differ in
all weights, as two trainings do, differ in the samples. Knows no format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_WHOLE = 1 << 20  # bytes of a file that is read from its beginning to its end, as settings are
_SAMPLES = 32
_SAMPLE_BYTES = 4096
_HEX = 16


def fingerprint(files: Iterable[Path], made_into: str = "") -> str:
    """16 hex digits for these files in this order, whatever they are called and wherever they lie.

    made_into  what else decides the weights, such as the bits that they are rounded to while they are loaded

    Raises OSError.
    """
    digest = hashlib.sha256(made_into.encode())
    for path in files:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"\n{size} ".encode())
            if size <= _WHOLE:
                digest.update(file.read())
                continue
            for number in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:_HEX]
