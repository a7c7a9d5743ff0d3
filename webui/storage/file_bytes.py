"""Documents as the bytes of their files, without encoding again what was encoded before.

A session grows by a message at a time, and its file is written whole: of 20 MB, 2 kB are new. The bytes of
each message are kept beside it, which is right because what is in a document is never changed in place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from .. import strict_json
from .schema import Document

KEPT = 4  # documents, the ones written last; each takes as much memory again as its file


class FileBytes:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, dict[int, tuple[Any, bytes]]] = OrderedDict()

    def encode(self, key: str, document: Document) -> bytes:
        """The same as strict_json.pretty(document). Raises ValueError as that does."""
        with self._lock:
            known = self._known.get(key, {})
        entries: dict[int, tuple[Any, bytes]] = {}  # by id(), of objects that live as long as they are here

        def encoded(entry: Any) -> bytes:
            found = entries[id(entry)] = known.get(id(entry)) or (entry, strict_json.dumps(entry))
            return found[1]

        data = strict_json.pretty(document, encoded)
        if entries:
            with self._lock:
                self._known[key] = entries
                self._known.move_to_end(key)
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
        return data

    def forget(self, key: str) -> None:
        with self._lock:
            self._known.pop(key, None)
