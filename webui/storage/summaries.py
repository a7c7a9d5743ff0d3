"""The summaries of a session: texts that stand, in what bots are sent, for the messages up to some place.

Pure functions, as those of tree.py. The messages themselves stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from ..errors import NotFound
from ..ids import new_id
from . import tree
from .audience import before_arrival, check_there, is_for
from .schema import Document, Message, Session


def with_summary(session: Session, until: str, text: str, readers: list[str] | None = None) -> Session:
    """A summary of what was said up to the message `until`, in place of the one that is there; for these bots
    only, None: for all."""
    tree.get(session, until)
    check_there(session, readers)
    others = [summary for summary in session.get("summaries", [])
              if summary["until"] != until or sorted(summary.get("for") or []) != sorted(readers or [])]
    made = {"id": new_id(), "until": until, "text": text, "created": time.time()}
    return {**session, "summaries": [*others, made if readers is None else {**made, "for": readers}]}


def without_summary(session: Session, summary_id: str) -> Session:
    """Bots are sent again what it stood for."""
    others = [summary for summary in session.get("summaries", []) if summary["id"] != summary_id]
    if len(others) == len(session.get("summaries", [])):
        raise NotFound("This summary is not there any more.")
    return {**session, "summaries": others}


def summary_on(session: Session, path: list[Message],
               readers: Collection[str] | None) -> tuple[Document | None, int]:
    """The one that stands for the most of a path's beginning, of those that each of `readers` may know (None:
    of those for all), and for how many messages; never for the last one, which is to be answered. (None, 0)
    where there is none."""
    places = {message["id"]: index + 1 for index, message in enumerate(path[:-1])}
    found = [summary for summary in session.get("summaries", []) if _is_told(summary, readers)]
    return _longest(found, places)


def told_to(session: Session, path: list[Message], bot_id: str) -> tuple[Document | None, int]:
    """The summary that this bot is sent, as summary_on(). Of what was before it came in a bot is told in
    short if there is a summary for it; and then any other, too."""
    unknown = before_arrival(session, bot_id)
    places = {message["id"]: index + 1 for index, message in enumerate(path)
              if index < len(path) - 1 or message["id"] in unknown}
    found = [summary for summary in session.get("summaries", [])
             if summary["until"] in places and _is_told(summary, [bot_id])]
    if unknown and all(summary.get("for") is None for summary in found):
        found = []
    return _longest(found, places)


def _is_told(summary: Document, readers: Collection[str] | None) -> bool:
    return summary.get("for") is None or (readers is not None and set(readers) <= set(summary["for"]))


def stands_for(summary: Document, message: Message) -> bool:
    """Whether a message that it covers may be in it: a whisper is in no summary that others are told."""
    return is_for(message, summary.get("for"))


def _longest(summaries: list[Document], places: dict[str, int]) -> tuple[Document | None, int]:
    found = [summary for summary in summaries if summary["until"] in places]
    best = max(found, key=lambda one: (places[one["until"]], one.get("for") is not None), default=None)
    return best, 0 if best is None else places[best["until"]]
