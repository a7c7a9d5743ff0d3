"""Routes that take a session out of Parlor and into it: JSON (ours, ExLlama's), Markdown for reading."""

from __future__ import annotations

import re
import time
import unicodedata
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from .. import strict_json
from ..chat.bot_view import user_name
from ..errors import BadRequest, NotFound
from ..ids import check_id, is_id, new_id
from ..storage import tree
from ..storage.exllama import is_exllama, read_exllama
from ..storage.schema import BOT, MAX_TITLE, SESSION, USER, Bot, Document, Session
from .body import read_body
from .parlor import parlor

EXPORT_VERSION = 1

bp = Blueprint("transfer", __name__, url_prefix="/api/sessions")


@bp.get("/<session_id>/export")
def export_session(session_id: str) -> ResponseReturnValue:
    """The session as a file: `format` is json (everything, with its bots) or markdown (what is shown)."""
    session = parlor().store.session(check_id(session_id, "session"))
    kind = request.args.get("format", "json")
    if kind == "json":
        data, mimetype, suffix = strict_json.pretty(_bundle(session)), "application/json", "json"
    elif kind == "markdown":
        data, mimetype, suffix = markdown(session).encode("utf-8"), "text/markdown; charset=utf-8", "md"
    else:
        raise BadRequest("format is neither json nor markdown.")
    response = Response(data, content_type=mimetype)
    response.headers["Content-Disposition"] = _attachment(session["title"], suffix)
    return response


@bp.post("/import")
def import_session() -> ResponseReturnValue:
    """A new session from an export of ours, a session file of ours, or a session file of ExLlama's."""
    with read_body() as body:
        data = body.value("data")
        title = body.text("title", most=MAX_TITLE, default="").strip()
    if not isinstance(data, dict):
        raise BadRequest("data is not a session.")
    if is_exllama(data):
        session, bots = read_exllama(data, parlor().store.known_bots(), title or "Imported session")
    else:
        session, bots = _read_ours(data)
    _check_all(session, bots)
    for bot in bots:
        _add_bot(bot)
    return {"session": parlor().chat.present(parlor().store.add_session(session))}, 201


@bp.post("/<session_id>/duplicate")
def duplicate_session(session_id: str) -> ResponseReturnValue:
    """A copy under a new id, with every version of every message."""
    with read_body():
        pass
    session = parlor().store.session(check_id(session_id, "session"))
    title = f"{session['title'][:MAX_TITLE - 10]} (copy)"
    copy = {**session, "id": new_id(), "revision": 1, "title": title, "title_is_auto": False,
            "created": time.time(), "updated": time.time(), "schema_version": SESSION.version}
    return {"session": parlor().chat.present(parlor().store.add_session(copy))}, 201


def markdown(session: Session) -> str:
    """What is shown of the session, for reading."""
    parts = [f"# {session['title']}"]
    for message in tree.path(session, session["leaf"]):
        name = user_name(session) if message["author"] == USER else message["name"]
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(message["created"]))
        parts.append(f"**{name}** · {written}\n\n{message['text']}")
    return "\n\n".join(parts) + "\n"


def _bundle(session: Session) -> Document:
    bots = []
    for entry in session["bots"]:
        try:
            bots.append(parlor().store.bots.get(entry["id"]))
        except NotFound:
            continue  # it was deleted; its messages carry its name
    return {"parlor_export": EXPORT_VERSION, "session": session, "bots": bots}


def _read_ours(data: dict[str, Any]) -> tuple[Session, list[Bot]]:
    """The session under a new id, and its bots that are not here."""
    session = data.get("session", data) if "parlor_export" in data else data
    bots = data.get("bots", []) if "parlor_export" in data else []
    if not isinstance(session, dict) or not isinstance(bots, list) or "messages" not in session:
        raise BadRequest("This is neither a session of Parlor nor one of ExLlama.")
    try:
        version = session.get("schema_version")
        if not isinstance(version, int) or version > SESSION.version:
            raise ValueError(f"it is of version {version}; this Parlor reads up to {SESSION.version}")
        session = SESSION.upgrade(session)
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"The session cannot be read: {error}.") from None
    here = {bot["id"] for bot in parlor().store.known_bots()}
    missing = [bot for bot in bots
               if isinstance(bot, dict) and is_id(bot.get("id")) and bot["id"] not in here]
    return {**session, "id": new_id(), "revision": 1, "updated": time.time()}, missing


def _check_all(session: Session, bots: list[Bot]) -> None:
    """Before anything is saved: all of it is good, or none of it is taken."""
    try:
        SESSION.check(session)
        for bot in bots:
            BOT.check(bot)
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"The session cannot be taken: {error}.") from None


def _add_bot(bot: Bot) -> None:
    parlor().store.bots.create({**bot, "revision": 1, "schema_version": BOT.version, "created": time.time()})
    parlor().store.changes.touch_bots()


def _attachment(title: str, suffix: str) -> str:
    """A header with the title as file name: plain ASCII for old programs, and all of it for the others."""
    clean = re.sub(r"[^\w .()-]+", "_", title).strip(" .")[:80] or "session"
    plain = unicodedata.normalize("NFKD", clean).encode("ascii", "ignore").decode().strip() or "session"
    return f"attachment; filename=\"{plain}.{suffix}\"; filename*=UTF-8''{quote(clean)}.{suffix}"
