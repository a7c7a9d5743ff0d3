"""The models that can be chosen, and the change from one to another. Knows no HTTP."""

from __future__ import annotations

from typing import Any

from model import Entry, ModelLoadError, ModelSlot, SlotBusy

from ..errors import Busy, NotFound
from .chains import Chains

STOP, WAIT = "stop", "wait"
"""What becomes of replies that are being written when the model is changed."""


class Models:
    """What the page's menu of models shows and does."""

    def __init__(self, slot: ModelSlot, chains: Chains) -> None:
        self._slot = slot
        self._chains = chains

    def state(self) -> dict[str, Any]:
        """What is loaded or on its way; cheap enough for every question of every tab."""
        state = self._slot.state
        return {"phase": state.phase, "id": state.id, "name": state.name, "coming_id": state.coming_id,
                "coming_name": state.coming_name, "what": state.what, "share": round(state.share, 3),
                "problem": state.problem, "version": state.version}

    def listed(self) -> list[dict[str, Any]]:
        """All models that are known, with what each would take if it took the present one's place."""
        catalogue = self._slot.catalogue
        entries = catalogue.entries()
        free = catalogue.free_bytes() + self._slot.held_bytes if any(one.headers for one in entries) else 0
        return [self._shown(entry, free) for entry in entries]

    @property
    def is_looking(self) -> bool:
        return self._slot.catalogue.is_looking

    def load(self, model_id: str, running: str) -> None:
        """Begin to load it; `running` says what becomes of replies that are being written.

        Raises NotFound, Busy.
        """
        entry = self._slot.catalogue.entry(model_id)
        if entry is None:
            raise NotFound("This model is not there any more.", hint="Look at the list again.")
        self._make_way(running)
        try:
            self._slot.load(model_id)
        except SlotBusy as error:
            raise Busy(str(error)) from None
        except ModelLoadError as error:
            raise NotFound(str(error)) from None

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

    def _make_way(self, running: str) -> None:
        number = self._chains.number
        if number and running not in (STOP, WAIT):
            what = "A reply is" if number == 1 else f"{number} replies are"
            raise Busy(f"{what} being written.", code="writing", replies=number,
                       hint="Say whether to stop or to wait.")
        if number:
            self._chains.end_all(now=running == STOP)

    def _shown(self, entry: Entry, free: int) -> dict[str, Any]:
        found, headers = entry.found, entry.headers
        shown = {"id": found.id, "name": found.name, "place": found.label, "where": found.where,
                 "size_bytes": entry.size_bytes, "is_read": entry.is_read, "problem": entry.problem,
                 "fits": None, "advice": ""}
        if headers is None:
            return shown
        spec = headers.config.spec
        shown |= {"family": headers.config.architecture, "quantization": headers.quantization,
                  "num_parameters": spec.num_parameters, "max_positions": spec.max_positions}
        try:
            plan = entry.plan(self._slot.engine, free)
        except ModelLoadError as error:
            return shown | {"fits": False, "advice": str(error)}
        return shown | {"fits": True, "memory_bytes": plan.total_bytes, "max_seq_len": plan.max_seq_len}
