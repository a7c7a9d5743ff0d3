"""A session's messages as a tree: pure functions that return a new session and leave the old one alone.

Documents are never changed in place, so a save that fails leaves what was there. Knows nothing of disk.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def with_label(session: Session, message_id: str, label: str) -> Session:
    """The branch that begins with a message has this name, or with "" none. What is so already stays."""
    message = get(session, message_id)
    if message.get("label", "") == label:
        return session
    others = {name: value for name, value in message.items() if name != "label"}
    return with_message(session, {**others, **({"label": label} if label else {})}, leaf=session["leaf"])


@dataclass(frozen=True)
class Removed:
    """A message that was taken out, and its place: among the messages, above its children, as the leaf."""

    message: Message
    index: int
    children: frozenset[str]
    was_leaf: bool
    unknown_to: frozenset[str] = frozenset()  # bots that came in after it


def without_message(session: Session, message_id: str) -> tuple[Session, Removed]:
    """`message_id` taken out; its children move up to its parent, and so does a summary of all up to it.
    A bot that came in after it came in after the one that stood before it in the list."""
    gone = get(session, message_id)
    messages = [
        {**message, "parent": gone["parent"]} if message["parent"] == message_id else message
        for message in session["messages"] if message["id"] != message_id
    ]
    changed = {**session, "messages": messages}
    if session.get("summaries") and gone["parent"] is not None:
        changed["summaries"] = [{**summary, "until": gone["parent"]} if summary["until"] == message_id
                                else summary for summary in session["summaries"]]
    ids = [message["id"] for message in session["messages"]]
    index = ids.index(message_id)
    late = [entry for entry in session["bots"] if entry.get("since")]
    unknown_to = frozenset(entry["id"] for entry in late if ids.index(entry["since"]) >= index)
    if any(entry["since"] == message_id for entry in late):
        changed["bots"] = [{**entry, "since": ids[index - 1] if index else None}
                           if entry.get("since") == message_id else entry for entry in session["bots"]]
    if session["leaf"] == message_id:
        changed["leaf"] = newest_descendant(changed, gone["parent"])
    children = frozenset(other["id"] for other in session["messages"] if other["parent"] == message_id)
    return changed, Removed(gone, index, children, session["leaf"] == message_id, unknown_to)


def with_restored(session: Session, removed: Removed) -> Session:
    """A removed message back in its place, above those of its children that hang where they moved to."""
    if find(session, removed.message["id"]):
        return session
    parent = removed.message["parent"]
    if find(session, parent) is None:  # it was the first, or what stood above was taken out meanwhile
        children = [message for message in session["messages"] if message["id"] in removed.children]
        parent = children[0]["parent"] if children else None
    messages = [
        {**message, "parent": removed.message["id"]}
        if message["id"] in removed.children and message["parent"] == parent else message
        for message in session["messages"]
    ]
    ids = [message["id"] for message in messages]
    known_from = {entry["id"]: ids.index(entry["since"]) + 1 if entry.get("since") else 0
                  for entry in session["bots"] if entry["id"] in removed.unknown_to and "since" in entry}
    index = min([removed.index, *known_from.values()])
    messages.insert(index, {**removed.message, "parent": parent})
    bots = [{**entry, "since": removed.message["id"]} if known_from.get(entry["id"]) == index else entry
            for entry in session["bots"]]
    leaf = removed.message["id"] if removed.was_leaf else session["leaf"]
    return {**session, "messages": messages, "leaf": leaf, "bots": bots}


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
