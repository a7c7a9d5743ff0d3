"""The models that can be chosen, and the change from one to another. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from model import (
    CannotDo,
    DownloadBusy,
    Downloads,
    Entry,
    FoundAdapter,
    HubError,
    LanguageModel,
    ModelLoadError,
    ModelSlot,
    NoModel,
    SlotBusy,
    parse_source,
)

from ..errors import BadRequest, Busy, HubProblem, NotFound
from .chains import Chains
from .other_engines import OtherEngines

STOP, WAIT = "stop", "wait"
"""What becomes of replies that are being written when the model is changed."""


class Models:
    """What the page's menu of models shows and does."""

    def __init__(self, slot: ModelSlot, chains: Chains, downloads: Downloads | None,
                 others: OtherEngines) -> None:
        """downloads: None where nothing may be got from a hub."""
        self._slot = slot
        self._others = others
        self._downloads = downloads
        self._chains = chains

    def state(self) -> dict[str, Any]:
        """What is loaded or on its way; cheap enough for every question of every tab."""
        state = self._slot.state
        return {"phase": state.phase, "id": state.id, "name": state.name, "coming_id": state.coming_id,
                "coming_name": state.coming_name, "what": state.what, "share": round(state.share, 3),
                "problem": state.problem, "download": self._download(),
                "version": state.version + self._slot.engines.version}

    def begin_look(self, anew: bool) -> bool:
        """Look for models beside, at other engines `anew` even if that has just been done. Whether what is
        listed after this may still be without some; asked after it, an end in between would go unseen."""
        self._slot.catalogue.begin_look()
        here = self._slot.catalogue.is_looking
        return self._others.begin_look(anew) or here

    def listed(self) -> list[dict[str, Any]]:
        """All models that are known, with what each would take if it took the present one's place; those of
        other engines take nothing here."""
        catalogue = self._slot.catalogue
        entries = catalogue.entries()
        free = catalogue.free_bytes() + self._slot.held_bytes if any(one.headers for one in entries) else 0
        return [*(self._shown(entry, free) for entry in entries), *self._others.models()]

    def load(self, model_id: str, running: str, max_seq_len: int | None = None) -> None:
        """Begin to load it, with this context if one is named; `running` says what becomes of replies that
        are being written.

        Raises NotFound, Busy, BadRequest.
        """
        if max_seq_len is not None and self._slot.engines.offer(model_id) is not None:
            raise BadRequest("The context of another engine's model is set where that engine is started.")
        if not self._slot.has(model_id):
            raise NotFound("This model is not there any more.", hint="Look at the list again.")
        self._make_way(running)
        try:
            self._slot.load(model_id, max_seq_len)
        except SlotBusy as error:
            raise Busy(str(error)) from None
        except ModelLoadError as error:
            raise NotFound(str(error)) from None

    def adapters(self) -> list[dict[str, Any]]:
        """LoRA adapters that are loaded beside the present model, and those of the models folder that fit it;
        two of one name are told apart by where they lie."""
        try:
            with self._slot.glance() as model:
                loaded = list(model.info().get("adapters", ()))
                found = [one for one in self._slot.catalogue.adapters() if _fits(model, one)] \
                    if not model.info()["host"] else []
        except NoModel:
            return []
        names = _names_of(found)
        shown = [{"id": one.id, "name": names[one], "where": one.where, "size_bytes": one.size_bytes,
                  "is_loaded": names[one] in loaded} for one in found]
        given = [{"id": "", "name": name, "where": "", "size_bytes": 0, "is_loaded": True}
                 for name in loaded if name not in names.values()]
        return [*given, *shown]

    def load_adapter(self, adapter_id: str) -> None:
        """Load it beside the present model; returns when it is there. Raises NotFound, BadRequest, Busy."""
        found = self._slot.catalogue.adapters()
        adapter = next((one for one in found if one.id == adapter_id), None)
        if adapter is None:
            raise NotFound("This adapter is not there any more.", hint="Look at the list again.")
        with _told_to_people(), self._slot.glance() as model:
            names = _names_of([one for one in found if one == adapter or _fits(model, one)])
            self._slot.load_adapter(names[adapter], adapter.path)

    def unload_adapter(self, name: str) -> None:
        """Replies that have it are written to their end. Raises BadRequest, Busy."""
        with _told_to_people():
            self._slot.unload_adapter(name)

    def unload(self, running: str) -> None:
        """Begin to let the present model go. Raises Busy."""
        self._make_way(running)
        try:
            self._slot.unload()
        except SlotBusy as error:
            raise Busy(str(error)) from None

    def cancel(self) -> None:
        """Stop what is on its way."""
        self._slot.cancel()

    def look(self, source: str) -> dict[str, Any]:
        """What a hub has of a model, and what would be taken. Raises BadRequest, HubProblem."""
        downloads = self._for(source)
        try:
            found, chosen = downloads.look(source)
        except HubError as error:
            raise HubProblem(str(error)) from None
        free = self._slot.catalogue.free_bytes() + self._slot.held_bytes
        return {"source": parse_source(source).repo, "chosen": chosen.label if chosen else None,
                "variants": [{"label": one.label, "size_bytes": one.size, "files": len(one.files),
                              "fits": one.fits(free)} for one in found]}

    def download(self, source: str) -> None:
        """Begin to get a model from a hub. Raises BadRequest, Busy."""
        try:
            self._for(source).begin(source)
        except DownloadBusy as error:
            raise Busy(str(error), hint="Wait until it is done, or cancel it.") from None

    def cancel_download(self) -> None:
        if self._downloads is not None:
            self._downloads.cancel()

    def _for(self, source: str) -> Downloads:
        if self._downloads is None:
            raise BadRequest("This Parlor downloads nothing.")
        try:
            parse_source(source)
        except HubError as error:
            raise BadRequest(f"{error}.") from None
        return self._downloads

    def _download(self) -> dict[str, Any] | None:
        state = self._downloads.state if self._downloads is not None else None
        return None if state is None else vars(state).copy()

    def _make_way(self, running: str) -> None:
        try:
            self._slot.check_free()
        except SlotBusy as error:
            raise Busy(str(error)) from None
        number = self._chains.number
        if number and running not in (STOP, WAIT):
            what = "A reply is being written." if number == 1 else f"{number} replies are being written."
            raise Busy(what, code="writing", replies=number, hint="Say whether to stop or to wait.")
        if number:
            self._chains.end_all(now=running == STOP)

    def _shown(self, entry: Entry, free: int) -> dict[str, Any]:
        found, headers = entry.found, entry.headers
        shown = {"id": found.id, "name": found.name, "place": found.label, "where": found.where,
                 "size_bytes": entry.size_bytes, "is_read": entry.is_read, "problem": entry.problem,
                 "fits": None, "advice": "", "host": ""}
        if headers is None:
            return shown
        spec = headers.config.spec
        shown |= {"family": headers.config.architecture, "quantization": headers.quantization,
                  "num_parameters": spec.num_parameters, "max_positions": spec.max_positions}
        try:
            plan = entry.plan(self._slot.config_for(entry), free)
        except ModelLoadError as error:
            return shown | {"fits": False, "advice": str(error)}
        return shown | {"fits": True, "advice": plan.warning, "memory_bytes": plan.total_bytes,
                        "max_seq_len": plan.max_seq_len, "cache_by_layers": plan.cache_by_layers}


def _fits(model: LanguageModel, adapter: FoundAdapter) -> bool:
    try:
        model.check_adapter(adapter.path)
    except (ModelLoadError, ValueError):
        return False
    return True


def _names_of(adapters: list[FoundAdapter]) -> dict[FoundAdapter, str]:
    names = [one.name for one in adapters]
    return {one: one.name if names.count(one.name) == 1 else one.where[-100:] for one in adapters}


@contextmanager
def _told_to_people() -> Iterator[None]:
    try:
        yield
    except NoModel as error:
        raise Busy(str(error)) from None
    except (ModelLoadError, CannotDo, ValueError) as error:
        raise BadRequest(str(error)) from None
