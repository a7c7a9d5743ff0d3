"""Safetensors files written as a stream: bytes of tensors that lie in other files, in one file or in several.

A tensor is never in memory as a whole, nor is it converted. The reader's checks hold for what is written:
tensors follow each other without gaps. Wider types come first in a file, so that each lies at a multiple of
its own size, which readers that map files rely on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from model.files import ModelLoadError
from model.formats.safetensors_reader import DTYPES, MAX_FILES, TensorInfo, read_header

INDEX = "model.safetensors.index.json"
_CHUNK = 8 << 20
_TYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Copied = Callable[[int], None]
"""Hears how many bytes more have been written."""


def plan_shards(tensors: Mapping[str, TensorInfo], max_bytes: int | None) -> list[list[str]]:
    """The names of each file's tensors, in their order, of at most `max_bytes` together; None: one file.

    A larger tensor has a file of its own. Raises ValueError if there would be too many files.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if max_bytes is not None and shards[-1] and size + info.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.nbytes
    if len(shards) > MAX_FILES:
        raise ValueError(f"files of {max_bytes:,} bytes would be {len(shards):,}; expected at most "
                         f"{MAX_FILES:,}. Choose a larger size.")
    return shards


def write_folder(folder: Path, tensors: Mapping[str, TensorInfo], max_bytes: int | None, *,
                 metadata: Mapping[str, str], index: Mapping[str, Any] | None = None,
                 copied: Copied | None = None) -> list[Path]:
    """Write model.safetensors, or model-00001-of-0000N.safetensors and their index, into a folder.

    max_bytes  of the tensors of a file, see plan_shards()
    metadata   of every file
    index      what stands under "metadata" of the index besides total_size

    returns  the files, each read back by its header. Raises ModelLoadError if a source changed meanwhile,
    OSError if a file cannot be written.
    """
    shards = plan_shards(tensors, max_bytes)
    count, paths, places = len(shards), [], {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        paths.append(folder / file)
        write_file(paths[-1], {name: tensors[name] for name in names}, metadata, copied)
        places.update(dict.fromkeys(names, file))
    if count > 1:
        said = {**(index or {}), "total_size": sum(info.nbytes for info in tensors.values())}
        text = json.dumps({"metadata": said, "weight_map": places}, indent=2, ensure_ascii=False)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")
    return paths


def write_file(path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str],
               copied: Copied | None = None) -> None:
    """One file, which is on the disk when this returns. Errors: see write_folder()."""
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    with path.open("xb") as out:
        out.write(_header(ordered, metadata))
        for info in ordered.values():
            _copy(info, out, copied or (lambda count: None))
        out.flush()
        os.fsync(out.fileno())
    written = read_header(path)
    for name, info in ordered.items():
        if (written[name].dtype, written[name].shape) != (info.dtype, info.shape):
            raise ModelLoadError(f"{path.name}: {name} came out as another tensor; is the disk at fault?")


def _header(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, info in tensors.items():
        entries[name] = {"dtype": _TYPE_NAMES[info.dtype], "shape": list(info.shape),
                         "data_offsets": [position, position + info.nbytes]}
        position += info.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy(info: TensorInfo, out: BinaryIO, copied: Copied) -> None:
    with info.path.open("rb") as file:
        file.seek(info.offset)
        left = info.nbytes
        while left:
            data = file.read(min(_CHUNK, left))
            if not data:
                raise ModelLoadError(f"{info.path.name} became shorter while it was read")
            out.write(data)
            left -= len(data)
            copied(len(data))

