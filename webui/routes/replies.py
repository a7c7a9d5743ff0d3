"""Routes of a running reply: its events and its stop. Tabs only watch; closing one changes nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from ..chat.event_log import EventLog, LoggedEvent
from ..errors import BadRequest, Gone, NotFound
from ..ids import check_id
from ..languages import ENGLISH, language_for
from ..sentences import told
from ..server.streams import StreamedBody, cut_connection
from .body import read_body
from .parlor import parlor

HEARTBEAT_SECONDS = 5.0
COALESCE_SECONDS = 0.016  # a frame of the page, which cannot show more
MAX_EVENTS = 1 << 40
MAX_READ_TOGETHER = 16  # replies in one stream
ONLY = ""               # in place of the id of a stream's only reply

as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # json.dumps would make one each time
bp = Blueprint("replies", __name__, url_prefix="/api/replies")


@bp.get("/events")
def events_of_several() -> ResponseReturnValue:
    """The events of several replies in one stream, each from the number behind its id on: a browser has no
    more than six connections to a server."""
    cursors = _cursors(request.args.get("of", ""))
    logs = {}
    for reply_id in cursors:
        with suppress(NotFound, Gone):
            logs[reply_id] = parlor().chat.chains.job(reply_id).log
    gone = [reply_id for reply_id in cursors if reply_id not in logs]
    return _stream(event_chunks(logs, cursors, language_for(request), gone))


@bp.get("/<reply_id>/events")
def events(reply_id: str) -> ResponseReturnValue:
    """The reply's events from number `from` on, as they come, until its end."""
    cursor = whole_argument("from", MAX_EVENTS)
    log = parlor().chat.chains.job(check_id(reply_id, "reply")).log
    return _stream(event_chunks({ONLY: log}, {ONLY: cursor}, language_for(request)))


@bp.post("/<reply_id>/stop")
def stop(reply_id: str) -> ResponseReturnValue:
    """Stop the reply and whatever would have followed it, or with `alone` only it, of several side by side.
    What is written is kept."""
    with read_body() as body:
        alone = body.flag("alone", False)
    parlor().chat.stop(check_id(reply_id, "reply"), alone=alone)
    return {"stopped": True}


@bp.post("/<reply_id>/answer")
def answer(reply_id: str) -> ResponseReturnValue:
    """Close the thought that goes on: the answer begins, and nothing is read again."""
    with read_body():
        pass
    parlor().chat.answer_now(check_id(reply_id, "reply"))
    return {"answering": True}


def _cursors(text: str) -> dict[str, int]:
    """`ID:FROM,ID:FROM` by id. Raises BadRequest."""
    parts = [part.partition(":") for part in text.split(",")]
    if not text or len(parts) > MAX_READ_TOGETHER:
        raise BadRequest(f"of does not name 1 to {MAX_READ_TOGETHER} replies, each as its id, a colon, and "
                         "the number of its first event.")
    return {check_id(reply_id, "reply"): whole("of", cursor, MAX_EVENTS) for reply_id, _, cursor in parts}


def _stream(chunks: Iterator[bytes]) -> Response:
    streams, environ = parlor().streams, request.environ
    stream = streams.open(lambda: cut_connection(environ))
    return event_stream(StreamedBody(streams, stream, chunks))


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


def event_chunks(logs: Mapping[str, EventLog], cursors: Mapping[str, int], language: str = ENGLISH,
                 gone: Iterable[str] = ()) -> Iterator[bytes]:
    """Logs by their replies' ids as server-sent events, each from its cursor on: the first text at once,
    later ones one event a frame of the page. What went wrong is said in that language.

    gone  replies that are not known
    """
    left, cursors, news = dict(logs), dict(cursors), threading.Event()
    for log in logs.values():
        log.wake(news)
    try:
        for reply_id in gone:
            yield frame(LoggedEvent(cursors[reply_id], "gone", {}), language, reply_id)
        while left:
            news.clear()
            found = []
            for reply_id, log in list(left.items()):
                entries, ended = log.read(cursors[reply_id])
                found += [(entry, reply_id) for entry in entries]
                if entries:
                    cursors[reply_id] = entries[-1].index + 1
                if ended:
                    del left[reply_id]
            if found:
                yield b"".join(frame(entry, language, reply_id) for entry, reply_id in found)
                if left and found[-1][0].name in ("text", "think", "stats"):
                    time.sleep(COALESCE_SECONDS)
            elif left and not news.wait(HEARTBEAT_SECONDS):
                yield b": beat\n\n"
    finally:
        for log in logs.values():
            log.let_sleep(news)


def frame(entry: LoggedEvent, language: str, reply_id: str = ONLY) -> bytes:
    data = told(entry.data, language) if entry.name in ("held", "error", "done") else entry.data
    index = f"{reply_id}:{entry.index}" if reply_id else str(entry.index)
    text = f"id: {index}\nevent: {entry.name}\ndata: {as_json(data)}\n\n"
    return text.encode("utf-8", "replace")

