"""Chats as Open WebUI exports them: one, or a list of all; each a tree of messages, which stays a tree.

Fields as its page keeps them:
https://github.com/open-webui/open-webui/blob/main/src/lib/components/chat/Chat.svelte
"""

from __future__ import annotations

from typing import Any

from .. import strict_json
from ..ids import new_id
from ..storage import tree
from ..storage.schema import MAX_MODEL_NAME, MAX_TITLE, USER, Document, Message, Session
from .chat_parts import as_they_came, moment, text_of, with_thoughts, without_thoughts
from .people import People


def is_open_webui(value: Any) -> bool:
    """Whether it is one chat."""
    return _history(value) is not None


def read_open_webui(value: Any, people: People, title: str) -> Session:
    """The session. Raises ValueError."""
    chat = value.get("chat", value)
    history = _history(value) or {}
    entries = history["messages"]
    ids = {key: new_id() for key in entries}
    messages: list[Message] = []
    for key, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
            raise ValueError(f"message {key[:60]} has no role")
        message = _message(key, entry, people)
        parent = entry.get("parentId")
        above = ids.get(parent) if isinstance(parent, str) else None
        messages.append({**message, "id": ids[key], "parent": above})
    messages = as_they_came(messages)
    current = history.get("currentId", history.get("current_id"))
    leaf = ids.get(current) if isinstance(current, str) else None
    name = chat.get("title") or value.get("title")
    name = " ".join(name.split())[:MAX_TITLE].strip() if isinstance(name, str) else ""
    session = people.session(name or title, messages, leaf or (messages[-1]["id"] if messages else None))
    params = chat.get("params")
    prompt = params.get("system") if isinstance(params, dict) else chat.get("system")
    if isinstance(prompt, str):
        session["system_prompt"] = prompt
    begun = moment(value.get("created_at", chat.get("timestamp")))
    return {**session, "created": begun, "updated": moment(value.get("updated_at"), begun)}


def open_webui_chats(session: Session) -> bytes:
    """The session as Open WebUI's export of one chat, with every branch."""
    children: dict[str | None, list[str]] = {}
    for message in session["messages"]:
        children.setdefault(message["parent"], []).append(message["id"])
    entries = {message["id"]: _entry(message, children.get(message["id"], []))
               for message in session["messages"]}
    shown = [entries[message["id"]] for message in tree.path(session, session["leaf"])]
    models = list(dict.fromkeys(entry["model"] for entry in entries.values() if "model" in entry))
    chat = {"title": session["title"], "models": models, "params": {"system": session["system_prompt"]},
            "history": {"messages": entries, "currentId": session["leaf"]}, "messages": shown, "tags": [],
            "timestamp": round(session["created"] * 1000), "files": []}
    begun, updated = round(session["created"]), round(session["updated"])
    return strict_json.dumps([{"id": session["id"], "title": session["title"], "chat": chat, "meta": {},
                               "created_at": begun, "updated_at": updated, "pinned": False,
                               "archived": False}])


def _entry(message: Message, children: list[str]) -> Document:
    """A bot is a model's name there; which model it spoke by stays where it can be told."""
    entry = {"id": message["id"], "parentId": message["parent"], "childrenIds": children,
             "timestamp": round(message["created"])}
    if message["author"] == USER:
        return {**entry, "role": "user", "content": message["text"]}
    return {**entry, "role": "assistant", "content": with_thoughts(message["text"], message["thinking"]),
            "model": message.get("model") or "parlor", "modelName": message["name"], "done": True}


def _message(key: str, entry: dict[str, Any], people: People) -> Message:
    """Without its place in the tree."""
    text = text_of(f"message {key[:60]}", entry.get("content"))
    is_user = entry["role"] == "user"
    model, shown = entry.get("model"), entry.get("modelName")
    text, thinking = (text, "") if is_user else without_thoughts(text)
    name = shown if isinstance(shown, str) and shown != model else ""  # else it is no name that somebody gave
    message = {**people.message(None if is_user else name, text, None), "thinking": thinking,
               "created": moment(entry.get("timestamp"))}
    if isinstance(model, str) and model and not is_user:
        message["model"] = model[:MAX_MODEL_NAME]
    return message


def _history(value: Any) -> dict[str, Any] | None:
    """The tree of a chat, or None if it is none."""
    chat = value.get("chat", value) if isinstance(value, dict) else None
    history = chat.get("history") if isinstance(chat, dict) else None
    return history if isinstance(history, dict) and isinstance(history.get("messages"), dict) else None
