"""Routes of a running reply: its events and its stop. Tabs only watch; closing one changes nothing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from ..chat.event_log import EventLog, LoggedEvent
from ..errors import BadRequest
from ..ids import check_id
from ..server.streams import Stream, Streams
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
    stream = streams.open(lambda: _cut(environ))
    environ = request.environ
    response = Response(_EventStream(job.log, cursor, stream, streams), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


@bp.post("/<reply_id>/stop")
def stop(reply_id: str) -> ResponseReturnValue:
    """Stop the reply and whatever would have followed it. What is written is kept."""
    with read_body():
        pass
    parlor().chat.stop(check_id(reply_id, "reply"))
    return {"stopped": True}


def whole_argument(name: str, high: int) -> int:
    """A whole number of the query; 0 if it is missing. Raises BadRequest."""
    return whole(name, request.args.get(name, "0"), high)


def whole(name: str, text: str, high: int) -> int:
    """Raises BadRequest unless `text` is a whole number from 0 to `high`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= high):
        raise BadRequest(f"{name} is not a whole number from 0 to {high}.")
    return int(text)


class _EventStream:
    """The chunks of one stream; it is released after the last one, or by close() if it never came to that."""

    def __init__(self, log: EventLog, cursor: int, stream: Stream, streams: Streams) -> None:
        self._log, self._cursor = log, cursor
        self._stream, self._streams = stream, streams

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream.guarded(event_chunks(self._log, self._cursor))
        finally:
            self.close()

    def close(self) -> None:
        self._streams.release(self._stream)


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


def _cut(environ: dict[str, Any]) -> None:
    """End the connection of a reader that does not read: waitress wakes the blocked write with an error."""
    is_gone = environ.get("waitress.client_disconnected")
    channel = getattr(is_gone, "__self__", None)
    if channel is not None and channel.socket is not None:
        channel.socket.shutdown(socket.SHUT_RDWR)
