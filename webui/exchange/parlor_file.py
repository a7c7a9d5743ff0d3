"""What Parlor itself wrote: an export with its bots, or a session's file."""

from __future__ import annotations

import time
from typing import Any

from ..ids import is_id, new_id
from ..storage.schema import BOT, MAX_REVISION, SESSION, Bot, Document, Session, check_whole

EXPORT_VERSION = 1


def bundle(session: Session, bots: list[Bot]) -> Document:
    """An export: everything there is of the session, and of these bots."""
    return {"parlor_export": EXPORT_VERSION, "session": session, "bots": bots}


def read_ours(data: dict[str, Any]) -> tuple[Session, list[Bot]]:
    """The session under a new id, and the bots that came with it. Raises ValueError."""
    bots: object = []
    session: object = data
    if "parlor_export" in data:
        if check_whole("parlor_export", data["parlor_export"], MAX_REVISION) > EXPORT_VERSION:
            raise ValueError(f"its export is of version {data['parlor_export']}; this Parlor reads up to "
                             f"{EXPORT_VERSION}")
        session, bots = data.get("session"), data.get("bots", [])
    if not isinstance(session, dict) or not isinstance(bots, list) or "messages" not in session:
        raise ValueError("it is no chat and no character that Parlor knows")
    now = time.time()
    session = {**SESSION.read(session), "id": new_id(), "revision": 1, "updated": now}
    # A file does not choose to which engine what is said goes.
    bots = [{**BOT.read(bot), "revision": 1, "created": now, "engine": None} for bot in bots]
    if not all(is_id(bot.get("id")) for bot in bots):
        raise ValueError("a bot in it has no proper id")
    if len({bot["id"] for bot in bots}) < len(bots):
        raise ValueError("it holds a bot twice")
    return session, bots
