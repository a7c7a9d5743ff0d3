"""The token lens: the tokens of any stored reply, each with what else could have come: kept or computed anew.

They are kept when the reply is written. Where they are not (short or old replies, a text that was edited or
imported) the model reads prompt and reply once more, as a request beside the others. Knows no HTTP.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from model import LOGPROBS, LanguageModel, ScoredToken, thinking_variables

from ..errors import BadRequest
from ..storage.schema import Message, Session
from ..storage.store import Store
from ..storage.token_files import Alternative, ReplyToken
from .reading import borrowed, events_of
from .reply_tokens import NUM_OTHERS, TokenRecorder
from .voices import Voices

if TYPE_CHECKING:
    from .reply_job import ReplyPlan

KEPT_REPLIES = 32  # in memory, with all their alternatives


class Lens:
    """Of all sessions of `store`. Thread-safe."""

    def __init__(self, store: Store, voices: Voices) -> None:
        self._store, self._voices = store, voices
        self._latest: OrderedDict[tuple[str, str, int], list[ReplyToken]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, session_id: str, message: Message, tokens: list[ReplyToken] | None) -> None:
        """What the model that wrote the message told of it; None: nothing that fits its text."""
        if tokens is None:
            self._store.tokens.remove(session_id, message["id"])
            return
        self._remember(session_id, message, tokens)
        self._store.tokens.save(session_id, message["id"], tokens)

    def known(self, session_id: str, message: Message) -> list[ReplyToken] | None:
        """The tokens of the message's text without any work, if they are known."""
        with self._lock:
            tokens = self._latest.get(_key(session_id, message))
        return tokens or self._store.tokens.load(session_id, message["id"], message["text"])

    def forget(self, session_id: str, message_id: str) -> None:
        """The message is gone, or its text another."""
        with self._lock:
            for key in [key for key in self._latest if key[:2] == (session_id, message_id)]:
                del self._latest[key]
        self._store.tokens.remove(session_id, message_id)

    def compute(self, session: Session, plan: ReplyPlan, is_gone: Callable[[], bool]) -> list[ReplyToken]:
        """Have the model read the reply of `plan` again. It waits in turn with other requests, and ends once
        `is_gone` says that nobody waits for it.

        Raises BadRequest with what the model says of it, NoModelLoaded, EngineFailed, ReaderGone.
        """
        message = plan.message
        with borrowed(self._voices, plan.engine, is_gone) as model:
            tokens = self._read(model, plan, is_gone)
            is_writers = model.info()["name"] == message.get("model", "")
        if is_writers:
            self.keep(session["id"], message, tokens)
        else:
            self._remember(session["id"], message, tokens)
        return tokens

    def _read(self, model: LanguageModel, plan: ReplyPlan, is_gone: Callable[[], bool]) -> list[ReplyToken]:
        if why := model.info()["cannot"].get(LOGPROBS):
            raise ValueError(why)
        view, message = plan.view, plan.message
        effort = (message.get("sampling") or {}).get("reasoning_effort")
        reply = model.scored_reply(view.messages, message["text"], reply_name=view.speaker,
                                   reply_thinking=message["thinking"], top=NUM_OTHERS,
                                   adapter=plan.adapter or None,
                                   variables=thinking_variables(effort if effort != "none" else ""))
        recorder = TokenRecorder()
        for event in events_of(reply, is_gone):
            if isinstance(event, ScoredToken):
                recorder.take(event)
        tokens = recorder.tokens_of(message["text"])
        if tokens is None:
            raise ValueError("The tokens of this model do not spell this reply letter by letter.")
        return tokens

    def _remember(self, session_id: str, message: Message, tokens: list[ReplyToken]) -> None:
        with self._lock:
            self._latest[_key(session_id, message)] = tokens
            while len(self._latest) > KEPT_REPLIES:
                self._latest.popitem(last=False)


def forked(tokens: list[ReplyToken], index: int, choice: bytes) -> list[ReplyToken]:
    """Those up to the one at `index`, with the alternative of these bytes in its place. Raises BadRequest."""
    old = tokens[index] if index < len(tokens) else None
    chosen = next((other for other in old.others if other.data == choice), None) if old else None
    if old is None or chosen is None or not can_be_chosen(chosen, index):
        raise BadRequest("This token cannot be put there.", hint="Look at the tokens again.")
    others = [Alternative(old.data, old.logprob), *(other for other in old.others if other is not chosen)]
    others.sort(key=lambda other: -other.logprob)
    data = chosen.data.lstrip() if index == 0 else chosen.data
    return [*tokens[:index], replace(old, data=data, logprob=chosen.logprob, others=tuple(others))]


def can_be_chosen(other: Alternative, index: int) -> bool:
    """White space at the start of a reply is not shown; the end of a reply is no text."""
    return other.is_text and bool(other.data if index else other.data.strip())


def _key(session_id: str, message: Message) -> tuple[str, str, int]:
    return session_id, message["id"], zlib.crc32(message["text"].encode())
