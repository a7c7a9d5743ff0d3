"""Routes of sessions and their messages. A route checks, calls one thing, answers."""

from __future__ import annotations

import time

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from ..chat.chat import HERE, Said
from ..chat.greetings import Beginning
from ..errors import BadRequest
from ..ids import check_id, new_id
from ..storage.arrangement import FIELDS, MAX_LABEL
from ..storage.schema import (
    MAX_BOTS,
    MAX_GREETINGS,
    MAX_NAME,
    MAX_PROMPT,
    MAX_REPLY,
    MAX_REVISION,
    MAX_TEXT,
    MAX_TITLE,
    UNTITLED,
    Document,
    Session,
)
from ..storage.store import MAX_KNOWN_BOTS
from ..storage.tree import get, newest_descendant, with_label
from .body import Body, read_body
from .parlor import parlor, vocab_size
from .replies import whole

MAX_TURNS = 50
MAX_CHOICE = 1_000  # hex digits of a token
MAX_SEARCH = 200
KNOWN_REVISION = "Known-Revision"  # a header: what the page has whole
HOLD_SECONDS = 15.0  # the page asks again every five; a closed tab does not

_SETTINGS = ("bots", "user_name", "user_persona", "system_prompt", "note", "lore", "turn_order", "preset")

bp = Blueprint("sessions", __name__, url_prefix="/api/sessions")


@bp.get("")
def list_sessions() -> ResponseReturnValue:
    """All sessions, the latest first; with `q`, those that hold its words and have its tags, each with a
    snippet."""
    text = request.args.get("q", "")[:MAX_SEARCH]
    words = {"words": parlor().store.asked(text)[0]} if text.strip() else {}
    return {"sessions": parlor().showing.summaries(text), "problems": parlor().store.problems, **words}


@bp.post("")
def create_session() -> ResponseReturnValue:
    with read_body() as body:
        bots = body.ids("bots", MAX_BOTS)
        title = body.text("title", most=MAX_TITLE, default="").strip()
        beginning = _beginning(body)
    return answer_with(parlor().chat.create(bots, title, beginning)), 201


@bp.post("/greetings")
def read_greetings() -> ResponseReturnValue:
    """With what a session of these bots would begin now, if it is made with the same `seed`: all greetings of
    each bot, by its id."""
    with read_body() as body:
        ids = body.ids("bots", MAX_BOTS) or []
        beginning = _beginning(body)
    bots = [bot for bot in parlor().store.known_bots() if bot["id"] in ids]
    now = time.time()
    return {"greetings": {bot["id"]: beginning.spoken(bot, len(ids) > 1, now) for bot in bots}}


@bp.get("/<session_id>")
def read_session(session_id: str) -> ResponseReturnValue:
    """With `texts=near`, of a long session, only the last texts of what is shown: see read_messages()."""
    session = parlor().chat.session(session_id)
    near = request.args.get("texts") == "near"
    answer = parlor().showing.answer(session, _known_revision(), near=near)
    return {**answer, "context": parlor().showing.context(session)}


@bp.get("/<session_id>/messages")
def read_messages(session_id: str) -> ResponseReturnValue:
    """Some of the messages of the revision in the header, whole: those before an index."""
    known = whole(KNOWN_REVISION, request.headers.get(KNOWN_REVISION, ""), MAX_REVISION)
    before = whole("before", request.args.get("before", ""), MAX_REVISION)
    return parlor().showing.part(session_id, known, before)


@bp.patch("/<session_id>")
def change_session(session_id: str) -> ResponseReturnValue:
    """Change settings, title, or the version that is shown."""
    with read_body() as body:
        revision = body.revision()
        arranged = {name: body.value(name) for name in FIELDS if body.has(name)}
        changes = {name: body.value(name) for name in _SETTINGS if body.has(name)}
        if body.has("sampling"):
            changes["sampling"] = body.sampling("sampling", vocab_size())
        title = body.text("title", most=MAX_TITLE).strip() if body.has("title") else None
        if title is not None:
            changes |= {"title": title or UNTITLED, "title_is_auto": not title}
        leaf = body.optional_id("leaf") if body.has("leaf") else ...

    def edit(session: Session) -> Session:
        changed = {**session, **changes, **arranged}
        if leaf is not ...:
            if leaf is not None:
                get(session, leaf)
            changed["leaf"] = newest_descendant(session, leaf)
        return changed

    session = parlor().chat.change(session_id, revision, edit, touch=bool(changes))
    return with_context(session) if changes or leaf is not ... else answer_with(session)


@bp.delete("/<session_id>")
def delete_session(session_id: str) -> ResponseReturnValue:
    with read_body():
        pass
    return {"undo": parlor().chat.delete(session_id)}


@bp.post("/restore")
def restore_session() -> ResponseReturnValue:
    """Undo a deletion."""
    with read_body() as body:
        token = body.value("undo")
    return answer_with(parlor().store.restore_session(token))


@bp.post("/<session_id>/messages")
def post_message(session_id: str) -> ResponseReturnValue:
    """Append the user's message and start the reply. 202 with the message and the reply's id."""
    with read_body() as body:
        revision = body.revision()
        text = body.text("text", most=MAX_TEXT)
        said = Said(text, parent=body.optional_id("parent") if body.has("parent") else HERE,
                    bot=body.optional_id("bot"), reply=body.flag("reply", True),
                    interrupt=body.flag("interrupt", False), audience=body.audience(), begin=_begin(body))
    if not text.strip():
        raise BadRequest("The message is empty.", hint="To let a bot speak, ask for a reply instead.")
    message, job = parlor().chat.say(session_id, revision, said)
    session = parlor().store.session(session_id)
    return {"message": message, "reply": job.info if job else None, **answer_with(session)}, 202


@bp.post("/<session_id>/replies")
def post_reply(session_id: str) -> ResponseReturnValue:
    """Let a bot speak, write another version of a reply, continue one, or let one fork at a token. 202 with
    the reply's id."""
    with read_body() as body:
        revision = body.revision()
        kind = body.text("kind", most=20)
        message_id = body.optional_id("message")
        bot = body.optional_id("bot")
        turns = body.whole("turns", 1, MAX_TURNS) if body.has("turns") else None
        begin = _begin(body) if kind in ("next", "regenerate") else ""
        token = body.whole("token", 0, MAX_REPLY) if kind == "fork" else 0
        choice = body.text("choice", most=MAX_CHOICE) if kind == "fork" else ""
    chat = parlor().chat
    if kind == "next":
        job = chat.next_reply(session_id, revision, bot, turns, begin)
    elif kind == "regenerate":
        job = chat.regenerate(session_id, revision, message_id, bot, begin)
    elif kind == "continue":
        job = chat.go_on(session_id, revision, message_id)
    elif kind == "fork":
        job = chat.fork(session_id, revision, check_id(message_id, "message"), token, _bytes(choice))
    else:
        raise BadRequest(f"kind is {kind!r}; expected next, regenerate, continue or fork.")
    return {"reply": job.info, **answer_with(parlor().store.session(session_id))}, 202


@bp.patch("/<session_id>/messages/<message_id>")
def edit_message(session_id: str, message_id: str) -> ResponseReturnValue:
    """Change a text in place, and nothing below it is dropped; or pin a message, or unpin it; or say whom
    it is for."""
    chat, message_id = parlor().chat, check_id(message_id, "message")
    with read_body() as body:
        revision = body.revision()
        pins = body.has("pinned")
        pinned = body.flag("pinned", False)
        whispers = body.has("for")
        audience = body.audience()
        if pins and whispers:
            raise BadRequest("pinned and for are changed one at a time.")
        text = "" if pins or whispers else body.text("text", most=MAX_REPLY)
    if pins:
        return with_context(chat.pin_message(session_id, revision, message_id, pinned))
    if whispers:
        return with_context(chat.whisper(session_id, revision, message_id, audience))
    return with_context(chat.edit_message(session_id, revision, message_id, text))


@bp.put("/<session_id>/messages/<message_id>/label")
def name_branch(session_id: str, message_id: str) -> ResponseReturnValue:
    """Name the branch that begins with a message."""
    with read_body() as body:
        revision = body.revision()
        label = body.text("label", most=MAX_LABEL).strip()
    key = check_id(message_id, "message")
    return answer_with(parlor().chat.change(session_id, revision, lambda old: with_label(old, key, label),
                                            touch=False))


@bp.delete("/<session_id>/messages/<message_id>")
def delete_message(session_id: str, message_id: str) -> ResponseReturnValue:
    """Take a message out; its children move up."""
    with read_body() as body:
        revision = body.revision()
    session, undo = parlor().chat.delete_message(session_id, revision, check_id(message_id, "message"))
    return {**with_context(session), "undo": undo}


@bp.post("/<session_id>/undo")
def undo(session_id: str) -> ResponseReturnValue:
    """Undo the latest change of the session, or the one of this id."""
    with read_body() as body:
        revision = body.revision()
        step = body.optional_id("step") if body.has("step") else None
    session, undone = parlor().chat.undo(session_id, revision, step)
    return {**with_context(session), "undone": undone}


@bp.post("/<session_id>/redo")
def redo(session_id: str) -> ResponseReturnValue:
    """Do again what was undone last."""
    with read_body() as body:
        revision = body.revision()
    session, done = parlor().chat.redo(session_id, revision)
    return {**with_context(session), "done": done}


@bp.post("/<session_id>/hold")
def hold(session_id: str) -> ResponseReturnValue:
    """Somebody types: bots among themselves wait after the present reply, until released or not renewed."""
    with read_body() as body:
        holds = body.flag("hold", True)
    return {"held": parlor().chat.hold(session_id, HOLD_SECONDS if holds else 0.0)}


def answer_with(session: Session) -> Document:
    """Only what changed since the revision in the header, if there is one and that can be told."""
    return parlor().showing.answer(session, _known_revision())


def with_context(session: Session) -> Document:
    """The answer after a change of what is in the bots' memory: with where that begins now."""
    return {**answer_with(session), "context": parlor().showing.context(session)}


def _beginning(body: Body) -> Beginning:
    user_name = body.text("user_name", most=MAX_NAME, default="")
    chosen = _chosen(body.value("greetings")) if body.has("greetings") else {}
    seed = body.optional_id("seed") if body.has("seed") else None
    return Beginning(chosen, user_name, seed or new_id())


def _chosen(greetings: object) -> dict[str, int]:
    """Which greeting of which bot, by its id."""
    if not isinstance(greetings, dict) or len(greetings) > MAX_KNOWN_BOTS or not all(
            isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MAX_GREETINGS
            for number in greetings.values()):
        raise BadRequest(f"greetings is no object of whole numbers from 0 to {MAX_GREETINGS} by bots' ids.")
    return greetings


def _begin(body: Body) -> str:
    """The first words of a reply: a model goes on from a word, not from the space after it."""
    return body.text("begin", most=MAX_PROMPT, default="").rstrip()


def _bytes(choice: str) -> bytes:
    try:
        return bytes.fromhex(choice)
    except ValueError:
        raise BadRequest("choice is not in hex digits.") from None


@bp.before_request
def check_header() -> None:
    """Before anything is done, and before a refusal would carry the session."""
    _known_revision()


def _known_revision() -> int | None:
    text = request.headers.get(KNOWN_REVISION)
    return None if text is None else whole(KNOWN_REVISION, text, MAX_REVISION)
