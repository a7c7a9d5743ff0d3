"""A lock file: one process at a time builds.

The operating system lets go of the lock when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from model.kernels.errors import KernelBuildError, Progress


@contextlib.contextmanager
def locked(path: Path, timeout_s: float, progress: Progress) -> Iterator[None]:
    """Hold the lock file. KernelBuildError if another process has held it for `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    is_waiting = False
    with path.open("a+b") as file:
        while not _try_lock(file.fileno()):
            if not is_waiting:
                progress("Waiting for another process that is compiling the kernels", 0.0)
            is_waiting = True
            if time.monotonic() >= deadline:
                raise KernelBuildError(
                    f"Another process has been building the kernels for over {timeout_s:.0f} s "
                    f"(lock file {path}); end it or wait for it, then start again.")
            time.sleep(0.05)
        try:
            yield
        finally:
            _unlock(file.fileno())


if os.name == "nt":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
