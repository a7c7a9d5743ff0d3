"""Weights that do not fit into memory: packed once into a file, and mapped from there.

The system reads of a mapped file what a step needs, and takes the memory back when somebody else wants it.
The file: packed weights and tables, each at a multiple of 64 bytes; an index in JSON; a footer with its
length and checksum. It is written beside its place and renamed when it is whole, and every part has a
checksum, which is compared before any is used: that takes as long as one token. Knows bytes and packed
weights, no layers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from model.files import ModelLoadError
from model.kernels.build.library import REPOSITORY, user_cache
from model.kernels.errors import Progress
from model.kernels.linear import ALIGNMENT, LinearWeight
from model.machine import readable_size
from model.model_path import model_name
from model.network.place import WeightStore

log = logging.getLogger(__name__)

_FOOTER = struct.Struct("<16sQ32s")
"""Magic, bytes of the index before it, SHA-256 of the index."""
_MAGIC = b"parlor's packed\n"
_MARGIN = 64 << 20
"""Bytes of disk beside the weights: for the index, and for what a file system wants itself."""
_READ_BYTES = 16 << 20
_PACKERS = ("cpu/linear", "model/formats", "model/kernels", "model/network")
"""The code that decides what packed weights look like: after a change copies are written anew."""


class _Unusable(Exception):
    """What is there is no copy of this model; the message says why."""


@dataclass(frozen=True)
class CopyPlace:
    """Where the copy of a model lies, and what tells it from one of other files or of other code."""

    path: Path
    fingerprint: str

    @classmethod
    def of(cls, model: Path, files: Sequence[Path], recipe: str) -> CopyPlace:
        """model: its folder or file; files: that it is read from; recipe: what they are made into."""
        digest = hashlib.sha256(recipe.encode())
        for file in files:
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="replace"))
        for folder in _PACKERS:
            for source in sorted((REPOSITORY / folder).rglob("*")):
                if source.suffix in (".py", ".cpp", ".h"):
                    digest.update(source.read_bytes())
        where = hashlib.sha256(os.fsencode(model.absolute()) + recipe.encode()).hexdigest()
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "_" for c in model_name(model))
        return cls(user_cache() / "packed" / f"{plain[:80]}-{where[:12]}", digest.hexdigest())


def packed_copy(place: CopyPlace, nbytes: int, kept_bytes: int, write: Callable[[WeightStore], None],
                progress: Progress) -> WeightStore:
    """The copy at `place`; written first if there is none that is whole.

    nbytes      that it will take, about
    kept_bytes  of the weights that are held in memory; the others are mapped
    write       loads the model with a store, which writes down whatever is packed

    Raises ModelLoadError where there is no room for it, or it cannot be written or read.
    """
    try:
        try:
            return _PackedCopy(place, kept_bytes, progress)
        except (_Unusable, FileNotFoundError) as error:
            if isinstance(error, _Unusable):
                log.warning("The packed copy %s is written anew: %s.", place.path, error)
            _write(place, nbytes, write)
            return _PackedCopy(place, kept_bytes, progress)
    except _Unusable as error:
        raise ModelLoadError(f"{place.path} cannot be used although it has just been written: {error}. Is "
                             "the disk in order?") from None
    except OSError as error:
        raise ModelLoadError(f"The packed copy {place.path} cannot be written or read: "
                             f"{error.strerror or error}.") from error


def _write(place: CopyPlace, nbytes: int, write: Callable[[WeightStore], None]) -> None:
    folder = place.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    place.path.unlink(missing_ok=True)
    for left in folder.glob(f"{place.path.name}.*.partial"):  # of one that was stopped
        left.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < nbytes + _MARGIN:
        raise ModelLoadError(f"The weights do not fit into memory, and a packed copy of them on disk needs "
                             f"{readable_size(nbytes + _MARGIN)}; {readable_size(free)} are free in "
                             f"{folder}. Free some there, let XDG_CACHE_HOME name a folder on another disk, "
                             "or use a smaller model.")
    unfinished = folder / f"{place.path.name}.{os.getpid()}.partial"
    try:
        with unfinished.open("w+b") as file:
            writer = _Writer(file)
            write(writer)
            writer.finish(place.fingerprint)
        os.replace(unfinished, place.path)  # noqa: PTH105 - the one call that is atomic everywhere
    finally:
        unfinished.unlink(missing_ok=True)


class _Writer:
    """A WeightStore that writes down what is packed, and holds none of it in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end = file, 0
        self._index: dict[str, Any] = {"weights": {}, "tables": {}}

    def weights(self, name: str, pack: Callable[[], list[Any]]) -> list[Any]:
        made = pack()
        assert name not in self._index["weights"], f"{name} is packed twice"
        self._index["weights"][name] = [
            {"struct": weight.record().hex(), "buffer": self._put(weight.buffer),
             "bias": self._put(weight.bias), "perm": self._put(weight.perm)} for weight in made]
        return [weight.hollow() for weight in made]

    def table(self, name: str, read: Callable[[], Tensor]) -> Tensor:
        table = read()
        entry = self._index["tables"][name] = self._put(table)
        self._file.flush()
        return _tensor(_mapped(self._file), entry)

    def finish(self, fingerprint: str) -> None:
        index = json.dumps({"fingerprint": fingerprint, **self._index}).encode()
        self._file.write(index)
        self._file.write(_FOOTER.pack(_MAGIC, len(index), hashlib.sha256(index).digest()))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _put(self, tensor: Tensor | None) -> dict[str, Any] | None:
        if tensor is None:
            return None
        data = memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy())
        gap = -self._end % ALIGNMENT
        self._file.write(bytes(gap))
        self._file.write(data)
        offset, self._end = self._end + gap, self._end + gap + len(data)
        return {"offset": offset, "nbytes": len(data), "crc": zlib.crc32(data),
                "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


class _PackedCopy:
    """A WeightStore that has everything already. Raises _Unusable, OSError."""

    def __init__(self, place: CopyPlace, kept_bytes: int, progress: Progress) -> None:
        self._left = kept_bytes
        with place.path.open("rb") as file:
            self._index = _read_index(file, place.fingerprint)
            self._check(file, progress, f"Checking {place.path.name}")
            self._memory = _mapped(file)

    def weights(self, name: str, pack: Callable[[], list[Any]]) -> list[Any]:
        return [LinearWeight.rebuilt(bytes.fromhex(entry["struct"]), *(
            self._part(entry[part]) for part in ("buffer", "bias", "perm")))
            for entry in self._index["weights"][name]]

    def table(self, name: str, read: Callable[[], Tensor]) -> Tensor:
        """Mapped: of a table few rows are read at a time."""
        return _tensor(self._memory, self._index["tables"][name])

    def _part(self, entry: dict[str, Any] | None) -> Tensor | None:
        if entry is None:
            return None
        mapped = _tensor(self._memory, entry)
        self._left -= entry["nbytes"]
        return mapped.clone() if self._left >= 0 else mapped

    def _check(self, file: BinaryIO, progress: Progress, what: str) -> None:
        parts = list(self._parts())
        total, done = sum(part["nbytes"] for part in parts), 0
        for part in parts:
            file.seek(part["offset"])
            crc, left = 0, part["nbytes"]
            while left:
                data = file.read(min(left, _READ_BYTES))
                crc, left = zlib.crc32(data, crc), left - len(data)
                if not data:
                    raise _Unusable("it is too short")
            if crc != part["crc"]:
                raise _Unusable(f"{part['nbytes']:,} bytes at {part['offset']:,} have changed")
            done += part["nbytes"]
            progress(what, done / total)

    def _parts(self) -> Iterator[dict[str, Any]]:
        for weights in self._index["weights"].values():
            for entry in weights:
                yield from (entry[part] for part in ("buffer", "bias", "perm") if entry[part] is not None)
        yield from self._index["tables"].values()


def _read_index(file: BinaryIO, fingerprint: str) -> dict[str, Any]:
    """Raises _Unusable if the file is not whole, or a copy of something else."""
    end = file.seek(0, os.SEEK_END) - _FOOTER.size
    if end < 0:
        raise _Unusable("it is too short")
    file.seek(end)
    magic, length, digest = _FOOTER.unpack(file.read(_FOOTER.size))
    if magic != _MAGIC or length > end:
        raise _Unusable("it does not end as one")
    file.seek(end - length)
    data = file.read(length)
    if hashlib.sha256(data).digest() != digest:
        raise _Unusable("its index has changed")
    index: dict[str, Any] = json.loads(data)
    if index["fingerprint"] != fingerprint:
        raise _Unusable("it is of other files or of another version")
    return index


def _mapped(file: BinaryIO) -> mmap.mmap:
    """All of it, to be read alone: what may be written would count as memory from the first byte on."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _tensor(memory: mmap.mmap, entry: dict[str, Any]) -> Tensor:
    dtype = getattr(torch, entry["dtype"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it must not be written; nobody does
        return torch.frombuffer(memory, dtype=torch.uint8, count=entry["nbytes"],
                                offset=entry["offset"]).view(dtype).view(entry["shape"])
