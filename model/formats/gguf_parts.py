"""Which files are one GGUF model. Light to import: nothing is opened."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import TypeVar

from model.files import ModelLoadError

MAX_FILES = 1024
AnyPath = TypeVar("AnyPath", bound=PurePath)
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
"""What Ollama calls the files that it downloads; those of models are GGUF."""


def is_gguf(path: PurePath) -> bool:
    """Whether a file of this name is taken for GGUF."""
    return path.suffix == ".gguf" or _BLOB.fullmatch(path.name) is not None


def stem(path: PurePath) -> str:
    """A model's name by its file: without the suffix, and without the number of a part."""
    match = _PART.fullmatch(path.name)
    return match[1] if match else path.name.removesuffix(".gguf")


def first_part(path: AnyPath) -> AnyPath:
    """Of a split model; of any other one the file itself. It need not be there."""
    match = _PART.fullmatch(path.name)
    return path.with_name(f"{match[1]}-00001-of-{match[3]}.gguf") if match else path


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that `path` is or holds; None if it is something else.

    Raises ModelLoadError if it is a folder with several models, naming them.
    """
    if path.is_file():
        return path if is_gguf(path) else None
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = [file for file in sorted(path.glob("*.gguf")) if not file.name.startswith("mmproj")]
    models = [file for file in files if (match := _PART.fullmatch(file.name)) is None or int(match[2]) == 1]
    if len(models) > 1:
        raise ModelLoadError(f"{path} has {len(models)} models; give one of them with its name: "
                             f"{', '.join(file.name for file in models)[:400]}")
    return models[0] if models else None


def parts_of(path: Path) -> list[Path]:
    """All files of the model that `path` belongs to, in order."""
    match = _PART.fullmatch(path.name)
    if not match:
        return [path]
    stem, count = match[1], int(match[3])
    if not 1 <= count <= MAX_FILES or not 1 <= int(match[2]) <= count:
        raise ModelLoadError(f"{path.name}: part {int(match[2])} of {count}; at most {MAX_FILES:,} parts are "
                             "possible")
    parts = [path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelLoadError(f"{path.parent} has {count - len(missing)} of the model's {count} files; "
                             f"download {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}")
    return parts
