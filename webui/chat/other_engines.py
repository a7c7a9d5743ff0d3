"""Other engines that somebody has named, at the start or in the page: kept on disk, shown without their keys.

Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from model import BadAddress, EngineAddress, Engines, EngineState

from ..errors import BadRequest, NotFound, Problem
from ..storage.schema import ENGINE, Bot, Document
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

    def begin_look(self, anew: bool) -> bool:
        """Read their lists of models beside, `anew` even if that has just been done; whether that goes on."""
        self._engines.begin_look(anew)
        return self._engines.is_looking

    def known(self) -> list[Document]:
        """Each as the page gets it: never with its key or what its headers say."""
        return [_shown(state) for state in self._engines.known()]

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
        with self._lock:
            before = next((state for state in self._engines.known() if state.address.id == address.id), None)
            try:
                self._engines.add(address)
            except BadAddress as error:
                raise BadRequest(str(error)) from None
            try:
                self._keep(address)
            except BaseException:
                self._put_back(address.id, before)
                raise
        return self._named(address.id)

    def change(self, engine_id: str, changes: Mapping[str, Any]) -> Document:
        """Another `url`, `name`, `key` or `headers`; what is not among `changes` stays, and so does the value
        of a header that is None there. Bots that speak by it do so at its new address. Raises NotFound,
        BadRequest, NotSaved."""
        with self._lock:
            before = self._own(engine_id).address
            try:
                address = _changed(before, changes)
                self._engines.change(engine_id, address)
            except BadAddress as error:
                raise BadRequest(str(error)) from None
            try:
                self._keep(address)
            except BaseException:
                self._engines.change(address.id, before)
                raise
            if address.id != engine_id:
                self._move_bots(engine_id, address.id)
                if self._store.engines.exists(engine_id):
                    self._store.engines.erase(engine_id)
        return self._named(address.id)

    def remove(self, engine_id: str) -> None:
        """With its key. Raises NotFound, BadRequest, NotSaved."""
        with self._lock:
            self._own(engine_id)
            if self._store.engines.exists(engine_id):
                self._store.engines.erase(engine_id)
            self._engines.remove(engine_id)

    def _named(self, engine_id: str) -> Document:
        return next(shown for shown in self.known() if shown["id"] == engine_id)

    def _own(self, engine_id: str) -> EngineState:
        """One that was not named at the start. Raises NotFound, BadRequest."""
        state = next((one for one in self._engines.known() if one.address.id == engine_id), None)
        if state is None:
            raise NotFound("This engine is not known here any more.")
        if state.is_fixed:
            raise BadRequest("This engine was named when Parlor was started.",
                             hint="Change it or leave it out there.")
        return state

    def _move_bots(self, before: str, after: str) -> None:
        """Each of its own: one that cannot be saved says with its next message that its engine is gone."""
        def moved(bot: Bot) -> Bot:
            engine = bot.get("engine") or {}
            return {**bot, "engine": {**engine, "id": after}} if engine.get("id") == before else bot

        for bot in self._store.known_bots():
            try:
                self._store.bots.change(bot["id"], None, moved)
            except Problem as error:
                log.warning("the bot %s stays with its engine's old address: %s", bot["id"], error)
        self._store.changes.touch_bots()

    def _keep(self, address: EngineAddress) -> None:
        engine_id = address.id
        fields = {"url": address.url, "name": address.name, "key": address.key,
                  "headers": dict(address.headers)}
        if self._store.engines.exists(engine_id):
            self._store.engines.change(engine_id, None, lambda old: {**old, **fields})
        else:
            self._store.engines.create({"schema_version": ENGINE.version, "id": engine_id, "revision": 1,
                                        **fields})

    def _put_back(self, engine_id: str, before: EngineState | None) -> None:
        self._engines.remove(engine_id)
        if before is not None:
            self._engines.add(before.address)


def _changed(before: EngineAddress, changes: Mapping[str, Any]) -> EngineAddress:
    """Raises BadAddress, also where what is secret would go to a host for which it was not given."""
    headers = dict(changes.get("headers", dict.fromkeys(before.headers)))
    kept = {name for name, value in headers.items() if value is None}
    if unknown := kept - before.headers.keys():
        raise BadAddress(f"The header {min(unknown)} has no value.")
    headers |= {name: before.headers[name] for name in kept}
    name = changes.get("name", "" if before.name == before.host else before.name)
    address = EngineAddress(changes.get("url", before.url), name, changes.get("key", before.key), headers)
    keeps_key = bool(before.key) and "key" not in changes
    if (keeps_key or kept) and _origin(address) != _origin(before):
        raise BadAddress(f"Its key and headers were given for {before.host}; give them again for "
                         f"{address.host}, or leave them out.")
    return address


def _origin(address: EngineAddress) -> tuple[str, str]:
    return address.url.partition(":")[0], address.host


def _address(kept: Document) -> EngineAddress:
    return EngineAddress(kept["url"], kept["name"], kept["key"], kept["headers"])


def _shown(state: EngineState) -> Document:
    address = state.address
    return {"id": address.id, "name": address.name, "url": address.url, "host": address.host,
            "has_key": bool(address.key), "headers": list(address.headers), "is_fixed": state.is_fixed,
            "is_read": state.is_read, "num_models": len(state.models), "problem": state.problem}
