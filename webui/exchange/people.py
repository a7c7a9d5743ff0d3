"""Who speaks in a chat of another program: bots that are known by their names, and those to be made."""

from __future__ import annotations

import time

from ..ids import new_id
from ..storage.names import clean_name
from ..storage.schema import (
    BOT,
    DEFAULT_USER_NAME,
    MAX_BOTS,
    USER,
    Bot,
    Message,
    Session,
    new_message,
    new_session,
)

IMPORTED_COLOR = "#7a6a55"


class People:
    """`known` bots are found by name. `made`: those that have to be made."""

    def __init__(self, known: list[Bot]) -> None:
        self._by_name = {bot["name"].casefold(): bot for bot in known}
        self._present: dict[str, Bot] = {}
        self.made: list[Bot] = []

    def bot(self, name: str) -> Bot:
        """The bot of this name, which is present from now on; `name` is a clean one."""
        bot = self._by_name.get(name.casefold())
        if bot is None:
            bot = self._by_name[name.casefold()] = _new_bot(name)
            self.made.append(bot)
        return self._present.setdefault(bot["id"], bot)

    def message(self, name: str | None, text: str, parent: str | None) -> Message:
        """What the user (None) or the bot of this name said."""
        if name is None:
            return new_message(USER, DEFAULT_USER_NAME, text, parent)
        bot = self.bot(clean_name(name) or "Assistant")
        return new_message(bot["id"], bot["name"], text, parent)

    def session(self, title: str, messages: list[Message], leaf: str | None) -> Session:
        """A session with those who are present, up to as many as a room holds."""
        session = new_session(list(self._present.values())[:MAX_BOTS], title)
        return {**session, "messages": messages, "leaf": leaf}

    def leave(self) -> None:
        """Another chat begins: nobody is present in it yet."""
        self._present = {}


def _new_bot(name: str) -> Bot:
    return {"schema_version": BOT.version, "id": new_id(), "revision": 1, "name": name,
            "color": IMPORTED_COLOR, "persona": "", "greeting": "", "sampling": {}, "created": time.time()}
