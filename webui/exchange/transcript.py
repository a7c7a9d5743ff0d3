"""What is shown of a session, for reading: the lines of its branch, and they as Markdown."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..storage import tree
from ..storage.schema import DEFAULT_USER_NAME, USER, Session


@dataclass(frozen=True)
class Line:
    """One message; `text` is Markdown, `created` in seconds since 1970."""

    name: str
    text: str
    created: float
    is_user: bool

    @property
    def written(self) -> str:
        """When, by the clock of this machine."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.created))


def shown(session: Session) -> list[Line]:
    """The branch that is shown, oldest first."""
    user = session["user_name"] or DEFAULT_USER_NAME
    return [Line(user if message["author"] == USER else message["name"] or "Somebody", message["text"],
                 message["created"], message["author"] == USER)
            for message in tree.path(session, session["leaf"])]


def markdown(session: Session) -> str:
    parts = [f"# {session['title']}"]
    parts += [f"**{line.name}** · {line.written}\n\n{line.text}" for line in shown(session)]
    return "\n\n".join(parts) + "\n"
