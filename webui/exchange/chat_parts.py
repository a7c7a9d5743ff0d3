"""What chats of other programs have in common: texts in parts, thoughts in texts, moments however spelled,
and the order in which messages came."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from heapq import heapify, heappop, heappush
from html import escape, unescape
from typing import Any

from ..storage.schema import LAST_MOMENT, Message

_MILLISECONDS = 1e11  # a larger number of seconds would be in the year 5138
_HUMANIZED = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2}) ?@ ?(\d{1,2})h ?(\d{1,2})m(?: ?(\d{1,2})s)?(?: ?\d{1,3}ms)?")
_SPELLINGS = ("%B %d, %Y %I:%M%p", "%b %d, %Y %I:%M%p", "%Y-%m-%d %H:%M:%S")
_THOUGHT = re.compile(
    r"\s*<details type=\"reasoning\"[^>]*>\s*(?:<summary>[^<]*</summary>)?(.*?)</details>\s*", re.DOTALL)
_TAGGED = re.compile(r"\s*<(think|thinking)>(.*?)</\1>\s*", re.DOTALL)


def text_of(where: str, content: Any) -> str:
    """A message's text, which may come in parts; of pictures among them nothing. Raises ValueError."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"{where} has no text")
    texts = [part if isinstance(part, str) else part.get("text") for part in content
             if isinstance(part, str) or (isinstance(part, dict) and part.get("type", "text") == "text")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where} has a part without text")
    return "\n".join(texts)


def without_thoughts(text: str) -> tuple[str, str]:
    """(what is said, what was thought before it), where a text begins with its thoughts."""
    if found := _THOUGHT.match(text):
        lines = unescape(found[1]).strip().split("\n")
        thought = "\n".join(re.sub(r"^> ?", "", line) for line in lines)
    elif found := _TAGGED.match(text):
        thought = found[2]
    else:
        return text, ""
    return text[found.end():], thought.strip()


def with_thoughts(text: str, thinking: str) -> str:
    """A text that begins with its thoughts, as Open WebUI keeps them."""
    if not thinking:
        return text
    lines = "\n".join(f"> {line}" for line in thinking.split("\n"))
    summary = "<summary>Thought</summary>"
    return f'<details type="reasoning" done="true">\n{summary}\n{escape(lines)}\n</details>\n{text}'


def as_iso(seconds: float) -> str:
    """A moment as JavaScript writes it."""
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(value: Any, otherwise: float | None = None) -> float:
    """Seconds since 1970 of a time however it is written; `otherwise`, or now, where that cannot be told."""
    seconds = _seconds(value)
    if seconds is None or not 0 <= seconds <= LAST_MOMENT:
        return time.time() if otherwise is None else otherwise
    return seconds


def as_they_came(messages: list[Message]) -> list[Message]:
    """In the order of their times, and none before the one above it: what a bot knows that comes in later
    goes by that. A file has them in any order."""
    below: dict[str | None, list[int]] = {}
    there = {message["id"] for message in messages}
    for number, message in enumerate(messages):
        below.setdefault(message["parent"] if message["parent"] in there else None, []).append(number)
    ready = [(messages[number]["created"], number) for number in below.get(None, [])]
    heapify(ready)
    ordered: list[int] = []
    while ready:
        _, number = heappop(ready)
        ordered.append(number)
        for child in below.get(messages[number]["id"], []):
            heappush(ready, (messages[child]["created"], child))
    circles = sorted(set(range(len(messages))) - set(ordered))  # which the check of the session refuses
    return [messages[number] for number in [*ordered, *circles]]


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value / 1000 if value > _MILLISECONDS else float(value)
    if not isinstance(value, str) or len(value) > 100:
        return None
    if value.isascii() and value.isdigit():
        return _seconds(int(value))
    try:
        if found := _HUMANIZED.fullmatch(value.strip()):
            return datetime(*(int(part or 0) for part in found.groups())).timestamp()
        return datetime.fromisoformat(value.strip().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    for spelling in _SPELLINGS:
        try:
            return datetime.strptime(value.strip(), spelling).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return None
