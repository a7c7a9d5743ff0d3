"""Sessions of ExLlama's web UI (2023), read into ours.

Keys and their meaning: https://github.com/turboderp/exllama/blob/02ff9533e0116a6741d2ac3db999d940d634307b/webui/session.py
Off is 0 there and 1 here for top_p and typical; a range of -1 is the whole context there, 0 here.
Pure functions: the caller saves what comes out.
"""

from __future__ import annotations

from typing import Any

from ..sampling import PARAMETER_SPECS, Changes
from ..storage.names import clean_name
from ..storage.schema import DEFAULT_USER_NAME, MAX_PROMPT, MAX_TEXT, USER, Message, Session, new_message
from .people import People

_NAMES = {"temperature": "temperature", "top_p": "top_p", "min_p": "min_p", "top_k": "top_k",
          "typical": "typical_p", "max_response_tokens": "max_new_tokens",
          "token_repetition_penalty_max": "repetition_penalty",
          "token_repetition_penalty_sustain": "repetition_range",
          "token_repetition_penalty_decay": "repetition_decay"}


def is_exllama(data: dict[str, Any]) -> bool:
    return isinstance(data.get("history"), list) and "messages" not in data


def read_exllama(data: dict[str, Any], people: People, title: str) -> Session:
    """The session. Raises ValueError."""
    participants = data.get("participants", [])
    if not isinstance(participants, list) or not all(isinstance(name, str) for name in participants):
        raise ValueError("participants is not a list of names")
    user, names = clean_name(participants[0] if participants else ""), participants[1:]
    names += [entry.get("author") for entry in data["history"] if isinstance(entry, dict)]
    for name in names:
        if isinstance(name, str) and clean_name(name) not in ("", user):
            people.bot(clean_name(name))
    messages: list[Message] = []
    for index, entry in enumerate(data["history"]):
        messages.append(_message(entry, index, user, people, messages[-1]["id"] if messages else None))
    session = people.session(title, messages, messages[-1]["id"] if messages else None)
    return {**session, "user_name": user, "sampling": _sampling(data), "system_prompt": _fixed_prompt(data)}


def _message(entry: Any, index: int, user: str, people: People, parent: str | None) -> Message:
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or len(entry["text"]) > MAX_TEXT:
        raise ValueError(f"history[{index}] has no text of at most {MAX_TEXT:,} characters")
    name = clean_name(entry["author"]) if isinstance(entry.get("author"), str) else user
    text = entry["text"].strip().removeprefix(f"{name}:").strip()
    if name in ("", user):
        return new_message(USER, name or DEFAULT_USER_NAME, text, parent)
    return people.message(name, text, parent)


def _fixed_prompt(data: dict[str, Any]) -> str:
    prompt = data.get("fixed_prompt")
    text = prompt.get("text") if isinstance(prompt, dict) else prompt
    return text[:MAX_PROMPT] if isinstance(text, str) and data.get("keep_fixed_prompt", True) else ""


def _sampling(data: dict[str, Any]) -> Changes:
    changes: Changes = {}
    for theirs, ours in _NAMES.items():
        value = data.get(theirs)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if theirs in ("top_p", "typical") and value == 0:
            value = 1.0
        spec = PARAMETER_SPECS[ours]
        value = min(max(value, spec["min"]), spec["max"])
        value = int(value) if spec["type"] == "int" else float(value)
        if value != spec["default"]:
            changes[ours] = value
    if data.get("break_on_newline") is True:
        changes["stop"] = ["\n"]
    return changes
