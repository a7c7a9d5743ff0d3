"""With what a bot begins a session: its greeting, and others as versions of that. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ids import new_id
from ..storage import tree
from ..storage.schema import DEFAULT_USER_NAME, MAX_GREETINGS, MAX_PROMPT, Bot, Session, new_message
from .bot_view import called
from .macros import Macros, without_angles


@dataclass(frozen=True)
class Beginning:
    """What is known of a session before there is one.

    chosen     which greeting of a bot is shown, by its id, where it has several
    user_name  "" for nobody in particular
    seed       what chance in the greetings hangs on: with the same one they are the same
    """

    chosen: Mapping[str, int] = field(default_factory=dict)
    user_name: str = ""
    seed: str = field(default_factory=new_id)

    def spoken(self, bot: Bot, in_group: bool, moment: float) -> list[str]:
        """All greetings of `bot` as it would say them at `moment`, in seconds since 1970."""
        return [Macros(called(bot), self.user_name or DEFAULT_USER_NAME, f"{self.seed}{bot['id']}{number}",
                       moment=moment).fill(text)
                for number, text in enumerate(greetings_of(bot, in_group))]


def greetings_of(bot: Bot, in_group: bool = False) -> list[str]:
    """Those that say something, the usual one first, those that its card has for groups alone last."""
    others = bot.get("card", {}).get("group_only_greetings") if in_group else None
    for_groups = [without_angles(text) for text in others if isinstance(text, str) and len(text) <= MAX_PROMPT
                  ][:MAX_GREETINGS] if isinstance(others, list) else []
    texts = (bot["greeting"], *bot.get("alternate_greetings", []), *for_groups)
    return [text for text in texts if text.strip()]


def greeted(session: Session, bot: Bot, beginning: Beginning) -> Session:
    """The session with all greetings of `bot` below its leaf, the chosen one shown (else the first)."""
    texts = beginning.spoken(bot, len(session["bots"]) > 1, session["created"])
    chosen = beginning.chosen.get(bot["id"], 0)
    above = session["leaf"]
    for number, text in enumerate(texts):
        message = new_message(bot["id"], bot["name"], text, above)
        shown = number == (chosen if chosen < len(texts) else 0)
        session = tree.with_message(session, message, leaf=message["id"] if shown else session["leaf"])
    return session
