"""One server a sessions folder: a lock that lives exactly as long as the process.

The operating system drops it however the process ends, so a stale lock cannot exist. The file's text only
tells people who holds it. Knows nothing of what the folder holds.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from .disk import Disk

if os.name == "nt":
    import msvcrt
else:
    import fcntl

_LOCK_BYTE = 1 << 20  # Windows locks bytes, and locked ones cannot be read: lock one far behind the text


class FolderInUse(Exception):
    """Another process holds the folder; the message says which."""


class FolderLock:
    """Held from construction to close()."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._lock()
        except OSError:
            os.close(self._descriptor)
            raise FolderInUse(f"{folder} is in use by another Parlor: {self._holder()}. "
                              "Stop that one, or give this one another folder with --sessions-dir.") from None
        self.describe("starting")

    def describe(self, address: str) -> None:
        """Write down who holds the folder, for the sentence of a second start, if the disk lets us."""
        text = f"process {os.getpid()}, {address}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        with contextlib.suppress(OSError):
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, text.encode())

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)  # also unlocks
            self._descriptor = -1

    def _lock(self) -> None:
        if os.name == "nt":
            os.lseek(self._descriptor, _LOCK_BYTE, os.SEEK_SET)
            msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _holder(self) -> str:
        try:
            text = Disk().read(self.path, 1 << 20).decode("utf-8", "replace")[:200]
        except OSError:
            text = ""
        return text or "it says nothing of itself"
