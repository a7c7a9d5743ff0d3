"""Packed copies (packed_copy.py) that nobody will miss: of models that are gone or have changed, what a
process that was ended left half written, and of the others those that have not been used for longest, where
all take more than their share of the disk or a new one has no room.

Whoever uses or writes a copy holds a lock on it for as long as its file is open or mapped, and one that is
held stays. On Windows such a file cannot be deleted anyway, and needs no lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.files import ModelLoadError
from model.machine import readable_size
from model.memory.packed_index import UnusableError, read_index

PARTIAL = ".partial"
"""How the name of a copy ends while it is written."""
_SHARE = 4
"""All copies together take at most one part in so many of the disk, but for the one that is wanted now."""
_MARGIN = 64 << 20
"""Bytes of disk beside the weights: for the index, and for what a file system wants itself."""
_STALLED_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A file of the model that a copy was made of."""

    path: str
    nbytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Source:
        status = path.stat()
        return cls(str(path.absolute()), status.st_size, status.st_mtime_ns)

    @property
    def is_there(self) -> bool:
        """Unchanged, or on a disk that does not answer now."""
        try:
            return Source.of(Path(self.path)) == self
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True


def remove_useless(folder: Path) -> None:
    """Delete copies whose model is gone or has changed, and parts of such that nobody writes any more."""
    for path in _files(folder):
        with contextlib.suppress(OSError), _taken(path) as file:
            if _is_left_over(path) if path.name.endswith(PARTIAL) else not _has_its_model(file):
                path.unlink()
                log.info("The packed copy %s was deleted: it is of no model that is there.", path)


def make_room(folder: Path, nbytes: int) -> None:
    """Let `nbytes` have room for one more copy: the others together leave it their share of the disk, and the
    disk has it free. Raises ModelLoadError, and deletes nothing, if it cannot."""
    disk, needed = shutil.disk_usage(folder), nbytes + _MARGIN
    others = sorted(((path.stat(), path) for path in _files(folder)), key=lambda one: one[0].st_mtime_ns)
    total = sum(status.st_size for status, _ in others)
    if disk.free + total < needed:
        raise _no_room(folder, needed, disk.free)
    excess = max(total + nbytes - disk.total // _SHARE, needed - disk.free)
    for status, path in others:
        if excess <= 0:
            break
        with contextlib.suppress(OSError), _taken(path):
            path.unlink()
            excess -= status.st_size
            log.info("The packed copy %s was deleted: another one needs its room.", path)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _no_room(folder, needed, free)


def note_use(path: Path) -> None:
    """It is used now. Told by the time of a change, since that of access is of whoever looks into it."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _no_room(folder: Path, needed: int, free: int) -> ModelLoadError:
    return ModelLoadError(f"The weights do not fit into memory, and a packed copy of them on disk needs "
                          f"{readable_size(needed)}; {readable_size(free)} are free in {folder}. Free some "
                          "there, let XDG_CACHE_HOME name a folder on another disk, or use a smaller model.")


def _files(folder: Path) -> Sequence[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else ()


def _is_left_over(path: Path) -> bool:
    """Whether nobody has written it for a while; a moment after it is opened, and before it gets its name, it
    is not held."""
    return time.time() - path.stat().st_mtime > _STALLED_SECONDS


def _has_its_model(file: BinaryIO) -> bool:
    try:
        sources = read_index(file)["sources"]
    except (UnusableError, KeyError):
        return False
    return all(Source(*source).is_there for source in sources)


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[BinaryIO]:
    """The file, while nobody else has it. Raises OSError if somebody does."""
    with path.open("rb") as file:
        _lock_alone(file)
        yield file


if os.name == "nt":
    def hold(file: BinaryIO, *, to_write: bool = False) -> None:
        """Until it is neither open nor mapped any more; together with others who do not write."""

    def let_go(file: BinaryIO) -> None:
        """Before that, of what was written."""

    def _lock_alone(file: BinaryIO) -> None:
        pass
else:
    import fcntl

    def hold(file: BinaryIO, *, to_write: bool = False) -> None:
        """Until it is neither open nor mapped any more; together with others who do not write."""
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX if to_write else fcntl.LOCK_SH)

    def let_go(file: BinaryIO) -> None:
        """Before that, of what was written."""
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)

    def _lock_alone(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
