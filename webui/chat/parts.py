"""A long session in parts: at first the texts near the message that is shown last, the others when they are
asked for.

A message whose texts are yet to come is `far`: it has its place in the tree, and no text. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..storage import tree
from ..storage.schema import Document, Message, Session

SHORT = 1 << 18  # a session of no more characters comes whole
NEAR = 1 << 16  # some screens: of long replies a dozen, of single words a hundred
PART = 1 << 18  # small enough that reading one does not keep a page from drawing
_BESIDE = 500  # what a message has beside its texts: numbers, sampling, what it was made from


def size(message: Message) -> int:
    """About how many characters it takes."""
    return len(message["text"]) + len(message["thinking"]) + _BESIDE


def nearest(session: Session) -> list[Document]:
    """The messages of a session, far ones but for the last of the path that is shown and those with an error;
    of a short one all as they are."""
    messages = session["messages"]
    if not any(total > SHORT for total in accumulate(map(size, messages))):
        return messages
    near = {message["id"] for message in messages if message.get("error")}  # one is in no revision
    room = NEAR
    for message in reversed(tree.path(session, session["leaf"])):
        near.add(message["id"])
        room -= size(message)
        if room < 0:
            break
    return [message if message["id"] in near else _far(message) for message in messages]


def part(messages: Sequence[Message], before: int) -> tuple[int, Sequence[Message]]:
    """The last messages before that index, as many as go together and one at least: where they begin, and
    they."""
    before = min(before, len(messages))
    first, room = before, PART
    while first and (first == before or room >= size(messages[first - 1])):
        first -= 1
        room -= size(messages[first])
    return first, messages[first:before]


def _far(message: Message) -> Document:
    return {"id": message["id"], "parent": message["parent"], "author": message["author"],
            "name": message["name"], "text": "", "created": message["created"], "far": True}
