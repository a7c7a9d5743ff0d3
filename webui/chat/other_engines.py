"""Other engines that somebody has named, at the start or in the page: kept on disk, shown without their keys.

Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from model import BadAddress, EngineAddress, Engines, EngineState

from ..errors import BadRequest, NotFound
from ..storage.schema import ENGINE, Document
from ..storage.store import Store

log = logging.getLogger("parlor.engines")


class OtherEngines:
    """Brings those that are kept on disk back; nobody is asked anything for that."""

    def __init__(self, engines: Engines, store: Store) -> None:
        self._engines, self._store = engines, store
        self._lock = threading.Lock()
        for kept in store.engines.scan():
            try:
                engines.add(_address(kept))
            except BadAddress as error:  # it was named at the start, too, or edited by hand
                log.warning("an engine that is kept is not used: %s", error)

    @property
    def is_looking(self) -> bool:
        return self._engines.is_looking

    def known(self) -> list[Document]:
        """Each as the page gets it: never with its key or what its headers say."""
        return [_shown(state) for state in self._engines.known()]

    def listed(self, anew: bool) -> list[Document]:
        """The same; their lists of models are read beside, `anew` even if that has just been done."""
        return [_shown(state) for state in self._engines.listed(anew)]

    def models(self) -> list[Document]:
        """Their models, in the shape of those of this machine."""
        return [{"id": offer.id, "name": offer.name, "place": offer.engine, "where": offer.url,
                 "host": offer.host, "engine": {"id": offer.engine_id, "model": offer.model},
                 "size_bytes": 0, "is_read": True, "problem": "", "fits": True, "advice": ""}
                for state in self._engines.known() for offer in self._engines.offers(state)]

    def add(self, url: str, name: str, key: str, headers: dict[str, str]) -> Document:
        """One more, or another key, name or headers for one. Raises BadRequest, NotSaved."""
        try:
            address = EngineAddress(url, name, key, headers)
        except BadAddress as error:
            raise BadRequest(str(error)) from None
        fields = {"url": address.url, "name": address.name, "key": address.key,
                  "headers": dict(address.headers)}
        with self._lock:
            before = next((state for state in self._engines.known() if state.address.id == address.id), None)
            try:
                self._engines.add(address)
            except BadAddress as error:
                raise BadRequest(str(error)) from None
            try:
                self._keep(address.id, fields)
            except BaseException:
                self._put_back(address.id, before)
                raise
        return next(shown for shown in self.known() if shown["id"] == address.id)

    def remove(self, engine_id: str) -> None:
        """With its key. Raises NotFound, BadRequest, NotSaved."""
        with self._lock:
            state = next((one for one in self._engines.known() if one.address.id == engine_id), None)
            if state is None:
                raise NotFound("This engine is not known here any more.")
            if state.is_fixed:
                raise BadRequest("This engine was named when Parlor was started.", hint="Leave it out there.")
            if self._store.engines.exists(engine_id):
                self._store.engines.erase(engine_id)
            self._engines.remove(engine_id)

    def _keep(self, engine_id: str, fields: dict[str, Any]) -> None:
        if self._store.engines.exists(engine_id):
            self._store.engines.change(engine_id, None, lambda old: {**old, **fields})
        else:
            self._store.engines.create({"schema_version": ENGINE.version, "id": engine_id, "revision": 1,
                                        **fields})

    def _put_back(self, engine_id: str, before: EngineState | None) -> None:
        self._engines.remove(engine_id)
        if before is not None:
            self._engines.add(before.address)


def _address(kept: Document) -> EngineAddress:
    return EngineAddress(kept["url"], kept["name"], kept["key"], kept["headers"])


def _shown(state: EngineState) -> Document:
    address = state.address
    return {"id": address.id, "name": address.name, "url": address.url, "host": address.host,
            "has_key": bool(address.key), "headers": list(address.headers), "is_fixed": state.is_fixed,
            "is_read": state.is_read, "num_models": len(state.models), "problem": state.problem}
