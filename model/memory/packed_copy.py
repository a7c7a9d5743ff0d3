"""Weights that do not fit into memory: packed once into a file, and mapped from there.

The system reads of a mapped file what a step needs, and takes the memory back when somebody else wants it.
The file: packed weights and tables, each at a multiple of 64 bytes, and an index (packed_index.py). It is
written beside its place and renamed when it is whole, and every part has a checksum, which is compared before
any is used: that takes as long as one token. Which copies may go again is old_copies.py's. Knows bytes and
packed weights, no layers.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from model.files import ModelLoadError
from model.kernels.build.library import REPOSITORY, user_cache
from model.kernels.errors import Progress
from model.kernels.linear import ALIGNMENT, LinearWeight
from model.memory.old_copies import PARTIAL, Source, hold, let_go, make_room, note_use, remove_useless
from model.memory.packed_index import UnusableError, read_index, write_index
from model.model_path import model_name
from model.network.place import WeightStore

log = logging.getLogger(__name__)

_READ_BYTES = 16 << 20
_PACKERS = ("cpu/linear", "model/formats", "model/kernels", "model/network")
"""The code that decides what packed weights look like: after a change copies are written anew."""


@dataclass(frozen=True)
class CopyPlace:
    """Where the copy of a model lies, and what tells it from one of other files or of other code."""

    path: Path
    fingerprint: str
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, model: Path, files: Sequence[Path], recipe: str) -> CopyPlace:
        """model: its folder or file; files: that it is read from; recipe: what they are made into."""
        digest = hashlib.sha256(recipe.encode())
        sources = tuple(Source.of(file) for file in files)
        for file, source in zip(files, sources, strict=True):
            digest.update(f"{file.name} {source.nbytes} {source.modified_ns}\n".encode(errors="replace"))
        for folder in _PACKERS:
            for source in sorted((REPOSITORY / folder).rglob("*")):
                if source.suffix in (".py", ".cpp", ".h"):
                    digest.update(source.read_bytes())
        where = hashlib.sha256(os.fsencode(model.absolute()) + recipe.encode()).hexdigest()
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "_" for c in model_name(model))
        return cls(_folder() / f"{plain[:80]}-{where[:12]}", digest.hexdigest(), sources)


def remove_useless_copies() -> None:
    """Of models that are gone or have changed; see old_copies.py."""
    remove_useless(_folder())


def _folder() -> Path:
    return user_cache() / "packed"


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
        except (UnusableError, FileNotFoundError) as error:
            if isinstance(error, UnusableError):
                log.warning("The packed copy %s is written anew: %s.", place.path, error)
            _write(place, nbytes, write)
            return _PackedCopy(place, kept_bytes, progress)
    except UnusableError as error:
        raise ModelLoadError(f"{place.path} cannot be used although it has just been written: {error}. Is "
                             "the disk in order?") from None
    except OSError as error:
        raise ModelLoadError(f"The packed copy {place.path} cannot be written or read: "
                             f"{error.strerror or error}.") from error


def _write(place: CopyPlace, nbytes: int, write: Callable[[WeightStore], None]) -> None:
    folder = place.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    place.path.unlink(missing_ok=True)
    make_room(folder, nbytes)
    unfinished = folder / f"{place.path.name}.{os.getpid()}{PARTIAL}"
    try:
        with unfinished.open("w+b") as file:
            hold(file, to_write=True)
            writer = _Writer(file)
            write(writer)
            writer.finish(place)
            let_go(file)  # what tables are looked up in may still be mapped
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

    def finish(self, place: CopyPlace) -> None:
        write_index(self._file, {"fingerprint": place.fingerprint, "sources": [
            astuple(source) for source in place.sources], **self._index})
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
    """A WeightStore that has everything already. Raises UnusableError, OSError."""

    def __init__(self, place: CopyPlace, kept_bytes: int, progress: Progress) -> None:
        self._left = kept_bytes
        with place.path.open("rb") as file:
            hold(file)
            self._index = read_index(file)
            if self._index["fingerprint"] != place.fingerprint:
                raise UnusableError("it is of other files or of another version")
            self._check(file, progress, f"Checking {place.path.name}")
            self._memory = _mapped(file)
        note_use(place.path)

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
                    raise UnusableError("it is too short")
            if crc != part["crc"]:
                raise UnusableError(f"{part['nbytes']:,} bytes at {part['offset']:,} have changed")
            done += part["nbytes"]
            progress(what, done / total)

    def _parts(self) -> Iterator[dict[str, Any]]:
        for weights in self._index["weights"].values():
            for entry in weights:
                yield from (entry[part] for part in ("buffer", "bias", "perm") if entry[part] is not None)
        yield from self._index["tables"].values()


def _mapped(file: BinaryIO) -> mmap.mmap:
    """All of it, to be read alone: what may be written would count as memory from the first byte on."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _tensor(memory: mmap.mmap, entry: dict[str, Any]) -> Tensor:
    dtype = getattr(torch, entry["dtype"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it must not be written; nobody does
        return torch.frombuffer(memory, dtype=torch.uint8, count=entry["nbytes"],
                                offset=entry["offset"]).view(dtype).view(entry["shape"])
