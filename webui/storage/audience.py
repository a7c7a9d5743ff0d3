"""Who of a session knows what: messages and summaries that are for some bots only, bots that came in late.

    message["for"]  ids of the bots that are told it; without it all are. Who said a message knows it.
    entry["since"]  of a bot of the session: the last of its messages, in the order in which they came, that
                    were there before it came in, null if that was deleted with all before it; without it
                    the bot knows all
Pure functions, as those of tree.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..errors import BadRequest
from .schema import Document, Message, Session


def is_for(message: Message, readers: Collection[str] | None) -> bool:
    """Whether each of these bots is told the message; None: whoever there is and may come."""
    audience = message.get("for")
    if audience is None:
        return True
    return readers is not None and all(bot == message["author"] or bot in audience for bot in readers)


def entry_of(session: Session, bot_id: str) -> Document:
    """What the session says of a bot in it; empty for one that is not."""
    return next((entry for entry in session["bots"] if entry["id"] == bot_id), {})


def before_arrival(session: Session, bot_id: str) -> frozenset[str]:
    """Ids of the messages that were there when the bot came in, of which it knows nothing."""
    since = entry_of(session, bot_id).get("since")
    if since is None:
        return frozenset()
    ids = [message["id"] for message in session["messages"]]
    return frozenset(ids[:ids.index(since) + 1])


def knowing(session: Session, bot_ids: Collection[str]) -> Callable[[Message], bool]:
    """Which messages each of these bots knows."""
    unknown = frozenset[str]().union(*(before_arrival(session, bot_id) for bot_id in bot_ids))
    return lambda message: message["id"] not in unknown and is_for(message, bot_ids)


def passed_on(session: Session, path: list[Message], speaker: str) -> list[str] | None:
    """Whom a reply of `speaker` after `path` is for: whom the last message is for that it knows."""
    knows = knowing(session, [speaker])
    last = next((message for message in reversed(path) if knows(message)), None)
    return None if last is None else last.get("for")


def with_audience(session: Session, message: Message, audience: list[str] | None) -> Message:
    """The message for these bots only, None: for all. Raises BadRequest for one that is neither in the
    session nor among those whom it is for already."""
    check_there(session, audience, message.get("for") or [])
    changed = {key: value for key, value in message.items() if key != "for"}
    return changed if audience is None else {**changed, "for": audience}


def check_there(session: Session, audience: list[str] | None, known: Collection[str] = ()) -> None:
    """Raises BadRequest for a bot that is neither in the session nor one of `known`."""
    there = {entry["id"] for entry in session["bots"]} | set(known)
    if not there.issuperset(audience or []):
        raise BadRequest("One of the bots whom this is for is not in the session.",
                         hint="Choose again whom it is for.")
