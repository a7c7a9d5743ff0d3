"""The room of a session: who can speak in it, who spoke last, who comes next.

turn_order.py with store and model at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model import ModelSlot, NoModel

from ..storage import tree
from ..storage.schema import USER, Bot, Message, Session
from ..storage.store import Store
from .bot_view import transcript
from .speakers import Speaker
from .turn_order import after_user, next_speaker


@dataclass(frozen=True)
class Room:
    """The people of a session, and what is shown of it: the session, the bots that exist and the path."""

    session: Session
    bots: dict[str, Bot]
    path: list[Message]
    rank: Callable[[list[str]], list[float]]

    @classmethod
    def of(cls, session: Session, store: Store, slot: ModelSlot) -> Room:
        bots = {bot["id"]: bot for bot in store.known_bots()}
        path = tree.path(session, session["leaf"])

        def rank(names: list[str]) -> list[float]:
            model = slot.model  # only replies ask, and they have a lease
            if model is None:
                raise NoModel("No model is loaded.")
            return model.rank_speakers(transcript(session, bots, path), names)

        return cls(session, bots, path, rank)

    @property
    def speakers(self) -> list[Speaker]:
        """In the order of the room, without muted and deleted bots."""
        return [Speaker(entry["id"], self.bots[entry["id"]]["name"]) for entry in self.session["bots"]
                if entry["id"] in self.bots and not entry["muted"]]

    @property
    def last_speaker(self) -> str | None:
        return next((message["author"] for message in reversed(self.path) if message["author"] != USER), None)

    def answering(self, text: str) -> list[str]:
        """Ids of the bots that answer the user's `text`; asks the model if the turn order says so."""
        return after_user(self.session["turn_order"], self.speakers, text, self.last_speaker, self.rank)

    def going_on(self) -> str | None:
        """Id of the bot that speaks next by itself; None if nobody can. May ask the model, as answering()."""
        text = self.path[-1]["text"] if self.path else ""
        if not self.speakers:
            return None
        return next_speaker(self.session["turn_order"], self.speakers, text, self.last_speaker, self.rank)

    @property
    def asks_the_model(self) -> bool:
        """Whether who speaks next takes the model, which may take seconds."""
        return self.session["turn_order"] == "model" and len(self.speakers) > 1

    @property
    def next(self) -> list[str]:
        """Ids of those who answer a text that names nobody; empty where the model or a click decides."""
        return [] if self.asks_the_model else self.answering("")
