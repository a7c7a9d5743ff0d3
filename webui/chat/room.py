"""The room of a session: who can speak in it, who spoke last, who comes next.

turn_order.py with store and model at hand. Only those who know what was said last go on from it, and the
model that decides reads what all of those know among whom it chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from model import ModelSlot, NoModel

from ..storage import tree
from ..storage.audience import knowing
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
    rank_after: Callable[[list[tuple[str, str]], list[str]], list[float]]

    @classmethod
    def of(cls, session: Session, store: Store, slot: ModelSlot) -> Room:
        bots = {bot["id"]: bot for bot in store.known_bots()}
        path = tree.path(session, session["leaf"])

        def rank_after(lines: list[tuple[str, str]], names: list[str]) -> list[float]:
            model = slot.model  # only replies ask, and they have a lease
            if model is None:
                raise NoModel("No model is loaded.")
            return model.rank_speakers(lines, names)

        return cls(session, bots, path, rank_after)

    @property
    def speakers(self) -> list[Speaker]:
        """In the order of the room, without muted and deleted bots."""
        return [Speaker(entry["id"], self.bots[entry["id"]]["name"]) for entry in self.session["bots"]
                if entry["id"] in self.bots and not entry["muted"]]

    @property
    def last_speaker(self) -> str | None:
        return next((message["author"] for message in reversed(self.path) if message["author"] != USER), None)

    def among(self, audience: Collection[str] | None) -> list[Speaker]:
        """Those of the speakers whom a message is for; None: all."""
        return [speaker for speaker in self.speakers if audience is None or speaker.id in audience]

    @property
    def following(self) -> list[Speaker]:
        """Those who may speak next by themselves: who know what was said last. If that is nobody but the one
        who said it, it is anybody's turn, and nobody answers to that message."""
        last = self.path[-1] if self.path else None
        if last is None:
            return self.speakers
        knowing_it = [speaker for speaker in self.speakers if knowing(self.session, [speaker.id])(last)]
        return knowing_it if any(speaker.id != last["author"] for speaker in knowing_it) else self.speakers

    def answering(self, text: str, audience: Collection[str] | None = None) -> list[str]:
        """Ids of the bots that answer the user's `text`, which is for these (None: for all); asks the model
        if the turn order says so."""
        speakers = self.among(audience)
        return after_user(self.session["turn_order"], speakers, text, self.last_speaker, self._rank)

    def going_on(self) -> str | None:
        """Id of the bot that speaks next by itself; None if nobody can. May ask the model, as answering()."""
        speakers, last = self.following, self.path[-1] if self.path else None
        if not speakers:
            return None
        is_known = last is not None and knowing(self.session, [speaker.id for speaker in speakers])(last)
        text = last["text"] if last and is_known else ""
        return next_speaker(self.session["turn_order"], speakers, text, self.last_speaker, self._rank)

    def asks_the_model(self, speakers: Collection[Speaker]) -> bool:
        """Whether who of these speaks next takes the model, which may take seconds."""
        return self.session["turn_order"] == "model" and len(speakers) > 1

    @property
    def next(self) -> list[str]:
        """Ids of those who answer a text that names nobody; empty where the model or a click decides."""
        return [] if self.asks_the_model(self.speakers) else self.answering("")

    def _rank(self, names: list[str]) -> list[float]:
        knows = knowing(self.session, [speaker.id for speaker in self.speakers if speaker.name in names])
        lines = transcript(self.session, self.bots, [message for message in self.path if knows(message)])
        return self.rank_after(lines, names)
