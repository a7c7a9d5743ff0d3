"""Disks that fail or lose power at a chosen moment, for the tests of everything that is saved."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from webui.storage.disk import TEMPORARY, Disk


class FastDisk(Disk):
    """Without waiting for the platter: what most tests look at is not what a power cut leaves."""

    def fsync(self, descriptor):
        pass

    def fdatasync(self, descriptor):
        pass


class FailingDisk(Disk):
    """Counts the operations; number `fails_at` raises `error`, with `stays_broken` all after it too."""

    def __init__(self, fails_at: int | None = None, *, stays_broken: bool = False,
                 error: int = errno.ENOSPC):
        self.operations: list[str] = []
        self.fails_at = fails_at
        self.stays_broken = stays_broken
        self.error = error
        self.fails_always = ""  # the name of an operation

    def _step(self, name: str) -> None:
        number = len(self.operations)
        self.operations.append(name)
        broken = self.stays_broken and self.fails_at is not None and number > self.fails_at
        if number == self.fails_at or broken or name == self.fails_always:
            raise OSError(self.error, os.strerror(self.error))

    def write(self, descriptor, data):
        self._step("write")
        return super().write(descriptor, data)

    def fsync(self, descriptor):
        self._step("fsync")

    def fdatasync(self, descriptor):
        self._step("fdatasync")

    def replace(self, source, target):
        self._step("replace")
        super().replace(source, target)

    def unlink(self, path):
        self._step("unlink")
        super().unlink(path)


class PowerCutDisk(Disk):
    """Remembers what a power cut after each operation may leave, as on a journaling file system:
    names change in order, up to any point since the last sync of the folder; data that was not synced may be
    whole, cut, or missing.
    """

    def __init__(self) -> None:
        self._files: dict[int, int] = {}  # inode -> our own number, for inodes are used again
        self._data: dict[int, bytes] = {}  # number -> all that was written
        self._synced: dict[int, int] = {}  # number -> bytes that are safe
        self._name_operations: list[tuple[str, Path, int | None]] = []
        self._safe_names = 0
        self.moments: list[tuple[dict[int, bytes], dict[int, int], list, int]] = []

    def write(self, descriptor, data):
        half = max(1, len(data) // 2)  # short writes are legal
        written = super().write(descriptor, data[:half])
        status = os.fstat(descriptor)
        if status.st_size == written:
            self._files[status.st_ino] = len(self._data)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.suffix != TEMPORARY:
                self._name_operations.append(("set", path, len(self._data)))
        number = self._files[status.st_ino]
        self._data[number] = self._data.get(number, b"") + data[:written]
        self._note()
        return written

    def fsync(self, descriptor):
        number = self._files.get(os.fstat(descriptor).st_ino)
        if number is not None:
            self._synced[number] = len(self._data[number])
        self._note()

    fdatasync = fsync

    def replace(self, source, target):
        number = self._files[source.stat().st_ino]
        super().replace(source, target)
        self._name_operations.append(("set", target, number))
        self._name_operations.append(("drop", source, None))
        self._note()

    def unlink(self, path):
        super().unlink(path)
        self._name_operations.append(("drop", path, None))
        self._note()

    def sync_folder(self, folder):
        super().sync_folder(folder)
        self._safe_names = len(self._name_operations)
        self._note()

    def _note(self) -> None:
        names = list(self._name_operations)
        self.moments.append((dict(self._data), dict(self._synced), names, self._safe_names))

    def after_cut(self, moment: int, before: Path, target: Path, *, names: str, data: str) -> None:
        """Build in `target` what is left of a folder that was `before`, after a cut at `moment`.

        names  "least" of the unsynced renames happened, or "most"
        data   unsynced bytes are "whole", "cut" in the middle, or "gone"
        """
        contents, synced, operations, safe = self.moments[moment]
        shutil.copytree(before, target)
        for kind, path, number in operations[: safe if names == "least" else len(operations)]:
            place = target / path.relative_to(path.parents[1])
            if kind == "drop":
                place.unlink(missing_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            whole, sure = contents[number], synced.get(number, 0)
            keep = {"whole": len(whole), "cut": (len(whole) + sure) // 2, "gone": sure}[data]
            place.write_bytes(whole[:keep])
