"""The summaries of a session: texts that stand, in what bots are sent, for the messages up to some place.

Pure functions, as those of tree.py. The messages themselves stay as they are.
"""

from __future__ import annotations

import time

from ..errors import NotFound
from ..ids import new_id
from . import tree
from .schema import Document, Message, Session


def with_summary(session: Session, until: str, text: str) -> Session:
    """A summary of what was said up to the message `until`, in place of the one that is there."""
    tree.get(session, until)
    others = [summary for summary in session.get("summaries", []) if summary["until"] != until]
    made = {"id": new_id(), "until": until, "text": text, "created": time.time()}
    return {**session, "summaries": [*others, made]}


def without_summary(session: Session, summary_id: str) -> Session:
    """Bots are sent again what it stood for."""
    others = [summary for summary in session.get("summaries", []) if summary["id"] != summary_id]
    if len(others) == len(session.get("summaries", [])):
        raise NotFound("This summary is not there any more.")
    return {**session, "summaries": others}


def summary_on(session: Session, path: list[Message]) -> tuple[Document | None, int]:
    """The one that stands for the most of a path's beginning, and for how many messages; never for the last
    one, which is to be answered. (None, 0) where there is none."""
    places = {message["id"]: index + 1 for index, message in enumerate(path[:-1])}
    found = [summary for summary in session.get("summaries", []) if summary["until"] in places]
    best = max(found, key=lambda summary: places[summary["until"]], default=None)
    return best, 0 if best is None else places[best["until"]]

