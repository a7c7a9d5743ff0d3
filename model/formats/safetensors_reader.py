"""Tensors of one safetensors file, or of a folder of them, read one at a time.

The header is untrusted: its length, every offset and every shape is checked in Python's unbounded integers
against the file's size before anything is allocated. Tensors are read, not mapped: resident memory stays at
what the caller keeps, and a file that is cut while we read is an error, not a crash.
Knows nothing of what the tensors mean. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import shown
from model.files import ModelLoadError, is_there, open_file, read_json

MAX_HEADER_BYTES = 16 << 20
MAX_FILES = 1024
_PREFIX_BYTES = 8  # the header's length, little-endian

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
          "F8_E8M0": torch.float8_e8m0fnu}

_CHECKED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. `offset` counts from the beginning of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    path: Path
    is_turned: bool = False  # a matrix whose columns follow each other in the file


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file by name, checked. Raises ModelLoadError."""
    header, data_start, file_size = _read_header(path)
    tensors = {name: _tensor_info(name, entry, data_start, path)
               for name, entry in header.items() if name != "__metadata__"}
    _check_layout(tensors, data_start, file_size, path)
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says of itself. Raises ModelLoadError."""
    metadata = _read_header(path)[0].get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelLoadError(f"{path.name}: __metadata__ is {shown(metadata)}; expected names and texts")
    return metadata


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header, where the data begins, and the file's size."""
    try:
        file, file_size = open_file(path)
        with file:
            header_size = int.from_bytes(file.read(_PREFIX_BYTES), "little")
            available = file_size - _PREFIX_BYTES
            if available < 2 or not 2 <= header_size <= min(MAX_HEADER_BYTES, available):
                raise ModelLoadError(
                    f"{path.name}: the header claims {header_size:,} bytes of a file of {file_size:,}; "
                    f"expected at most {MAX_HEADER_BYTES:,}, inside the file. Is it complete?")
            return _parse_header(file.read(header_size), path), _PREFIX_BYTES + header_size, file_size
    except OSError as error:
        raise ModelLoadError(f"{path.name} cannot be read: {error.strerror}") from error


def _parse_header(data: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ModelLoadError(f"{path.name}: the header names a key twice")
        return result

    try:
        header = json.loads(data, object_pairs_hook=unique)
    except ModelLoadError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path.name}: the header is no valid JSON: {str(error)[:120]}") from None
    if not isinstance(header, dict):
        raise ModelLoadError(f"{path.name}: the header is no JSON object")
    return header


def _tensor_info(name: str, entry: Any, data_start: int, path: Path) -> TensorInfo:
    where = f"{path.name}: tensor {shown(name)}"
    if not isinstance(entry, dict):
        raise ModelLoadError(f"{where} has no description")
    dtype_name, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype_name, str) or dtype_name not in DTYPES:
        raise ModelLoadError(f"{where} has type {shown(dtype_name)}; supported: {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > 8:
        raise ModelLoadError(f"{where} has shape {shown(shape)}; expected up to 8 sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ModelLoadError(f"{where} has data_offsets {shown(offsets)}; expected [begin, end]")
    begin, end = offsets
    nbytes = math.prod(shape) * DTYPES[dtype_name].itemsize
    if end - begin != nbytes:
        raise ModelLoadError(f"{where}, {dtype_name} {shown(shape)}, needs {shown(nbytes)} bytes; its "
                             f"offsets span {shown(end - begin)}")
    return TensorInfo(DTYPES[dtype_name], tuple(shape), data_start + begin, nbytes, path)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 63 for item in value)


def _check_layout(tensors: dict[str, TensorInfo], data_start: int, file_size: int, path: Path) -> None:
    """The tensors must fill the file from the header to its end, without gap or overlap."""
    position = data_start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if info.offset != position:
            what = "overlaps the one before" if info.offset < position else "leaves a gap before it"
            raise ModelLoadError(f"{path.name}: tensor {shown(name)} {what}")
        position += info.nbytes
    if position != file_size:
        problem = "is cut off" if position > file_size else "has bytes that belong to no tensor"
        raise ModelLoadError(f"{path.name} {problem}: the header describes {position:,} bytes, the file has "
                             f"{file_size:,}. Download it again.")


def read_tensor(info: TensorInfo) -> Tensor:
    """The tensor in memory of its own. Raises ModelLoadError if the file has changed since."""
    tensor = torch.empty(info.shape[::-1] if info.is_turned else info.shape, dtype=info.dtype)
    if not info.nbytes:
        return tensor
    buffer = memoryview(tensor.view(-1).view(torch.uint8).numpy())
    try:
        with info.path.open("rb") as file:
            file.seek(info.offset)
            done = 0
            while done < info.nbytes:
                count = file.readinto(buffer[done:])
                if not count:
                    raise ModelLoadError(f"{info.path.name} became shorter while it was read")
                done += count
    except OSError as error:
        raise ModelLoadError(f"{info.path.name} cannot be read: {error.strerror}") from error
    return tensor.T.contiguous() if info.is_turned else tensor


class TensorFolder:
    """Every tensor of a model's folder by name, over all its safetensors files."""

    def __init__(self, folder: Path) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        for path in _weight_files(folder):
            for name, info in read_header(path).items():
                if name in self.tensors:
                    raise ModelLoadError(f"{path.name}: tensor {shown(name)} is also in "
                                         f"{self.tensors[name].path.name}")
                self.tensors[name] = info

    def __contains__(self, name: str) -> bool:
        return name in self.tensors or self._part(name) is not None

    def info(self, name: str) -> TensorInfo:
        """Raises ModelLoadError if there is no such tensor."""
        if (part := self._part(name)) is not None:
            return part
        if name not in self.tensors:
            raise ModelLoadError(f"the model has no tensor {name}; is a file missing, or is config.json "
                                 "another model's?")
        return self.tensors[name]

    def _part(self, name: str) -> TensorInfo | None:
        """Number 3 of the matrices that lie in one tensor, for "experts.down_proj#3.weight": the tensor is
        experts.down_proj or experts.down_proj.weight; "experts.down_proj~#3.weight": each lies there turned.
        Of .bias it is experts.down_proj_bias, too. "attn.c_attn~.weight": all of a tensor that lies there
        turned. None if it is no such name, or not there."""
        module, mark, rest = name.partition("#")
        if not mark:
            return self._turned(name)
        is_turned, module = module.endswith("~"), module.removesuffix("~")
        number, _, end = rest.partition(".")
        names = (f"{module}.{end}", module if end == "weight" else f"{module}_{end}")
        whole = next((self.tensors[found] for found in names if found in self.tensors), None)
        if whole is None or len(whole.shape) < 2 or not number.isdecimal() or int(number) >= whole.shape[0]:
            return None
        size = whole.nbytes // whole.shape[0]
        is_turned = is_turned and end == "weight" and len(whole.shape) == 3
        shape = whole.shape[:0:-1] if is_turned else whole.shape[1:]
        return replace(whole, shape=shape, offset=whole.offset + int(number) * size, nbytes=size,
                       is_turned=is_turned)

    def _turned(self, name: str) -> TensorInfo | None:
        module, mark, end = name.partition("~.")
        whole = self.tensors.get(f"{module}.{end}") if mark else None
        if whole is None or end != "weight" or len(whole.shape) != 2:
            return whole
        return replace(whole, shape=whole.shape[::-1], is_turned=True)

    def check(self, name: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> TensorInfo:
        """The tensor's place. Raises ModelLoadError if shape or type differ from what is expected."""
        info = self.info(name)
        if info.shape != shape or info.dtype not in dtypes:
            expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            raise ModelLoadError(f"{info.path.name}: {name} is {str(info.dtype).removeprefix('torch.')} "
                                 f"{list(info.shape)}; expected {expected} {list(shape)}")
        return info

    def read(self, name: str) -> Tensor:
        """Raises ModelLoadError if there is no such tensor, or if some of its numbers are none."""
        tensor = read_tensor(self.info(name))
        if tensor.dtype == torch.float8_e4m3fn and bool((tensor.view(torch.uint8) & 0x7F == 0x7F).any()):
            raise self._no_number(name, "NaN")
        if tensor.dtype in _CHECKED and tensor.numel():
            lowest, highest = (float(number) for number in tensor.aminmax())  # one pass, nothing beside it
            if not math.isfinite(lowest) or not math.isfinite(highest):
                raise self._no_number(name, "NaN" if math.isnan(lowest) else "infinity")
        return tensor

    def _no_number(self, name: str, what: str) -> ModelLoadError:
        return ModelLoadError(f"{self.info(name).path.name}: tensor {name} holds {what}; expected numbers. "
                              "Download the file again, or convert the model anew.")


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, the index's files, the one other file, or a full set of shards.

    A whole model.safetensors counts before an index, as with transformers: somebody joined the shards.
    """
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if is_there(whole) and not (is_there(index) and whole.name in _indexed_names(index)):
        return [whole]
    if is_there(index):
        return _indexed_files(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    shards = [re.fullmatch(r".*-(\d{5})-of-(\d{5})\.safetensors", path.name) for path in files]
    if len(files) == 1 and not shards[0]:
        return files
    if files and all(shards):
        numbers = [int(match[1]) for match in shards if match]
        total = int(shards[0][2]) if shards[0] else 0
        if numbers == list(range(1, total + 1)):
            return files
        raise ModelLoadError(f"{folder.name} has {len(files)} of {total} shards; download the others")
    if files:
        names = ", ".join(path.name for path in files)[:200]
        raise ModelLoadError(f"{folder.name} has several .safetensors files ({names}) and no "
                             "model.safetensors.index.json; keep one model in a folder")
    others = sorted({path.suffix for path in folder.iterdir()
                     if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".onnx")})
    found = f"its weights are {', '.join(others)} files" if others else "no weights are there"
    raise ModelLoadError(f"{folder.name} has no *.safetensors file: {found}. Supported: safetensors "
                         "(pickled files can run code when they are opened, so they never are)")


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    names = _indexed_names(index)
    for name in names:
        if not is_there(folder / name):
            raise ModelLoadError(f"{folder.name} has no {name}, which {index.name} names; download it")
    return [folder / name for name in names]


def _indexed_names(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelLoadError(f"{index.name} has no weight_map; expected tensor names and their files")
    names = {name if isinstance(name, str) else "" for name in weight_map.values()}
    if len(names) > MAX_FILES:
        raise ModelLoadError(f"{index.name} names {len(names):,} files; at most {MAX_FILES:,} are possible")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors", name):
            raise ModelLoadError(f"{index.name} names the file {shown(name)}; "
                                 "expected plain *.safetensors names")
    return sorted(names)
