"""Sessions as the page gets them: with what is being written, what waits for the disk, and what they cost.

Changes nothing. Knows no HTTP.
"""

from __future__ import annotations

from model import ModelSlot

from ..sampling import effective
from ..storage.schema import Document, Session
from ..storage.store import Store
from .bot_view import bot_view
from .chat import Chat
from .context_cost import ContextCosts
from .room import Room


class Showing:
    """Of all sessions of `chat`."""

    def __init__(self, slot: ModelSlot, store: Store, chat: Chat) -> None:
        self._slot, self._store = slot, store
        self._chains, self._commits, self._voices = chat.chains, chat.commits, chat.voices
        self._costs = ContextCosts(self._fit, lambda: self._voices.version)

    def present(self, session: Session) -> Document:
        """The session as the page gets it: the file, what the disk refused so far, what is being written."""
        session = self._commits.with_waiting(session)
        return {**session, "replies": self._chains.writing(session["id"]),
                "next": Room.of(session, self._store, self._slot).next,
                "read_only": self._store.sessions.is_read_only(session["id"])}

    def answer(self, session: Session, known: int | None) -> Document:
        """The session as an answer carries it: whole; or without `messages`, but with the `delta` since
        revision `known`, which whoever asks has."""
        shown = self.present(session)
        delta = None if known is None else self._store.revisions.delta(shown, known)
        if delta is None:
            self._store.revisions.note(session)
            return {"session": shown}
        del shown["messages"]
        return {"session": shown, "delta": {"since": delta.since, "changed": delta.changed,
                                            "removed": delta.removed}}

    def summaries(self, words: str = "") -> list[Document]:
        entries = self._store.search(words) if words.strip() else self._store.summaries()
        return [{**entry, "writing": next(iter(self._chains.writing(entry["id"])), None)}
                for entry in entries]

    def context(self, session: Session) -> Document:
        """Where the model's memory begins, were the last bot to speak again now; or `problem`, a sentence."""
        model = self._slot.model
        unknown = {"first_message": None, "prompt_tokens": None, "about": False,
                   "max_seq_len": model.info()["max_seq_len"] if model else None}
        return {**unknown, **self._costs.of(session)}

    def _fit(self, session: Session) -> Document:
        room = Room.of(session, self._store, self._slot)
        if not room.speakers:
            return {"prompt_tokens": 0}
        speaker = room.bots.get(room.last_speaker or "", room.bots[room.speakers[0].id])
        view = bot_view(session, room.bots, speaker, room.path)
        preset = self._store.preset_sampling(session["preset"])
        params = effective(preset, session["sampling"], speaker["sampling"])
        with self._voices.glance(speaker.get("engine")) as model:
            fit = model.fit(view.messages, params.max_new_tokens, reply_name=view.speaker, shorten=True)
        return {"first_message": view.memory(fit.first_index)[0], "prompt_tokens": fit.prompt_tokens,
                "max_seq_len": fit.max_seq_len or None, "about": not fit.is_exact}
