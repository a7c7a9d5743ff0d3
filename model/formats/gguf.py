"""GGUF files (versions 2 and 3): metadata and where the tensors lie, over all parts of a split model.

The header is untrusted: every length, count and offset is checked in Python's unbounded integers against the
file's size before anything is allocated. Tensors are read, not mapped: a file that is cut while we read is an
error, not a crash. Knows nothing of what metadata and tensors mean.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from model.config import shown
from model.files import ModelLoadError, open_file
from model.formats.ggml_types import GgmlType, ggml_type
from model.formats.gguf_parts import parts_of
from model.formats.safetensors_reader import TensorInfo, read_tensor

MAX_HEADER_BYTES = 256 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_ARRAY = 1 << 21   # elements; the largest vocabularies have a quarter of a million tokens
MAX_NAME = 1 << 10
MAX_TEXT = 16 << 20   # chat templates are the longest
_MAX_DIMENSIONS = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1", 10: "<u8",
            11: "<i8", 12: "<f8"}


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies. `shape` has the longest stride first, as torch has it: [outputs, inputs]."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    offset: int  # from the beginning of the file
    path: Path

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        return self.type.row_bytes(self.shape[-1])

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes

    def read(self, first: int = 0, last: int | None = None) -> Tensor:
        """uint8 [last - first, row_bytes]: the blocks of these rows, or of all, as they are in the file."""
        count = (self.rows if last is None else last) - first
        offset = self.offset + first * self.row_bytes
        return read_tensor(TensorInfo(torch.uint8, (count, self.row_bytes), offset, count * self.row_bytes,
                                      self.path))


class GgufFile:
    """A model's metadata, and its tensors by name. Raises ModelLoadError, naming file, key and tensor."""

    def __init__(self, path: Path) -> None:
        """`path`: the file, or any part of a split one; the other parts lie beside it."""
        self.path = Path(path)
        parts = parts_of(self.path)
        first, *others = (_read_header(part) for part in parts)
        self.metadata: dict[str, Any] = first[0]
        """Numbers, bools, texts, lists of texts, and numpy arrays of the other lists."""
        self.tensors: dict[str, GgufTensor] = {}
        for _, tensors in (first, *others):
            for tensor in tensors:
                if tensor.name in self.tensors:
                    raise ModelLoadError(f"{tensor.path.name}: tensor {shown(tensor.name)} is also in "
                                         f"{self.tensors[tensor.name].path.name}")
                self.tensors[tensor.name] = tensor
        self._check_split(len(parts))

    def _check_split(self, num_parts: int) -> None:
        count = self.metadata.get("split.count", 1)
        if num_parts == 1 and isinstance(count, int) and count > 1:
            raise ModelLoadError(f"{self.path.name} is a part of a model in {count} files, but its name does "
                                 f"not end in -00001-of-{count:05}.gguf. Give the files their names back.")
        total = self.metadata.get("split.tensors.count", len(self.tensors))
        if num_parts > 1 and total != len(self.tensors):
            raise ModelLoadError(f"{self.path.name}: {len(self.tensors)} tensors are in its {num_parts} "
                                 f"files; expected {shown(total)}. Download them again.")

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def tensor(self, name: str) -> GgufTensor:
        """Raises ModelLoadError if there is no such tensor."""
        if name not in self.tensors:
            raise ModelLoadError(f"{self.path.name}: there is no tensor {name}; is the file complete?")
        return self.tensors[name]


class _Header:
    """The bytes of a header, taken one after the other."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file, self._size, self.name = file, size, name
        self.position = 0

    def error(self, problem: str) -> ModelLoadError:
        return ModelLoadError(f"{self.name}: {problem}")

    def take(self, count: int) -> bytes:
        if count > min(self._size, MAX_HEADER_BYTES) - self.position:
            if count > self._size - self.position:
                raise self.error(f"the header goes on behind the file's end at {self._size:,} bytes. "
                                 "Download it again.")
            raise self.error(f"the header has over {MAX_HEADER_BYTES >> 20} MiB; no model's is that large")
        data = self._file.read(count)
        if len(data) != count:
            raise self.error("became shorter while it was read")
        self.position += count
        return data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self, limit: int, what: str) -> str:
        length = self.number(8)
        if length > limit:
            raise self.error(f"{what} has {length:,} bytes; at most {limit:,} are possible. Is the file "
                             "complete?")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is no UTF-8") from None


def _read_header(path: Path) -> tuple[dict[str, Any], list[GgufTensor]]:
    """Metadata and tensors of one file."""
    try:
        file, size = open_file(path)
        with file:
            header = _Header(file, size, path.name)
            num_tensors, num_keys = _counts(header)
            metadata = _metadata(header, num_keys)
            described = [_tensor(header) for _ in range(num_tensors)]
            alignment = metadata.get("general.alignment", 32)
            if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
                raise header.error(f"general.alignment is {shown(alignment)}; expected a power of two from 8 "
                                   "to 1,048,576")
            start = -(-header.position // alignment) * alignment
            tensors = [GgufTensor(name, kind, shape, start + offset, path)
                       for name, kind, shape, offset in described]
            _check_layout(header, tensors, start, alignment, size)
            return metadata, tensors
    except OSError as error:
        raise ModelLoadError(f"{path.name} cannot be read: {error.strerror}") from error


def _counts(header: _Header) -> tuple[int, int]:
    magic = header.take(4)
    if magic != b"GGUF":
        hint = " It is an old GGML file: convert it to GGUF." if magic in (b"lmgg", b"fmgg", b"tjgg") else ""
        raise header.error(f"begins with {magic!r}; expected b'GGUF'.{hint}")
    version = header.number(4)
    if version & 0xFFFF == 0 and version:
        raise header.error("is in big-endian byte order; expected little-endian. Convert it with gguf-py's "
                           "gguf_convert_endian.py.")
    if version not in (2, 3):
        raise header.error(f"is GGUF version {version}; supported: 2 and 3")
    num_tensors, num_keys = header.number(8), header.number(8)
    if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
        raise header.error(f"claims {num_tensors:,} tensors and {num_keys:,} keys; at most {MAX_TENSORS:,} "
                           f"and {MAX_KEYS:,} are possible")
    return num_tensors, num_keys


def _metadata(header: _Header, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = header.text(MAX_NAME, "a key's name")
        if key in metadata:
            raise header.error(f"key {shown(key)} is there twice")
        metadata[key] = _value(header, key)
    return metadata


def _value(header: _Header, key: str) -> Any:
    kind = header.number(4)
    if kind == _STRING:
        return header.text(MAX_TEXT, f"the text of {shown(key)}")
    if kind in _NUMBERS:
        return _numbers(header, key, kind, 1)[0].item()
    if kind != _ARRAY:
        raise header.error(f"key {shown(key)} has type {kind}; expected 0 to 12")
    element, count = header.number(4), header.number(8)
    if count > MAX_ARRAY:
        raise header.error(f"key {shown(key)} has {count:,} elements; at most {MAX_ARRAY:,} are possible")
    if element == _STRING:
        return [header.text(MAX_TEXT, f"a text of {shown(key)}") for _ in range(count)]
    if element in _NUMBERS:
        return _numbers(header, key, element, count)
    raise header.error(f"key {shown(key)} is an array of type {element}; expected numbers, bools or texts")


def _numbers(header: _Header, key: str, kind: int, count: int) -> np.ndarray:
    dtype = np.dtype(_NUMBERS[kind])
    data = header.take(count * dtype.itemsize)
    if kind == _BOOL and any(data.translate(None, b"\0\1")):
        raise header.error(f"key {shown(key)} is a bool with another value than 0 and 1")
    return np.frombuffer(data, dtype)


def _tensor(header: _Header) -> tuple[str, GgmlType, tuple[int, ...], int]:
    """(name, type, shape, offset from the start of the data) of the next tensor."""
    name = header.text(MAX_NAME, "a tensor's name")
    where = f"tensor {shown(name)}"
    num_dimensions = header.number(4)
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise header.error(f"{where} has {num_dimensions} dimensions; expected 1 to {_MAX_DIMENSIONS}")
    sizes = [header.number(8) for _ in range(num_dimensions)]
    if not all(1 <= size < 1 << 48 for size in sizes):
        raise header.error(f"{where} has the sizes {sizes}; expected positive numbers")
    number = header.number(4)
    kind = ggml_type(number)
    if kind is None:
        raise header.error(f"{where} has the unknown type {number}. The file may be newer than Parlor.")
    if sizes[0] % kind.block:
        raise header.error(f"{where} has rows of {sizes[0]:,}; {kind.name} needs a multiple of {kind.block}")
    return name, kind, tuple(reversed(sizes)), header.number(8)


def _check_layout(header: _Header, tensors: list[GgufTensor], start: int, alignment: int, size: int) -> None:
    """Tensors lie inside the file, aligned, and none on another."""
    end = start
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        where = f"tensor {shown(tensor.name)}"
        if (tensor.offset - start) % alignment:
            raise header.error(f"{where} begins at {tensor.offset - start:,}; expected a multiple of "
                               f"{alignment}")
        if tensor.offset < end:
            raise header.error(f"{where} overlaps the one before")
        end = tensor.offset + tensor.nbytes
        if end > size:
            raise header.error(f"is cut off: {where} ends at {end:,} bytes, the file at {size:,}. "
                               "Download it again.")
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise header.error("two tensors have one name")
