"""Split a model's safetensors, or join them: python -m model.shard SOURCE TARGET --size 5GB

Tensors are copied byte by byte, a few megabytes at a time; what else lies in the folder (config, tokenizer,
licence) comes along. The target appears whole or not at all, and nothing is ever written over.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.files import ModelLoadError, is_there, open_file, read_json
from model.formats.safetensors_reader import TensorFolder, TensorInfo, read_metadata
from model.formats.safetensors_writer import INDEX, write_folder
from model.machine import readable_size
from model.options import path_option

OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".onnx", ".msgpack", ".h5")
_UNITS = {"": 1, "B": 1, "KB": 10 ** 3, "MB": 10 ** 6, "GB": 10 ** 9, "KIB": 1 << 10, "MIB": 1 << 20,
          "GIB": 1 << 30}


def reshard(source: Path, target: Path, max_bytes: int | None,
            progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """Write the model of one folder as another one, in files of at most `max_bytes`; None: in one file.

    progress  hears the bytes that are written and those there are

    returns  the files of weights. Raises ModelLoadError if the source is no model or changes meanwhile,
    FileExistsError if the target holds something, OSError if it cannot be written.
    """
    tensors = _in_order(TensorFolder(source).tensors)
    metadata = _metadata(tensors)
    total, done = sum(info.nbytes for info in tensors.values()), 0
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already; choose another folder")
    partial = target.with_name(target.name + ".partial")
    if is_there(partial):
        raise FileExistsError(f"{partial} is there, from a run that broke off or goes on; delete it first")
    partial.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(partial.parent).free
    if free < total:
        raise OSError(f"{partial.parent} has {readable_size(free)} free; the model needs "
                      f"{readable_size(total)}. Make room, or choose another disk.")

    def copied(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    partial.mkdir()
    try:
        written = write_folder(partial, tensors, max_bytes, metadata=metadata, index=_index(source),
                               copied=copied)
        _copy_others(source, partial)
        if target.exists():
            target.rmdir()
        partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return [target / path.name for path in written]


def _in_order(tensors: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """File by file, as they lie there, so that layers stay together."""
    return dict(sorted(tensors.items(), key=lambda item: (item[1].path.name, item[1].offset)))


def _metadata(tensors: dict[str, TensorInfo]) -> dict[str, str]:
    """What all files say of themselves. Raises ModelLoadError if they disagree."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(info.path for info in tensors.values()):
        for key, value in read_metadata(path).items():
            if found.setdefault(key, value) != value:
                raise ModelLoadError(f"{path.name} has {key} {value!r} in its metadata, a file before it "
                                     f"{found[key]!r}; expected files of one model")
    return found


def _index(source: Path) -> dict[str, Any]:
    """What the index says besides which tensor is where."""
    if not is_there(source / INDEX):
        return {}
    said = read_json(source / INDEX).get("metadata")
    return said if isinstance(said, dict) else {}


def _copy_others(source: Path, target: Path) -> None:
    """Every other file, but weights in other formats, folders and what is hidden."""
    for path in sorted(source.iterdir()):
        if path.suffix.lower() in OTHER_WEIGHTS or path.name == INDEX or path.name.startswith("."):
            continue
        if not path.is_dir():
            file, _ = open_file(path)
            with file, (target / path.name).open("xb") as out:
                shutil.copyfileobj(file, out)


def size_option(text: str) -> int:
    """"5GB", "500MB", "4GiB" or a number of bytes; 0: no limit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if match is None or match[2].upper() not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected one like 5GB, 500MB or 4GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m model.shard", description=__doc__)
    parser.add_argument("source", type=path_option, help="folder with safetensors files")
    parser.add_argument("target", type=path_option, help="folder to write, which is not there yet")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--size", type=size_option, help="largest file, such as 5GB; 0 is one file for all")
    kind.add_argument("--join", dest="size", action="store_const", const=0, help="one file for all")
    arguments = parser.parse_args(argv)

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done / 1e9:.2f} of {total / 1e9:.2f} GB", end="", file=sys.stderr, flush=True)

    try:
        files = reshard(arguments.source, arguments.target, arguments.size or None, show)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if sys.stderr.isatty():
        print(file=sys.stderr)
    sizes = sum(path.stat().st_size for path in files)
    print(f"{arguments.target}: {readable_size(sizes)} in {len(files)} file{'s' * (len(files) > 1)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
