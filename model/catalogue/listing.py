"""The catalogue: all models of some places, read in a thread of its own and remembered until a file changes.

Whoever asks gets what is known at once. Light to import: torch comes with the first reading.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.catalogue.adapters import FoundAdapter, adapters_in
from model.catalogue.places import Found, Place, models_in
from model.config import EngineConfig
from model.files import ModelLoadError, is_there, readable
from model.formats.gguf_parts import is_gguf, parts_of

if TYPE_CHECKING:
    from model.catalogue.headers import Headers, Machine
    from model.memory.plan import MemoryPlan

REST_SECONDS = 2.0  # after a look through the places, before the next
_KEPT_FILES = (".json", ".safetensors", ".gguf")
log = logging.getLogger(__name__)

Stamp = tuple[tuple[str, int, int], ...]
"""(name, size, time of change) of each file of a model."""


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue. `headers` is None until they are read, and where `problem` says why not."""

    found: Found
    size_bytes: int = 0
    headers: Headers | None = None
    problem: str = ""

    @property
    def is_read(self) -> bool:
        return self.headers is not None or self.problem != ""

    def plan(self, engine: EngineConfig, free_bytes: int) -> MemoryPlan:
        """What it would take. Raises ModelLoadError: it cannot be loaded, or does not fit, and what would."""
        if self.headers is None:
            raise ModelLoadError(self.problem or f"{self.found.name} is not read yet")
        return self.headers.plan(engine, free_bytes)


class Catalogue:
    """Thread-safe. `extra` models are listed before those of the places, wherever they lie."""

    def __init__(self, places: Sequence[Place], engine: EngineConfig, extra: Sequence[Found] = ()) -> None:
        self._places, self._extra = list(places), list(extra)
        self._engine = engine
        self._entries: dict[str, Entry] = {}
        self._read: dict[Path, tuple[Stamp, Entry]] = {}
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._looked = -REST_SECONDS
        self._machine: Machine | None = None
        self._machine_lock = threading.Lock()
        self.version = 0
        """Counts up with every change of what entries() answers."""

    @property
    def is_looking(self) -> bool:
        """Whether entries may still be missing or unread."""
        return not self._idle.is_set()

    def entries(self) -> list[Entry]:
        """What is known; a new look begins beside, unless one has just ended."""
        self.begin_look()
        with self._lock:
            return list(self._entries.values())

    def entry(self, model_id: str) -> Entry | None:
        """None for an id that no model has any more, or has yet."""
        with self._lock:
            return self._entries.get(model_id)

    def add(self, found: Found) -> Entry:
        """List a model that somebody gave by its path, and read it now. Whoever calls waits."""
        with self._lock:
            known = next((entry for entry in self._entries.values() if entry.found.path == found.path), None)
            if known is None and all(one.path != found.path for one in self._extra):
                self._extra.insert(0, found)
        entry = self._entry_of(known.found if known else found)
        self._keep(entry)
        return entry

    def read(self, model_id: str) -> Entry | None:
        """As entry(), with its headers as its files are now. Whoever calls waits."""
        entry = self.entry(model_id)
        if entry is not None:
            entry = self._entry_of(entry.found)
            self._keep(entry)
        return entry

    def look(self) -> list[Entry]:
        """Look through everything now, and wait for it."""
        self._looked = -REST_SECONDS
        self.begin_look()
        self._idle.wait()
        return self.entries()

    def adapters(self) -> list[FoundAdapter]:
        """LoRA adapters, as they lie there now."""
        return adapters_in(self._places)

    def free_bytes(self) -> int:
        """Memory for models that nothing uses now."""
        return self._known_machine().free_bytes()

    # -- the thread that looks

    def begin_look(self) -> None:
        """Look at the places beside, unless that has just been done."""
        with self._lock:
            if not self._idle.is_set() or time.monotonic() - self._looked < REST_SECONDS:
                return
            self._idle.clear()
        try:
            threading.Thread(target=self._run, name="catalogue", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            self._idle.set()
            raise

    def _run(self) -> None:
        try:
            found = {one.id: one for one in self._extra if is_there(one.path)}
            paths = {one.path for one in found.values()}
            for place in self._places:
                found |= {one.id: one for one in models_in(place) if one.path not in paths}
            with self._lock:
                found |= {one.id: one for one in self._extra if is_there(one.path)}  # one that came meanwhile
                known = {key: self._entries.get(key) or Entry(one) for key, one in found.items()}
                if known.keys() != self._entries.keys():
                    self.version += 1
                self._entries = known
            for one in found.values():
                self._keep(self._entry_of(one))
            self._read = {path: kept for path, kept in list(self._read.items())
                          if any(one.path == path for one in found.values())}
        except BaseException:
            log.exception("the catalogue of models could not be read")
        finally:
            self._looked = time.monotonic()
            self._idle.set()

    def _keep(self, entry: Entry) -> None:
        with self._lock:
            if self._entries.get(entry.found.id) != entry:
                self._entries[entry.found.id] = entry
                self.version += 1

    def _entry_of(self, found: Found) -> Entry:
        """Its headers, read again only if a file of it has changed."""
        if found.problem:
            return Entry(found, problem=found.problem)
        files = _files_of(found.path)
        stamp = _stamp(files)
        kept = self._read.get(found.path)
        if kept is not None and kept[0] == stamp and kept[1].found == found:
            return kept[1]
        size = sum(size for name, size, _ in stamp if not name.endswith(".json"))
        try:
            entry = Entry(found, size, self._known_machine().headers(found.path))
        except ModelLoadError as error:
            entry = Entry(found, size, problem=readable(str(error)))
        except Exception as error:  # one odd file must not hide the others
            log.exception("%s could not be read", found.path)
            entry = Entry(found, size, problem=f"{found.name} cannot be read: {type(error).__name__}")
        self._read[found.path] = (stamp, entry)
        return entry

    def _known_machine(self) -> Machine:
        with self._machine_lock:
            if self._machine is None:
                from model.catalogue.headers import Machine
                self._machine = Machine(self._engine)
            return self._machine


def _files_of(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.suffix in _KEPT_FILES)
        return parts_of(path) if is_gguf(path) else [path]
    except (OSError, ModelLoadError):  # a missing part is told when it is read
        return [path]


def _stamp(files: list[Path]) -> Stamp:
    stamps = []
    for file in files:
        try:
            status = file.stat()
            stamps.append((file.name, status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((file.name, 0, 0))
    return tuple(stamps)


