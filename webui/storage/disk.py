"""Writing so that a crash, a full disk or a power cut leaves the old file or the new one, never neither.

One small object with the primitives, handed down by parameter: tests put one in its place that fails
at the n-th write. Knows nothing of sessions.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

TEMPORARY = ".tmp"
WINDOWS_TRIES = 10


class Disk:
    """The primitives, each a single call of the operating system, and what is made of them."""

    def write(self, descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        for _ in range(WINDOWS_TRIES if os.name == "nt" else 0):
            try:
                source.replace(target)
            except PermissionError:  # a virus scanner or an indexer has it open for a moment
                time.sleep(0.02)
            else:
                return
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """Make names in `folder` durable. Windows has no such call, and NTFS journals names itself."""
        if os.name == "nt":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            self.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_all(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.write(descriptor, bytes(view)):]

    def save(self, path: Path, data: bytes) -> None:
        """Make `path` hold `data`, durably. Raises OSError; then `path` holds the old bytes or the new."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(temporary, flags, 0o600)
            try:
                self.write_all(descriptor, data)
                self.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self.sync_folder(path.parent)

    def move(self, source: Path, target: Path) -> None:
        """Rename without ever overwriting. Raises FileExistsError if `target` is there."""
        if target.exists():
            raise FileExistsError(f"{target} is there already")
        self.replace(source, target)
        self.sync_folder(target.parent)
        if source.parent != target.parent:
            self.sync_folder(source.parent)

    def remove(self, path: Path) -> None:
        self.unlink(path)
        self.sync_folder(path.parent)

    def clear_temporaries(self, folder: Path) -> None:
        """Drop what a crash left half written; its target still holds the last whole version."""
        for path in folder.glob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                path.unlink()
