"""One folder of JSON documents: revisions, atomic saves, migration, quarantine, trash.

A file that cannot be read is never overwritten: what does not parse moves to quarantine, what a newer
version wrote opens read-only, what the disk refuses stays where it is; each is told as a problem.
Knows nothing of what the documents say, beyond their Kind's check.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import strict_json
from ..errors import Invalid, NotFound, NotSaved, Problem, ReadOnly, Stale
from ..ids import check_id, is_id, new_id
from .disk import Disk, Unconfirmed
from .file_bytes import FileBytes
from .problems import Problems
from .schema import Document, Kind, check_revision, version_of

CACHED_DOCUMENTS = 1_000


class Documents:
    """The documents of one kind. Thread-safe; a document that was handed out is never changed in place."""

    def __init__(self, folder: Path, kind: Kind, disk: Disk, quarantine: Path, trash: Path,
                 problems: Problems, *, cached: int = CACHED_DOCUMENTS,
                 record: Callable[[Document, Document], Document] | None = None) -> None:
        """`record` makes, of a good document and a good one that is to follow it, what is saved then."""
        self.folder = folder
        self.kind = kind
        self._problems = problems
        self._disk = disk
        self._quarantine = quarantine
        self._trash = trash
        self._cached = cached
        self._record = record
        self._locks: dict[str, threading.RLock] = {}
        self._cache: OrderedDict[str, Document] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._bytes = FileBytes()
        self._read_only: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        disk.clear_temporaries(folder)

    def scan(self) -> Iterator[Document]:
        """Every readable document, once, at start; problems are noted and the rest goes on."""
        for path in sorted(self.folder.glob("*.json")):
            if is_id(path.stem):
                with contextlib.suppress(Problem):
                    yield self.get(path.stem)

    def get(self, key: str) -> Document:
        """Raises NotFound if there is none, or none that can be read."""
        check_id(key, self.kind.name)
        with self._cache_lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        with self._lock(key):
            document = self._read(key)
            self._remember(key, document)
            return document

    def read(self, key: str) -> Document:
        """Like get(), without keeping it in memory."""
        check_id(key, self.kind.name)
        with self._cache_lock:
            if key in self._cache:
                return self._cache[key]
        with self._lock(key):
            return self._read(key)

    def stamp(self, key: str) -> str:
        """What changes whenever the document's file does; "" without one."""
        try:
            status = self._path(key).stat()
        except OSError:
            return ""
        return f"{status.st_mtime_ns} {status.st_ino} {status.st_size}"

    def is_read_only(self, key: str) -> bool:
        return key in self._read_only

    def exists(self, key: str) -> bool:
        """Whether there is a file under this id, readable or not."""
        return self._path(key).exists()

    def create(self, document: Document) -> Document:
        """Save a new document. Raises FileExistsError if the id is taken, readable or not."""
        key = check_id(document["id"])
        with self._lock(key):
            if self._path(key).exists():
                raise FileExistsError(f"there is a {self.kind.name} {key} already")
            return self._save(key, document, None)

    def change(self, key: str, revision: int | None, edit: Callable[[Document], Document]) -> Document:
        """Save what `edit` makes of the document, with the next revision.

        revision  the one that the change is based on; None for changes that hold on top of any
        Raises Stale with the current document, ReadOnly, NotFound, NotSaved, or Invalid from the check.
        """
        check_id(key, self.kind.name)
        with self._lock(key):
            document = self.get(key)
            if key in self._read_only:
                raise ReadOnly(f"This {self.kind.name} was written by a newer Parlor and opens read-only.",
                               hint="Update Parlor to change it.", current=document)
            if revision is not None and revision != document["revision"]:
                raise Stale(f"This {self.kind.name} was changed elsewhere in the meantime.",
                            hint="Look at what is there now, then try again.", current=document)
            changed = edit(document)
            if changed is document:
                return document
            return self._save(key, {**changed, "id": key, "revision": document["revision"] + 1}, document)

    def delete(self, key: str) -> str:
        """Move the file to the trash. Returns the token that brings it back."""
        check_id(key, self.kind.name)
        with self._lock(key):
            if not self._path(key).exists():
                raise NotFound(f"There is no such {self.kind.name}.")
            token = new_id()
            with self._saving(key):
                self._trash.mkdir(parents=True, exist_ok=True)
                os.utime(self._path(key), (time.time(),) * 2)  # the trash counts its days from now
                self._disk.move(self._path(key), self._in_trash(token, key))
            self._forget(key)
            return token

    def erase(self, key: str) -> None:
        """Delete the file for good: it holds what nobody should find in a trash. Raises NotSaved."""
        with self._lock(check_id(key, self.kind.name)), self._saving(key):
            self._disk.remove(self._path(key))
            self._forget(key)

    def restore(self, token: str) -> Document:
        """Bring a deleted document back under its id. Raises NotFound if the token names none."""
        path, key = self._deleted(token)
        with self._lock(key):
            with self._saving(key):
                self._disk.move(path, self._path(key))
            return self.get(key)

    def erase_deleted(self, token: str) -> None:
        """Take a deleted document out of the trash, for good. Raises as restore(), and NotSaved."""
        path, key = self._deleted(token)
        with self._lock(key), self._saving(key):
            self._disk.remove(path)

    def _deleted(self, token: str) -> tuple[Path, str]:
        """Where a deleted document lies, and its id."""
        check_id(token, f"deleted {self.kind.name}")
        for path in self._trash.glob(f"{self.kind.name}-{token}-*.json"):
            return path, check_id(path.stem.rpartition("-")[2])
        raise NotFound(f"This {self.kind.name} is no longer in the trash.")

    def _lock(self, key: str) -> threading.RLock:
        return self._locks.setdefault(key, threading.RLock())

    def _read(self, key: str) -> Document:
        path = self._path(key)
        try:
            data = self._disk.read(path, self.kind.max_bytes)
        except FileNotFoundError:
            raise NotFound(f"There is no such {self.kind.name}.") from None
        except OSError as error:
            self._note(path, f"could not be read: {error.strerror}. It was left as it is.", passing=True)
            raise NotFound(f"This {self.kind.name} could not be read.") from None
        try:
            document = strict_json.loads(data)
            if not isinstance(document, dict) or document.get("id") != key:
                raise ValueError("the id inside is not the file's name")
            check_revision(document)
            if version_of(document) > self.kind.version:
                return self._open_newer(key, document)
            document = self.kind.read(document)
        except NotFound:
            raise
        except Exception as error:  # whatever a check stumbles over
            self._put_in_quarantine(path, error)
            raise NotFound(f"This {self.kind.name} is damaged.") from None
        self._problems.over(self._file(path))
        return document

    def _open_newer(self, key: str, document: Document) -> Document:
        version = document["schema_version"]
        with contextlib.suppress(ValueError):
            self.kind.check(document)
            self._read_only.add(key)
            return document
        self._note(self._path(key), f"is of version {version}; this Parlor reads up to {self.kind.version}. "
                                    "It was left as it is.", passing=True)
        raise NotFound(f"This {self.kind.name} was written by a newer Parlor.")

    def _put_in_quarantine(self, path: Path, error: Exception) -> None:
        target = self._quarantine / f"{self.kind.name}-{path.stem}-{new_id()}.json"
        try:
            self._quarantine.mkdir(parents=True, exist_ok=True)
            self._disk.move(path, target, sync=False)  # after a power cut it is found damaged again
        except OSError:
            self._note(path, f"is damaged ({error}) and was left as it is.", passing=True)
        else:
            self._note(path, f"is damaged ({error}) and was moved to {target.parent.name}/{target.name}.")

    def _save(self, key: str, document: Document, before: Document | None) -> Document:
        try:
            if before is not None and self.kind.check_change:
                self.kind.check_change(document, before)
            else:
                self.kind.check(document)
        except ValueError as error:
            raise Invalid(f"This {self.kind.name} cannot be saved: {error}.") from None
        if before is not None and self._record:
            document = self._record(before, document)
        data = self._bytes.encode(key, document)
        if len(data) > self.kind.max_bytes:
            raise Invalid(f"This {self.kind.name} would have {len(data) >> 20:,} MiB; at most "
                          f"{self.kind.max_bytes >> 20} are possible.")
        with self._saving(key):
            try:
                self._disk.save(self._path(key), data)
            except Unconfirmed as error:
                if not self._take_back(key, before):
                    self._forget(key)
                    raise NotSaved(f"The {self.kind.name} was changed, but the disk did not confirm it "
                                   f"({error.strerror}): a power cut could undo the change.",
                                   hint="Look at what is there before you try again.",
                                   current=document) from error
                raise
        self._remember(key, document)
        return document

    def _take_back(self, key: str, before: Document | None) -> bool:
        """What is answered with "not saved" must not be there afterwards. Whether that could be done."""
        try:
            if before is None:
                self._disk.unlink(self._path(key))
            else:
                self._disk.save(self._path(key), self._bytes.encode(key, before))
        except Unconfirmed:
            pass  # the old bytes are there, which nobody has to confirm
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _saving(self, key: str) -> Iterator[None]:
        """A write that failed may or may not have reached the file: from now on believe the disk."""
        try:
            yield
        except OSError as error:
            self._forget(key)
            raise NotSaved(f"The {self.kind.name} could not be saved: {error.strerror or error}.",
                           hint="Make room on the disk or mend its permissions, then try again.") from error

    def _remember(self, key: str, document: Document) -> None:
        with self._cache_lock:
            self._cache[key] = document
            self._cache.move_to_end(key)
            while len(self._cache) > self._cached:
                self._cache.popitem(last=False)

    def _forget(self, key: str) -> None:
        with self._cache_lock:
            self._cache.pop(key, None)
        self._bytes.forget(key)

    def _path(self, key: str) -> Path:
        return self.folder / f"{check_id(key)}.json"

    def _in_trash(self, token: str, key: str) -> Path:
        return self._trash / f"{self.kind.name}-{token}-{key}.json"

    def _note(self, path: Path, message: str, *, passing: bool = False) -> None:
        self._problems.note(self._file(path), message, passing=passing)

    def _file(self, path: Path) -> str:
        return f"{self.folder.name}/{path.name}"
