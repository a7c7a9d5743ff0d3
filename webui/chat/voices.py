"""By which model each bot speaks: the one that is loaded, or one of another engine.

`engine` is what a bot says of that, {id, model} or None. Knows no session and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from model import LanguageModel, Lease, ModelSlot, NoModel, RemoteLease

from ..storage.schema import Bot, Document


class Voices:
    def __init__(self, slot: ModelSlot) -> None:
        self._slot = slot

    @property
    def version(self) -> int:
        """Counts up whenever any bot's model may be another."""
        return self._slot.state.version + self._slot.engines.version

    def lease(self, engine: Document | None) -> Lease | RemoteLease:
        return self._slot.lease() if engine is None else \
            self._slot.engines.lease(engine["id"], engine["model"])

    @contextmanager
    def glance(self, engine: Document | None) -> Iterator[LanguageModel]:
        """The model if it is there now. Raises NoModel."""
        if engine is None:
            with self._slot.glance() as model:
                yield model
            return
        asked = self._now(engine)
        if asked is None:
            raise NoModel("the engine is asked with the next message.")
        yield asked

    def cannot(self, engine: Document | None, what: str) -> str:
        """Why that model cannot do it; "" if it can, or if nobody has asked it yet."""
        model = self._now(engine)
        return "" if model is None else model.info()["cannot"].get(what, "")

    def will_answer(self, bots: Iterable[Bot]) -> bool:
        """Whether anybody has a model, or will."""
        return self._slot.will_answer or any(bot.get("engine") for bot in bots)

    def _now(self, engine: Document | None) -> LanguageModel | None:
        if engine is None:
            return self._slot.model
        engines = self._slot.engines
        try:
            return engines.opened(engines.offer_of(engine["id"], engine["model"]))
        except NoModel:
            return None
