"""Chats of SillyTavern: lines of JSON, of which the first may tell of the chat.

A message's `swipes` are its versions, `swipe_id` the one that is shown. Fields as its saveChat() writes them:
https://github.com/SillyTavern/SillyTavern/blob/release/public/script.js
"""

from __future__ import annotations

from typing import Any

from .. import strict_json
from ..storage import tree
from ..storage.names import clean_name
from ..storage.schema import DEFAULT_USER_NAME, MAX_MODEL_NAME, USER, Bot, Document, Message, Session
from .chat_parts import as_iso, as_they_came, moment
from .people import People

MAX_SWIPES = 200
_NOBODY = ("", "unused", "You")  # names that stand for none


def is_sillytavern(lines: list[Any]) -> bool:
    first = lines[0] if lines else None
    return isinstance(first, dict) and ("chat_metadata" in first or "user_name" in first or "mes" in first)


def read_sillytavern(lines: list[Any], people: People, title: str) -> Session:
    """The session. Raises ValueError."""
    about = {} if "mes" in lines[0] else lines[0]
    users = [about.get("user_name")]
    messages: list[Message] = []
    leaf: str | None = None
    for number, line in enumerate(lines[1:] if about else lines, start=2 if about else 1):
        if not isinstance(line, dict) or not isinstance(line.get("mes"), str):
            raise ValueError(f"line {number} is no message of SillyTavern's (it has no text \"mes\")")
        is_user = line.get("is_user") is True
        if is_user:
            users.append(line.get("name"))
        name = None if is_user else line.get("name") or about.get("character_name")
        versions, shown = _versions(line, None if is_user else str(name or ""), people, leaf)
        messages += versions
        leaf = versions[shown]["id"]
    names = [clean_name(name) for name in users if isinstance(name, str)]
    session = people.session(title, as_they_came(messages), leaf)
    return {**session, "user_name": next((name for name in names if name not in _NOBODY), "")}


def sillytavern_lines(session: Session, bots: list[Bot]) -> bytes:
    """The branch that is shown, as a file of SillyTavern's: a bot's other versions of a reply are swipes."""
    user = session["user_name"] or DEFAULT_USER_NAME
    about = {"user_name": user, "character_name": bots[0]["name"] if bots else "",
             "create_date": as_iso(session["created"]), "chat_metadata": {}}
    lines = [about, *(_line(session, message, user) for message in tree.path(session, session["leaf"]))]
    return b"".join(strict_json.dumps(line) + b"\n" for line in lines)


def _line(session: Session, message: Message, user: str) -> Document:
    is_user = message["author"] == USER
    line = {"name": user if is_user else message["name"], "is_user": is_user, "is_system": False,
            "send_date": as_iso(message["created"]), "mes": message["text"], "extra": _extra(message)}
    versions = [other for other in session["messages"]
                if other["parent"] == message["parent"] and other["author"] == message["author"]]
    if is_user or len(versions) == 1:
        return line
    return {**line, "swipe_id": versions.index(message), "swipes": [other["text"] for other in versions],
            "swipe_info": [{"send_date": as_iso(other["created"]), "extra": _extra(other)}
                           for other in versions]}


def _extra(message: Message) -> dict[str, str]:
    extra = {"reasoning": message["thinking"], "model": message.get("model", "")}
    return {name: value for name, value in extra.items() if value}


def _versions(line: dict[str, Any], name: str | None, people: People,
              parent: str | None) -> tuple[list[Message], int]:
    """The versions of a message, and which of them is shown."""
    swipes = line.get("swipes")
    swipes = swipes if isinstance(swipes, list) else []
    texts = [text for text in swipes if isinstance(text, str)][:MAX_SWIPES]
    shown = line.get("swipe_id")
    if isinstance(shown, bool) or not isinstance(shown, int) or not 0 <= shown < len(texts):
        shown = texts.index(line["mes"]) if line["mes"] in texts else len(texts)
    texts[shown:shown + 1] = [line["mes"]]  # which may have been edited since
    about = line.get("swipe_info")
    about = about if isinstance(about, list) else []
    created = moment(line.get("send_date"))
    versions = []
    for number, text in enumerate(texts):
        info = about[number] if number < len(about) and isinstance(about[number], dict) else line
        message = people.message(name, text, parent)
        extra = info.get("extra") if isinstance(info.get("extra"), dict) else {}
        thinking, model = extra.get("reasoning"), extra.get("model")
        message |= {"created": moment(info.get("send_date"), created),
                    "thinking": thinking if isinstance(thinking, str) else ""}
        if isinstance(model, str) and model and name is not None:
            message["model"] = model[:MAX_MODEL_NAME]
        versions.append(message)
    return versions, shown
