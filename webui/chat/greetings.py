"""With what a bot begins a session: its greeting, and others as versions of that. Pure functions."""

from __future__ import annotations

from ..storage import tree
from ..storage.schema import Bot, Session, new_message
from .bot_view import fill_in, user_name


def greetings_of(bot: Bot) -> list[str]:
    """Those that say something, the usual one first."""
    return [text for text in (bot["greeting"], *bot.get("alternate_greetings", [])) if text.strip()]


def greeted(session: Session, bot: Bot, chosen: int) -> Session:
    """The session with all greetings of `bot` below its leaf, that number `chosen` shown (else the first)."""
    texts = greetings_of(bot)
    above = session["leaf"]
    for number, text in enumerate(texts):
        said = fill_in(text, bot["name"], user_name(session))
        message = new_message(bot["id"], bot["name"], said, above)
        shown = number == (chosen if chosen < len(texts) else 0)
        session = tree.with_message(session, message, leaf=message["id"] if shown else session["leaf"])
    return session
