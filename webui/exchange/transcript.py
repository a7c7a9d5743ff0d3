"""What is shown of a session, for reading: the lines of its branch, and they as Markdown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..storage import tree
from ..storage.schema import DEFAULT_USER_NAME, USER, Bot, Session


@dataclass(frozen=True)
class Line:
    """One message; `text` is Markdown, `created` in seconds since 1970, `names` of the bots it is for (all,
    if it is empty)."""

    name: str
    text: str
    created: float
    is_user: bool
    names: tuple[str, ...] = ()

    @property
    def written(self) -> str:
        """When, by the clock of this machine."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.created))


    @property
    def about(self) -> str:
        """When, and for whom if not for all."""
        return f"{self.written} · only for {' and '.join(self.names)}" if self.names else self.written


def shown(session: Session, bots: Sequence[Bot] = ()) -> list[Line]:
    """The branch that is shown, oldest first; `bots` are those whose names are known."""
    user = session["user_name"] or DEFAULT_USER_NAME
    names = {message["author"]: message["name"] for message in session["messages"]}
    names |= {bot["id"]: bot["name"] for bot in bots}
    return [Line(user if message["author"] == USER else message["name"] or "Somebody", message["text"],
                 message["created"], message["author"] == USER,
                 tuple(names.get(bot) or "somebody" for bot in message.get("for") or ()))
            for message in tree.path(session, session["leaf"])]


def markdown(session: Session, bots: Sequence[Bot] = ()) -> str:
    parts = [f"# {session['title']}"]
    parts += [f"**{line.name}** · {line.about}\n\n{line.text}" for line in shown(session, bots)]
    return "\n\n".join(parts) + "\n"
