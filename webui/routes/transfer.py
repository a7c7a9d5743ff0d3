"""Routes that take a session out of Parlor, and sessions and bots into it: files of ours and of others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from .. import strict_json
from ..errors import BadRequest, NotFound
from ..exchange.character_card import card_in_png
from ..exchange.html_page import html_page
from ..exchange.incoming import read_incoming
from ..exchange.open_webui import open_webui_chats
from ..exchange.parlor_file import bundle
from ..exchange.role_chats import role_line
from ..exchange.sillytavern import sillytavern_lines
from ..exchange.transcript import markdown
from ..ids import check_id, new_id
from ..storage.history import without_history
from ..storage.schema import MAX_TITLE, SESSION, Bot, Session
from ..storage.store import Store
from .attachment import attachment
from .body import read_body
from .bots import as_kept, shown_bot
from .parlor import parlor

MAX_FILE_NAME = 1_000

_FOR_OTHERS: dict[str, tuple[Callable[[Session, list[Bot]], bytes], str, str]] = {
    "sillytavern": (sillytavern_lines, "application/jsonl", "jsonl"),
    "openwebui": (lambda session, _bots: open_webui_chats(session), "application/json", "json"),
    "messages": (lambda session, _bots: role_line(session), "application/jsonl", "jsonl")}
"""How a session is written for other programs, as what, and how the file's name ends."""

bp = Blueprint("transfer", __name__, url_prefix="/api/sessions")


@bp.get("/<session_id>/export")
def export_session(session_id: str) -> ResponseReturnValue:
    """The session as a file: json has everything and its bots, markdown and html what is shown; sillytavern,
    openwebui and messages are for other programs."""
    session = parlor().store.session(check_id(session_id, "session"))
    bots = bots_of(parlor().store, session)
    kind = request.args.get("format", "json")
    if kind == "json":
        whole = bundle(session, bots)
        data, mimetype, suffix = strict_json.pretty(whole), "application/json", "json"
    elif kind == "markdown":
        data, suffix = markdown(session, bots).encode("utf-8"), "md"
        mimetype = "text/markdown; charset=utf-8"
    elif kind == "html":
        data, suffix = html_page(session, bots).encode("utf-8"), "html"
        mimetype = "text/html; charset=utf-8"
    elif kind in _FOR_OTHERS:
        write, mimetype, suffix = _FOR_OTHERS[kind]
        data = write(session, bots)
    else:
        raise BadRequest(f"format is {kind[:60]!r}; expected json, markdown, html, "
                         f"{', '.join(_FOR_OTHERS)}.")
    return attachment(data, mimetype, session["title"], suffix)


@bp.post("/import")
def import_session() -> ResponseReturnValue:
    """A new session, or a new bot, from a file of ours or of another program: see exchange/incoming.py.

    `data` is the file as JSON, `png` a picture with a character in it, in base64, and `picture` that picture,
    or the one that a character as JSON carries, as small as a bot's may be (without it the bot has none).
    Everything is checked before anything is saved: all of it is good, or none of it is taken. `unknown` says
    what becomes of bots that are not here: they are made ("make"), or told and nothing is taken ("ask"), or
    only what they said comes in ("keep").
    """
    with read_body() as body:
        png = body.has("png")
        data = body.value("png" if png else "data")
        picture = body.value("picture") if body.has("picture") else ""
        title = body.text("title", most=MAX_TITLE, default="").strip()
        file = body.text("file", most=MAX_FILE_NAME, default="")
        unknown = body.text("unknown", most=20, default="make")
    if unknown not in ("make", "ask", "keep"):
        raise BadRequest(f"unknown is {unknown!r}; expected make, ask or keep.")
    store = parlor().store
    try:
        value = card_in_png(strict_json.from_base64("it", data)) if png else data
        found = read_incoming(value, store.known_bots(), title or _title_of(file))
    except ValueError as error:
        raise BadRequest(f"{_name(file)[:MAX_TITLE] or 'This file'} cannot be taken: {error}.") from None
    if found.card:
        found.card.bot["picture"] = as_kept(picture)
        store.add_bots([found.card.bot])
        said = {name: getattr(found.card, name) for name in ("name", "taken", "kept", "left")}
        return {"session": None, "bot": shown_bot(found.card.bot), **said}, 201
    missing = [bot for bot in found.bots if not store.bots.exists(bot["id"])]
    if missing and unknown == "ask":
        return {"session": None, "unknown_bots": [bot["name"] for bot in missing]}
    sessions = store.take_in(found.sessions, missing if unknown == "make" else [])
    return {"session": parlor().showing.present(sessions[0]), "number": len(sessions)}, 201


@bp.post("/<session_id>/duplicate")
def duplicate_session(session_id: str) -> ResponseReturnValue:
    """A copy under a new id, with every version of every message."""
    with read_body():
        pass
    session = parlor().store.session(check_id(session_id, "session"))
    title = f"{session['title'][:MAX_TITLE - 10]} (copy)"
    copy = {**without_history(session), "id": new_id(), "revision": 1, "title": title, "title_is_auto": False,
            "created": time.time(), "updated": time.time(), "schema_version": SESSION.version}
    return {"session": parlor().showing.present(parlor().store.add_session(copy))}, 201


def bots_of(store: Store, session: Session) -> list[Bot]:
    """Those of its bots that are still here; messages of others carry their names."""
    bots = []
    for entry in session["bots"]:
        with suppress(NotFound):
            bots.append(store.bots.get(entry["id"]))
    return bots


def _title_of(file: str) -> str:
    """A title from the name of a file, which may be a path of any system."""
    return re.sub(r"\.(?:jsonl?|png)$", "", _name(file))[:MAX_TITLE].strip() or "Imported session"


def _name(path: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", re.split(r"[/\\]", path)[-1]).split())
