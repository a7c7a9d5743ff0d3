"""The model writes the user's next message: a stream, which ends with the connection."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from ..chat.drafting import draft
from ..errors import Problem, ReaderGone
from ..ids import check_id
from ..languages import language_for
from ..sentences import told
from ..server.streams import StreamedBody, cut_connection, gone_test
from ..storage.schema import MAX_TEXT
from .body import read_body
from .parlor import parlor
from .replies import as_json

bp = Blueprint("drafts", __name__, url_prefix="/api/sessions")


@bp.post("/<session_id>/messages/draft")
def write_message(session_id: str) -> ResponseReturnValue:
    """What the user may say next, as server-sent events; nothing is sent or kept."""
    with read_body() as body:
        begun = body.text("begun", most=MAX_TEXT, default="")
        audience = body.audience()
    here, environ = parlor(), request.environ
    session = here.chat.session(check_id(session_id, "session"))
    is_gone = gone_test(environ)
    pieces = draft(here.store, here.slot, here.chat.voices, session, begun, audience,
                   lambda: is_gone() or here.streams.closing.is_set())
    stream = here.streams.open(lambda: cut_connection(environ))
    body = StreamedBody(here.streams, stream, _events(pieces, language_for(request)), pieces.close)
    response = Response(body, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _events(pieces: Iterator[str], language: str) -> Iterator[bytes]:
    try:
        for piece in pieces:
            yield _frame("text", {"text": piece}) if piece else b": beat\n\n"
        yield _frame("done", {})
    except ReaderGone:
        return
    except Problem as error:
        yield _frame("error", told({"message": error.message, "hint": error.hint}, language))


def _frame(name: str, data: dict[str, str]) -> bytes:
    return f"event: {name}\ndata: {as_json(data)}\n\n".encode("utf-8", "replace")
