"""Reading the files of a model's folder, which are strangers'.

Each must be a regular file (or a link to one) of a size that fits its purpose; both are looked at before a
byte is read, so that a link to /dev/zero, a pipe or a file of gigabytes is an error at once.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON_BYTES = 8 << 20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class ModelLoadError(ValueError):
    """A model cannot be loaded; the message says what is, what was expected and what to do."""


def readable(text: str) -> str:
    """A file's name, or what is said of one, as text that can be sent: Linux's names may hold any bytes."""
    return text.encode(errors="replace").decode()


def is_there(path: Path) -> bool:
    """Whether there is anything under that name, if only a link that leads nowhere: reading it says what."""
    return os.path.lexists(path)


def open_file(path: Path) -> tuple[BinaryIO, int]:
    """An open regular file and its size. Raises ModelLoadError for anything else, Git LFS pointers too."""
    try:
        # without waiting: opening a pipe would
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise ModelLoadError(f"{path} is a link to {path.readlink()}, which is not there. Download the "
                                 "model again, or copy it with what its links lead to.") from None
        raise ModelLoadError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ModelLoadError(f"{path.name} is {_kind(status.st_mode)}; expected a regular file")
    file = os.fdopen(descriptor, "rb")
    if status.st_size < 1024 and file.peek(len(_LFS_POINTER)).startswith(_LFS_POINTER):
        file.close()
        raise ModelLoadError(f"{path.name} is a Git LFS pointer, not the file that it stands for. Get that "
                             "with: git lfs pull")
    return file, status.st_size


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device",
             stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "no file")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """All of a file. Raises ModelLoadError."""
    file, size = open_file(path)
    with file:
        if size > max_bytes:
            raise ModelLoadError(f"{path.name} has {size:,} bytes; at most {max_bytes:,} are read")
        try:
            return file.read(max_bytes)
        except OSError as error:
            raise ModelLoadError(f"{path.name} cannot be read: {error.strerror}") from error


def read_text(path: Path, max_bytes: int) -> str:
    """A file of UTF-8, with or without a byte order mark. Raises ModelLoadError."""
    try:
        return read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelLoadError(f"{path.name} is no UTF-8 (byte {error.start:,}). Save it as UTF-8.") from None


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON object. Raises ModelLoadError."""
    if not is_there(path):
        raise ModelLoadError(f"{path.parent} has no {path.name}; expected a folder as Hugging Face's "
                             "save_pretrained writes it")
    data = read_bytes(path, max_bytes)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path.name} is no valid JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise ModelLoadError(f"{path.name} holds a {type(found).__name__}; expected an object")
    return found
