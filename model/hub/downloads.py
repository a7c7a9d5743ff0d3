"""The download that goes on, one at a time, in a thread of its own; anybody may look how far it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from model.catalogue.places import OWN_FOLDER, Found, found_at
from model.files import readable
from model.hub.choice import Variant, choose, variants
from model.hub.client import Hub
from model.hub.source import HubError, Source, parse_source

ASKING, FETCHING, CANCELLING = "asking", "fetching", "cancelling"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
log = logging.getLogger(__name__)


class DownloadBusy(ValueError):
    """Another one goes on."""


class _Cancelled(Exception):
    """Out of the middle of a download."""


@dataclass(frozen=True)
class DownloadState:
    """`source` is as it was asked for; `name` and `id` are the model's in the catalogue once it is done."""

    source: str
    phase: str = ASKING
    file: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    problem: str = ""
    id: str = ""
    name: str = ""


class Downloads:
    """Into folder/OWNER/NAME. Thread-safe."""

    def __init__(self, folder: Path, free_bytes: Callable[[], int], endpoint: str | None = None,
                 done: Callable[[Found], object] = lambda _found: None) -> None:
        """
        free_bytes  memory that a model could take here
        endpoint    another hub than the usual one
        done        called with each model that is complete
        """
        self._folder = folder
        self._free_bytes, self._done = free_bytes, done
        self._cancel = threading.Event()
        self._hub = Hub(endpoint, self._pause)
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self.state: DownloadState | None = None

    @property
    def is_running(self) -> bool:
        return self._worker is not None

    def look(self, text: str) -> tuple[list[Variant], Variant | None]:
        """What there is, and what would be taken; None if nothing fits. Asks the hub; raises HubError."""
        source = parse_source(text)
        found = variants(self._hub.listing(source.repo).files)
        try:
            return found, choose(found, source, self._free_bytes())
        except HubError:
            if source.wanted:
                raise
            return found, None

    def begin(self, text: str) -> None:
        """Raises HubError for what names no model, DownloadBusy while another one goes on."""
        source = parse_source(text)
        with self._lock:
            if self._worker is not None:
                source_text = self.state.source if self.state else "Another model"
                raise DownloadBusy(f"{source_text} is being downloaded.")
            self._cancel.clear()
            self.state = DownloadState(text.strip())
            self._worker = threading.Thread(target=self._run, args=(source,), name="download", daemon=True)
            try:
                self._worker.start()
            except BaseException:  # the system has no thread left
                self._worker = None
                raise

    def cancel(self) -> None:
        """What is there already is kept, so that the same download goes on from there.

        It ends when the hub next sends something or is given up; until then its phase is CANCELLING.
        """
        self._cancel.set()
        with self._lock:
            if self._worker is not None and self.state is not None:
                self.state = replace(self.state, phase=CANCELLING)

    def wait(self) -> DownloadState | None:
        """Until nothing goes on."""
        worker = self._worker
        if worker is not None:
            worker.join()
        return self.state

    def get_now(self, text: str, progress: Callable[[str, float], None]) -> Found:
        """In the calling thread: the model to load. Raises HubError."""
        source = parse_source(text)

        def tell(state: DownloadState) -> None:
            if state.file:
                progress(f"Downloading {state.file}", state.done_bytes / max(1, state.total_bytes))

        try:
            return self._get(source, DownloadState(text.strip()), tell)
        except OSError as error:
            raise HubError(f"{self._folder} cannot be written: {error.strerror or error}. Choose another "
                           "folder with --models-dir.") from error

    def _run(self, source: Source) -> None:
        """However it ends, the state says how."""
        state = self.state
        assert state is not None
        try:
            found = self._get(source, state, self._keep)
            self._done(found)
            self._end(phase=DONE, id=found.id, name=found.name)
        except _Cancelled:
            self._end(phase=CANCELLED)
        except (HubError, OSError) as error:
            written = f"It cannot be written: {getattr(error, 'strerror', None) or error}"
            self._end(phase=FAILED, problem=readable(str(error) if isinstance(error, HubError) else written))
        except BaseException:
            log.exception("a download failed")
            self._end(phase=FAILED, problem="Something broke meanwhile; Parlor's log says more.")

    def _end(self, **changes: str) -> None:
        with self._lock:
            if self.state is not None:
                self.state = replace(self.state, **changes)  # type: ignore[arg-type]
            self._worker = None

    def _keep(self, state: DownloadState) -> None:
        with self._lock:
            if self._cancel.is_set():
                raise _Cancelled
            self.state = state

    def _pause(self, seconds: float) -> None:
        if self._cancel.wait(seconds):
            raise _Cancelled

    def _get(self, source: Source, state: DownloadState, tell: Callable[[DownloadState], None]) -> Found:
        tell(state)
        listing = self._hub.listing(source.repo)
        variant = choose(variants(listing.files), source, self._free_bytes())
        folder = self._folder / source.owner / source.name
        folder.mkdir(parents=True, exist_ok=True)
        state = replace(state, phase=FETCHING, total_bytes=variant.size)
        before = 0
        for file in variant.files:
            named = replace(state, file=file.path.rpartition("/")[2])
            self._hub.fetch(source.repo, listing.commit, file, folder,
                            lambda there, named=named, before=before: tell(
                                replace(named, done_bytes=before + there)))
            before += file.size
        return found_at(folder if variant.is_folder else folder / variant.files[0].path, OWN_FOLDER)
