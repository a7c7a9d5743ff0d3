"""What is told of replies when somebody looks closer: their tokens, what may come next, if they come again.

The model reads or writes something for it; nothing is written into a session. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model import NextToken

from ..errors import BadRequest
from ..storage import tree
from ..storage.schema import USER, new_message
from ..storage.token_files import ReplyToken
from .chat import Chat
from .event_log import EventLog
from .next_token import next_token
from .replay import begin_replay, begun_with

IsGone = Callable[[], bool]
"""Whether nobody waits for the answer any more."""


class Looking:
    """Into all sessions of `chat`."""

    def __init__(self, chat: Chat) -> None:
        self._chat, self._lens, self._voices, self._planner = chat, chat.lens, chat.voices, chat.planner

    def tokens(self, session_id: str, message_id: str, is_gone: IsGone) -> list[ReplyToken]:
        """The tokens of a reply's text, with what else could have come; see Lens."""
        session = self._chat.session(session_id)
        message = tree.get(session, message_id)
        if message["author"] == USER:
            raise BadRequest("Only what a bot wrote has tokens to look at.")
        if not message["text"]:
            raise BadRequest("This reply has no text.")
        if (tokens := self._lens.known(session_id, message)) is not None:
            return tokens
        self._chat.check_not_written(session_id, message_id)
        plan = self._planner.plan(session, self._planner.bot(message["author"]), message)
        return self._lens.compute(session, plan, is_gone)

    def next_token(self, session_id: str, bot: str, is_gone: IsGone) -> NextToken:
        """What the next token may be if this bot spoke now."""
        session = self._chat.session(session_id)
        speaker = self._planner.bot_in(session, bot)
        blank = new_message(speaker["id"], speaker["name"], "", session["leaf"])
        return next_token(self._voices, self._planner.plan(session, speaker, blank), (), is_gone)

    def token_within(self, session_id: str, message_id: str, index: int,
                     is_gone: IsGone) -> tuple[NextToken, ReplyToken]:
        """What the token number `index` of a reply might have been, and what it is."""
        session = self._chat.session(session_id)
        message = tree.get(session, message_id)
        tokens = self._lens.known(session_id, message) or []
        if index >= len(tokens):
            raise BadRequest("The tokens of this reply are not known.", hint="Look at the tokens again.")
        plan = self._planner.plan(session, self._planner.bot(message["author"]), message)
        return next_token(self._voices, plan, tokens[:index], is_gone), tokens[index]

    def replay(self, session_id: str, message_id: str, is_gone: IsGone) -> EventLog:
        """Have a reply generated once more from its record, and compare; see begin_replay. Raises BadRequest
        for what cannot be."""
        session = self._chat.session(session_id)
        message = tree.get(session, message_id)
        tokens = self._lens.known(session_id, message)
        begun, begun_tokens = begun_with(message, tokens)
        speaker = self._planner.bot(message["author"])
        if speaker.get("engine") and "record" not in message:
            raise BadRequest(f"{speaker['name']} speaks by a model of another engine, which cannot be asked "
                             "for the same tokens once more.")
        plan = self._planner.plan(session, speaker, begun)
        if begun_tokens:
            plan = replace(plan, begun=begun_tokens, forks=True)
        return begin_replay(self._voices, plan, message, tokens, is_gone)
