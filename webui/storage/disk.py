"""Writing so that a crash, a full disk or a power cut leaves the old file or the new one, never neither.

One small object with the primitives, handed down by parameter: tests put one in its place that fails
at the n-th write. Knows nothing of sessions.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

TEMPORARY = ".tmp"
PATIENT_TRIES = 10 if os.name == "nt" else 0


class Unconfirmed(OSError):
    """The change was made, but the disk did not confirm that a power cut cannot undo it."""


class Disk:
    """The primitives, each a single call of the operating system, and what is made of them."""

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        _patiently(lambda: source.replace(target))

    def unlink(self, path: Path) -> None:
        _patiently(path.unlink)

    def read(self, path: Path, most: int) -> bytes:
        """All of a file. Raises OSError; also for one of over `most` bytes, and for what is no regular file,
        such as a pipe, which would never end."""
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            if status.st_size > most:
                raise OSError(errno.EFBIG, f"it has {status.st_size >> 20:,} MiB, of at most {most >> 20}",
                              str(path))
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(most)
        finally:
            os.close(descriptor)

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
            view = view[self.write(descriptor, view):]

    def save(self, path: Path, data: bytes, *, sync: bool = True) -> None:
        """Make `path` hold `data`, durably; without `sync` a power cut may leave anything in its place.

        Raises OSError: `path` holds the old bytes; or Unconfirmed: it holds the new ones.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(temporary, flags, 0o600)
            try:
                self.write_all(descriptor, data)
                if sync:
                    self.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if not sync:
            return
        try:
            self.sync_folder(path.parent)
        except OSError as error:
            raise Unconfirmed(error.errno, error.strerror) from error

    def move(self, source: Path, target: Path, *, sync: bool = True) -> None:
        """Rename without ever overwriting. Raises FileExistsError if `target` is there.

        Raises OSError; then the file is where it was. Where it can neither be confirmed nor moved back it
        counts as moved: after a power cut it may be in its old place, and nothing is lost. So it is without
        `sync`, which takes two waits for the disk.
        """
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        self.replace(source, target)
        if not sync:
            return
        try:
            self.sync_folder(target.parent)
            if source.parent != target.parent:
                self.sync_folder(source.parent)
        except OSError:
            try:
                self.replace(target, source)
            except OSError:
                return
            raise

    def remove(self, path: Path) -> None:
        self.unlink(path)
        self.sync_folder(path.parent)

    def clear_temporaries(self, folder: Path) -> None:
        """Drop what a crash left half written; its target still holds the last whole version."""
        for path in folder.glob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                path.unlink()


def _patiently(call: Callable[[], object]) -> None:
    """On Windows a virus scanner or an indexer may have the file open for a moment."""
    for _ in range(PATIENT_TRIES):
        try:
            call()
        except PermissionError:
            time.sleep(0.02)
        else:
            return
    call()
