"""Routes that take a session out of Parlor and into it: JSON (ours, ExLlama's); Markdown and HTML to read."""

from __future__ import annotations

import re
import time
import unicodedata
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from .. import strict_json
from ..errors import BadRequest, NotFound
from ..exchange.exllama import is_exllama, read_exllama
from ..exchange.html_page import html_page
from ..exchange.transcript import markdown
from ..ids import check_id, is_id, new_id
from ..storage.schema import (
    BOT,
    MAX_REVISION,
    MAX_TITLE,
    SESSION,
    Bot,
    Document,
    Session,
    check_whole,
)
from .body import read_body
from .parlor import parlor

EXPORT_VERSION = 1
MAX_FILE_NAME = 1_000
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the dot."""

bp = Blueprint("transfer", __name__, url_prefix="/api/sessions")


@bp.get("/<session_id>/export")
def export_session(session_id: str) -> ResponseReturnValue:
    """The session as a file: json has everything and its bots, markdown and html what is shown."""
    session = parlor().store.session(check_id(session_id, "session"))
    kind = request.args.get("format", "json")
    if kind == "json":
        data, mimetype, suffix = strict_json.pretty(_bundle(session)), "application/json", "json"
    elif kind == "markdown":
        data, mimetype, suffix = markdown(session).encode("utf-8"), "text/markdown; charset=utf-8", "md"
    elif kind == "html":
        data, mimetype, suffix = html_page(session).encode("utf-8"), "text/html; charset=utf-8", "html"
    else:
        raise BadRequest(f"format is {kind[:60]!r}; expected json, markdown or html.")
    response = Response(data, content_type=mimetype)
    response.headers["Content-Disposition"] = _attachment(session["title"], suffix)
    return response


@bp.post("/import")
def import_session() -> ResponseReturnValue:
    """A new session from an export of ours, a session file of ours, or a session file of ExLlama's.

    Everything is checked before anything is saved: all of it is good, or none of it is taken. `unknown` says
    what becomes of bots that are not here: they are made ("make"), or told and nothing is taken ("ask"), or
    only what they said comes in ("keep").
    """
    with read_body() as body:
        data = body.value("data")
        title = body.text("title", most=MAX_TITLE, default="").strip()
        file = body.text("file", most=MAX_FILE_NAME, default="")
        unknown = body.text("unknown", most=20, default="make")
    if unknown not in ("make", "ask", "keep"):
        raise BadRequest(f"unknown is {unknown!r}; expected make, ask or keep.")
    if not isinstance(data, dict):
        raise BadRequest("This file holds no session.")
    store = parlor().store
    try:
        if is_exllama(data):
            session, bots = read_exllama(data, store.known_bots(), title or _title_of(file))
            SESSION.check(session)
        else:
            session, bots = _read_ours(data)
    except ValueError as error:
        raise BadRequest(f"The session cannot be taken: {error}.") from None
    missing = [bot for bot in bots if not store.bots.exists(bot["id"])]
    if missing and unknown == "ask":
        return {"session": None, "unknown_bots": [bot["name"] for bot in missing]}
    session = store.take_in(session, missing if unknown == "make" else [])
    return {"session": parlor().showing.present(session)}, 201


@bp.post("/<session_id>/duplicate")
def duplicate_session(session_id: str) -> ResponseReturnValue:
    """A copy under a new id, with every version of every message."""
    with read_body():
        pass
    session = parlor().store.session(check_id(session_id, "session"))
    title = f"{session['title'][:MAX_TITLE - 10]} (copy)"
    copy = {**session, "id": new_id(), "revision": 1, "title": title, "title_is_auto": False,
            "created": time.time(), "updated": time.time(), "schema_version": SESSION.version}
    return {"session": parlor().showing.present(parlor().store.add_session(copy))}, 201


def _bundle(session: Session) -> Document:
    bots = []
    for entry in session["bots"]:
        try:
            bots.append(parlor().store.bots.get(entry["id"]))
        except NotFound:
            continue  # it was deleted; its messages carry its name
    return {"parlor_export": EXPORT_VERSION, "session": session, "bots": bots}


def _title_of(file: str) -> str:
    """A title from the name of a file, which may be a path of any system."""
    stem = re.split(r"[/\\]", file)[-1].removesuffix(".json")
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", stem).split())[:MAX_TITLE].strip() or "Imported session"


def _read_ours(data: dict[str, Any]) -> tuple[Session, list[Bot]]:
    """The session under a new id, and the bots that came with it. Raises ValueError."""
    bots: object = []
    session: object = data
    if "parlor_export" in data:
        if check_whole("parlor_export", data["parlor_export"], MAX_REVISION) > EXPORT_VERSION:
            raise ValueError(f"its export is of version {data['parlor_export']}; this Parlor reads up to "
                             f"{EXPORT_VERSION}")
        session, bots = data.get("session"), data.get("bots", [])
    if not isinstance(session, dict) or not isinstance(bots, list) or "messages" not in session:
        raise ValueError("it is neither of Parlor nor of ExLlama")
    now = time.time()
    session = {**SESSION.read(session), "id": new_id(), "revision": 1, "updated": now}
    # A file does not choose to which engine what is said goes.
    bots = [{**BOT.read(bot), "revision": 1, "created": now, "engine": None} for bot in bots]
    if not all(is_id(bot.get("id")) for bot in bots):
        raise ValueError("a bot in it has no proper id")
    if len({bot["id"] for bot in bots}) < len(bots):
        raise ValueError("it holds a bot twice")
    return session, bots


def _attachment(title: str, suffix: str) -> str:
    """A header with the title as file name: plain ASCII for old programs, and all of it for the others."""
    clean = re.sub(r"[^\w .()-]+", "_", title)[:80].strip(" .") or "session"
    if _DEVICE.match(clean):
        clean = f"_{clean}"
    plain = unicodedata.normalize("NFKD", clean).encode("ascii", "ignore").decode().strip() or "session"
    return f"attachment; filename=\"{plain}.{suffix}\"; filename*=UTF-8''{quote(clean)}.{suffix}"
