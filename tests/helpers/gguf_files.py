"""GGUF files made by hand, for tests: every part is bytes that a test may spoil."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
_ARRAY_TYPES = {"uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6,
                "bool": 7, "uint64": 10, "int64": 11, "float64": 12}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """A type's number and the value, as they follow a key's name."""
    if isinstance(item, bool):
        return struct.pack("<IB", BOOL, item)
    if isinstance(item, int):
        return struct.pack("<Ii", I32, item) if item < 0 else struct.pack("<II", U32, item)
    if isinstance(item, float):
        return struct.pack("<If", F32, item)
    if isinstance(item, str):
        return struct.pack("<I", STRING) + text(item)
    if isinstance(item, np.ndarray):
        return struct.pack("<IIQ", ARRAY, _ARRAY_TYPES[item.dtype.name], len(item)) + item.tobytes()
    return struct.pack("<IIQ", ARRAY, STRING, len(item)) + b"".join(map(text, item))


def key(name: str | bytes, item: Any) -> bytes:
    """A pair of the metadata; bytes are taken as type and value already."""
    return text(name) + (item if isinstance(item, bytes) else value(item))


def tensor(name: str, sizes: tuple[int, ...], type_number: int, offset: int) -> bytes:
    """A tensor's description; `sizes` as in the file: the inputs first."""
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, type_number, offset)


def file(keys: list[bytes], tensors: list[bytes], data: bytes = b"", *, version: int = 3,
         num_tensors: int | None = None, num_keys: int | None = None) -> bytes:
    """The whole file; counts that are not told are true ones."""
    counts = (len(tensors) if num_tensors is None else num_tensors,
              len(keys) if num_keys is None else num_keys)
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def write_gguf(path: Path, metadata: dict[str, Any], tensors: dict[str, tuple[int, np.ndarray]]) -> Path:
    """`tensors`: name -> (type's number, array). Floats go as they are, with the shape; blocks as uint8
    [rows, row_bytes] and their number of columns follows from the type."""
    from model.formats.ggml_types import ggml_type

    described, data = [], b""
    for name, (number, array) in tensors.items():
        kind = ggml_type(number)
        columns = array.shape[-1]
        if array.dtype == np.uint8:
            columns = columns // kind.block_bytes * kind.block
        sizes = (columns, *reversed(array.shape[:-1]))
        described.append(tensor(name, sizes, number, len(data)))
        data += array.tobytes()
        data += bytes(-len(data) % 32)
    path.write_bytes(file([key(name, item) for name, item in metadata.items()], described, data))
    return path
