"""What Parlor itself wrote: an export of one session or of several, with their bots, or a session's file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import strict_json
from ..ids import is_id, new_id
from ..storage.history import without_history
from ..storage.schema import BOT, MAX_REVISION, SESSION, Bot, Document, Session, check_whole

EXPORT_VERSION = 1


def bundle(session: Session, bots: list[Bot]) -> Document:
    """An export: everything there is of the session, and of these bots."""
    return {"parlor_export": EXPORT_VERSION, "session": without_history(session), "bots": bots}


def parts_of_bundle(sessions: Iterable[Session], bots_of: Callable[[Session], list[Bot]]) -> Iterator[bytes]:
    """An export of several sessions, piece by piece: one session a line, and each bot once."""
    bots: dict[str, Bot] = {}
    before = b'{"parlor_export": %d,\n "sessions": [\n' % EXPORT_VERSION
    for session in sessions:
        yield before + strict_json.dumps(without_history(session))
        bots |= {bot["id"]: bot for bot in bots_of(session)}
        before = b",\n"
    if before != b",\n":
        yield before
    yield b'],\n "bots": ' + strict_json.dumps(list(bots.values())) + b"}\n"


def read_ours(data: dict[str, Any]) -> tuple[list[Session], list[Bot]]:
    """The sessions under new ids, and the bots that came with them. Raises ValueError."""
    bots: object = []
    sessions: object = [data]
    if "parlor_export" in data:
        if check_whole("parlor_export", data["parlor_export"], MAX_REVISION) > EXPORT_VERSION:
            raise ValueError(f"its export is of version {data['parlor_export']}; this Parlor reads up to "
                             f"{EXPORT_VERSION}")
        sessions, bots = data.get("sessions", [data.get("session")]), data.get("bots", [])
    if not isinstance(sessions, list) or not isinstance(bots, list) or not sessions or not all(
            isinstance(session, dict) and "messages" in session for session in sessions):
        raise ValueError("it is no chat and no character that Parlor knows")
    now = time.time()
    several = len(sessions) > 1
    taken = []
    for number, session in enumerate(sessions, start=1):
        try:
            read = {**without_history(SESSION.read(session)), "id": new_id(), "revision": 1}
        except ValueError as error:
            raise ValueError(f"session {number}: {error}" if several else str(error)) from None
        # Of several, each keeps its place in the list; one alone is at its top, where it is looked for.
        taken.append(read if several else {**read, "updated": now})
    # A file does not choose to which engine what is said goes.
    bots = [{**BOT.read(bot), "revision": 1, "created": now, "engine": None} for bot in bots]
    if not all(is_id(bot.get("id")) for bot in bots):
        raise ValueError("a bot in it has no proper id")
    if len({bot["id"] for bot in bots}) < len(bots):
        raise ValueError("it holds a bot twice")
    return taken, bots
