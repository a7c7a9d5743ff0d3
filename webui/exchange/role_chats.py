"""Chats as messages of {role, content}, as OpenAI's protocol and many datasets have them.

A list of messages is one chat; a list of {"messages": [...]}, as lines of a .jsonl are, is one chat each.
"""

from __future__ import annotations

from typing import Any

from .. import strict_json
from ..storage import tree
from ..storage.schema import USER, Document, Message, Session
from .chat_parts import moment, text_of, without_thoughts
from .people import People

_LEFT_OUT = ("tool", "function")
_SYSTEM = ("system", "developer")


def is_role_chat(value: Any) -> bool:
    """Whether it is one chat."""
    return _messages(value) is not None


def read_role_chat(value: Any, people: People, title: str) -> Session:
    """The session. Raises ValueError."""
    messages: list[Message] = []
    system: list[str] = []
    for number, entry in enumerate(_messages(value) or [], start=1):
        where = f"message {number}"
        role = entry.get("role") if isinstance(entry, dict) else None
        if not isinstance(role, str):
            raise ValueError(f"{where} has no role")
        text = text_of(where, entry.get("content"))
        if role in _SYSTEM:
            system.append(text)
        elif role not in _LEFT_OUT:
            messages.append(_message(entry, role, text, people, messages[-1]["id"] if messages else None))
    session = people.session(title, messages, messages[-1]["id"] if messages else None)
    return {**session, "system_prompt": "\n\n".join(system)}


def role_line(session: Session) -> bytes:
    """The branch that is shown, as one line of a .jsonl file."""
    system = [{"role": "system", "content": session["system_prompt"]}] if session["system_prompt"] else []
    said = [_entry(message) for message in tree.path(session, session["leaf"])]
    return strict_json.dumps({"messages": [*system, *said]}) + b"\n"


def _entry(message: Message) -> Document:
    if message["author"] == USER:
        return {"role": "user", "content": message["text"]}
    thought = {"reasoning_content": message["thinking"]} if message["thinking"] else {}
    return {"role": "assistant", "name": message["name"], "content": message["text"], **thought}


def _message(entry: dict[str, Any], role: str, text: str, people: People, parent: str | None) -> Message:
    name = entry.get("name")
    text, thinking = without_thoughts(text) if role != "user" else (text, "")
    speaker = name if isinstance(name, str) else "" if role in ("assistant", "model", "bot") else role
    message = people.message(None if role == "user" else speaker, text, parent)
    reasoning = entry.get("reasoning_content")
    return {**message, "created": moment(entry.get("timestamp")),
            "thinking": reasoning if isinstance(reasoning, str) and not thinking else thinking}


def _messages(value: Any) -> list[Any] | None:
    """The messages of a chat, or None if it is none."""
    entries = value.get("messages") if isinstance(value, dict) else value
    if isinstance(entries, list) and entries and isinstance(entries[0], dict) and "role" in entries[0]:
        return entries
    return None
