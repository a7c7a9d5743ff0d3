"""Sessions as the page gets them: with what is being written, what waits for the disk, and what they cost.

Changes nothing. Knows no HTTP.
"""

from __future__ import annotations

from model import ModelSlot, thinking_variables

from ..errors import Stale
from ..sampling import effective
from ..storage.history import shown_history, without_history
from ..storage.schema import Document, Session
from ..storage.store import Store
from .bot_view import bot_view
from .chat import Chat
from .context_cost import ContextCosts
from .parts import nearest, part
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
        return {**without_history(session), "history": shown_history(session),
                "replies": self._chains.writing(session["id"]),
                "next": Room.of(session, self._store, self._slot).next,
                "read_only": self._store.sessions.is_read_only(session["id"])}

    def answer(self, session: Session, known: int | None, *, near: bool = False) -> Document:
        """The session as an answer carries it: whole, or of a long one only the texts that are `near`; or
        without `messages`, but with the `delta` since revision `known`, which whoever asks has."""
        shown = self.present(session)
        delta = None if known is None else self._store.revisions.delta(shown, known)
        if delta is None:
            self._store.revisions.note(session)
            return {"session": {**shown, "messages": nearest(shown)} if near else shown}
        del shown["messages"]
        return {"session": shown, "delta": {"since": delta.since, "changed": delta.changed,
                                            "removed": delta.removed}}

    def part(self, session_id: str, known: int, before: int) -> Document:
        """Messages of revision `known` that stand before that index, and where they `first` do: of each the
        text that it had then. Raises NotFound, or Stale where that revision is not known any more."""
        messages = self._store.revisions.messages(self._store.session(session_id)["id"], known)
        if messages is None:
            raise Stale("This session was changed elsewhere in the meantime.",
                        hint="Look at what is there now, then try again.")
        first, found = part(messages, before)
        return {"first": first, "messages": list(found)}

    def summaries(self, words: str = "") -> list[Document]:
        entries = self._store.search(words) if words.strip() else self._store.summaries()
        return [{**entry, "writing": next(iter(self._chains.writing(entry["id"])), None)}
                for entry in entries]

    def context(self, session: Session) -> Document:
        """Where the model's memory begins, were the last bot to speak again now; or `problem`, a sentence."""
        model = self._slot.model
        unknown = {"first_message": None, "left_out": 0, "prompt_tokens": None, "guide_tokens": None,
                   "about": False, "max_seq_len": model.info()["max_seq_len"] if model else None}
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
            variables = thinking_variables(params.reasoning_effort)
            fit = model.fit(view.messages, params.max_new_tokens, reply_name=view.speaker, shorten=True,
                            variables=variables)
            guide = view.guide(params, fit.first_index)
            guide_fit = guide and model.fit([one.message for one in guide], params.max_new_tokens,
                                            reply_name=view.speaker, shorten=True, variables=variables)
        first, left_out = view.memory(fit.first_index)
        return {"first_message": first, "left_out": left_out, "prompt_tokens": fit.prompt_tokens,
                "guide_tokens": guide_fit.prompt_tokens if guide_fit else None,
                "max_seq_len": fit.max_seq_len or None, "about": not fit.is_exact}
