"""Routes of a running reply: its events and its stop. Tabs only watch; closing one changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from ..chat.event_log import EventLog, LoggedEvent
from ..errors import BadRequest
from ..ids import check_id
from ..server.streams import StreamedBody, cut_connection
from .body import read_body
from .parlor import parlor

HEARTBEAT_SECONDS = 5.0
COALESCE_SECONDS = 0.016  # a frame of the page, which cannot show more
MAX_EVENTS = 1 << 40

as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # json.dumps would make one each time
bp = Blueprint("replies", __name__, url_prefix="/api/replies")


@bp.get("/<reply_id>/events")
def events(reply_id: str) -> ResponseReturnValue:
    """The reply's events from number `from` on, as they come, until its end."""
    cursor = whole_argument("from", MAX_EVENTS)
    job = parlor().chat.chains.job(check_id(reply_id, "reply"))
    streams = parlor().streams
    environ = request.environ
    stream = streams.open(lambda: cut_connection(environ))
    return event_stream(StreamedBody(streams, stream, event_chunks(job.log, cursor)))


@bp.post("/<reply_id>/stop")
def stop(reply_id: str) -> ResponseReturnValue:
    """Stop the reply and whatever would have followed it. What is written is kept."""
    with read_body():
        pass
    parlor().chat.stop(check_id(reply_id, "reply"))
    return {"stopped": True}


@bp.post("/<reply_id>/answer")
def answer(reply_id: str) -> ResponseReturnValue:
    """Close the thought that goes on: the answer begins, and nothing is read again."""
    with read_body():
        pass
    parlor().chat.answer_now(check_id(reply_id, "reply"))
    return {"answering": True}


def whole_argument(name: str, high: int) -> int:
    """A whole number of the query; 0 if it is missing. Raises BadRequest."""
    return whole(name, request.args.get(name, "0"), high)


def whole(name: str, text: str, high: int) -> int:
    """Raises BadRequest unless `text` is a whole number from 0 to `high`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= high):
        raise BadRequest(f"{name} is not a whole number from 0 to {high}.")
    return int(text)


def event_stream(body: StreamedBody) -> Response:
    """An answer that nothing on its way may keep back."""
    response = Response(body, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def event_chunks(log: EventLog, cursor: int) -> Iterator[bytes]:
    """The log as server-sent events: the first text at once, later ones one event a frame of the page."""
    while True:
        entries, ended = log.read(cursor, HEARTBEAT_SECONDS)
        if entries:
            cursor = entries[-1].index + 1
            yield b"".join(frame(entry) for entry in entries)
        if ended:
            return
        if not entries:
            yield b": beat\n\n"
        elif entries[-1].name in ("text", "think", "stats"):
            time.sleep(COALESCE_SECONDS)


def frame(entry: LoggedEvent) -> bytes:
    text = f"id: {entry.index}\nevent: {entry.name}\ndata: {as_json(entry.data)}\n\n"
    return text.encode("utf-8", "replace")

