"""A session's messages as a tree: pure functions that return a new session and leave the old one alone.

Documents are never changed in place, so a save that fails leaves what was there. Knows nothing of disk.
"""

from __future__ import annotations

from ..errors import NotFound
from .schema import Message, Session


def find(session: Session, message_id: str | None) -> Message | None:
    return next((message for message in session["messages"] if message["id"] == message_id), None)


def get(session: Session, message_id: str | None) -> Message:
    message = find(session, message_id)
    if message is None:
        raise NotFound("There is no such message in this session.")
    return message


def path(session: Session, leaf: str | None) -> list[Message]:
    """From the first message down to `leaf`: what is shown, and what a bot sees."""
    by_id = {message["id"]: message for message in session["messages"]}
    way = []
    while leaf is not None:
        way.append(by_id[leaf])
        leaf = by_id[leaf]["parent"]
    return way[::-1]


def newest_descendant(session: Session, start: str | None) -> str | None:
    """Follow the latest child down from `start`; None starts above the first messages."""
    last_child = {message["parent"]: message["id"] for message in session["messages"]}
    while start in last_child:
        start = last_child[start]
    return start


def with_message(session: Session, message: Message, *, leaf: str | None) -> Session:
    """`message` added, or put in the place of the one with its id; `leaf` is shown from then on."""
    messages = list(session["messages"])
    for index, known in enumerate(messages):
        if known["id"] == message["id"]:
            messages[index] = message
            break
    else:
        messages.append(message)
    return {**session, "messages": messages, "leaf": leaf}


def without_message(session: Session, message_id: str) -> Session:
    """`message_id` taken out; its children move up to its parent."""
    gone = get(session, message_id)
    messages = [
        {**message, "parent": gone["parent"]} if message["parent"] == message_id else message
        for message in session["messages"] if message["id"] != message_id
    ]
    changed = {**session, "messages": messages}
    if session["leaf"] == message_id:
        changed["leaf"] = newest_descendant(changed, gone["parent"])
    return changed


def with_reply(session: Session, message: Message) -> Session:
    """The session with a bot's reply in it: below its parent, or in place if it `continues` a known message.

    The reply is shown from then on if its parent was. The same reply once more changes nothing.
    """
    known = find(session, message["id"])
    continues = message.get("continues", False)
    message = {key: value for key, value in message.items() if key != "continues"}
    if known is not None:
        if not continues or known == message:
            return session
        return with_message(session, {**message, "parent": known["parent"]}, leaf=session["leaf"])
    if message["parent"] is not None and find(session, message["parent"]) is None:
        message["parent"] = session["leaf"]
    leaf = message["id"] if session["leaf"] == message["parent"] else session["leaf"]
    return with_message(session, message, leaf=leaf)
