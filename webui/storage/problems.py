"""What could not be read, or not be saved yet, for the page to tell: a file's name and a sentence.

Knows nothing of why.
"""

from __future__ import annotations

import threading


class Problems:
    """Thread-safe. A problem stays until it is over(); what was moved to quarantine stays told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str], bool] = {}

    def note(self, file: str, message: str, *, passing: bool = False) -> None:
        """`passing`: it may be over one day, because the file is still where it belongs."""
        with self._lock:
            self._noted[file, message] = passing

    def over(self, file: str) -> None:
        """The passing problems of `file` are over."""
        with self._lock:
            for entry in [entry for entry, passing in self._noted.items() if passing and entry[0] == file]:
                del self._noted[entry]

    def as_json(self) -> list[dict[str, str]]:
        with self._lock:
            return [{"file": file, "message": message} for file, message in self._noted]
