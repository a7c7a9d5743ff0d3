"""The route of a replay: a stored reply, generated once more and compared while the connection is open."""

from __future__ import annotations

import threading

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from ..ids import check_id
from ..languages import language_for
from ..server.streams import StreamedBody, cut_connection, gone_test
from .parlor import parlor
from .replies import ONLY, event_chunks, event_stream

bp = Blueprint("replay", __name__, url_prefix="/api/sessions")


@bp.get("/<session_id>/messages/<message_id>/replay")
def replay(session_id: str, message_id: str) -> ResponseReturnValue:
    """Server-sent events: progress, stats, at last done or error. Closing the connection ends it."""
    session, message = check_id(session_id, "session"), check_id(message_id, "message")
    streams, environ = parlor().streams, request.environ
    stream = streams.open(lambda: cut_connection(environ))
    ended, is_gone = threading.Event(), gone_test(environ)
    try:
        log = parlor().looking.replay(
            session, message, lambda: ended.is_set() or is_gone() or streams.closing.is_set())
    except BaseException:
        streams.release(stream)
        raise
    chunks = event_chunks({ONLY: log}, {ONLY: 0}, language_for(request))
    return event_stream(StreamedBody(streams, stream, chunks, ended.set))
