"""Routes of summaries: the model writes one, a person corrects it and keeps it, or takes it away."""

from __future__ import annotations

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from ..chat.summarizing import draft
from ..errors import BadRequest
from ..ids import check_id
from ..storage.schema import MAX_PROMPT
from ..storage.summaries import with_summary, without_summary
from .body import read_body
from .parlor import parlor
from .sessions import with_context

bp = Blueprint("summaries", __name__, url_prefix="/api/sessions")


@bp.post("/<session_id>/summaries/draft")
def write_draft(session_id: str) -> ResponseReturnValue:
    """Have the model write one of all up to a message; nothing is kept. It ends with the connection."""
    with read_body() as body:
        until = check_id(body.value("until"), "message")
        readers = body.audience()
    here = parlor()
    session = here.chat.session(check_id(session_id, "session"))
    with here.streams.waiting(request.environ) as is_gone:
        text, left_out = draft(here.store, here.slot, here.chat.voices, session, until, readers, is_gone)
    return {"text": text[:MAX_PROMPT], "left_out": left_out}


@bp.post("/<session_id>/summaries")
def add_summary(session_id: str) -> ResponseReturnValue:
    """From now on it stands for all up to a message in what bots are sent; in place of one up to there.
    With `for` it does so for these bots only."""
    with read_body() as body:
        revision = body.revision()
        until = check_id(body.value("until"), "message")
        text = body.text("text", most=MAX_PROMPT).strip()
        readers = body.audience()
    if not text:
        raise BadRequest("The summary is empty.", hint="Write one, or have the model write it.")
    session = parlor().chat.change(session_id, revision, lambda old: with_summary(old, until, text, readers),
                                   touch=False)
    return with_context(session), 201


@bp.delete("/<session_id>/summaries/<summary_id>")
def remove_summary(session_id: str, summary_id: str) -> ResponseReturnValue:
    with read_body() as body:
        revision = body.revision()
    return with_context(parlor().chat.change(
        session_id, revision, lambda old: without_summary(old, summary_id), touch=False))

