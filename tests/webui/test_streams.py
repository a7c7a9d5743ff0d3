"""Open streams: the cap, and the end of a reader that has stopped reading. With waitress in this process."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from model import ModelSlot
from tests.helpers.api import Page
from tests.helpers.served import served
from webui import create_app
from webui.chat.event_log import EventLog
from webui.errors import TooMany
from webui.routes.parlor import KEY, parlor
from webui.server.streams import Streams


def test_the_cap_is_counted_and_freed():
    streams = Streams(2)
    first, _second = streams.open(lambda: None), streams.open(lambda: None)
    with pytest.raises(TooMany):
        streams.open(lambda: None)
    streams.release(first)
    streams.release(first)
    streams.open(lambda: None)
    streams.close(0.01)


def test_a_blocked_write_is_cut_after_its_deadline_and_others_are_not():
    streams = Streams(5, blocked_seconds=0.05)
    cut = []
    blocked, free = streams.open(lambda: cut.append("blocked")), streams.open(lambda: cut.append("free"))
    chunks = blocked.guarded(iter([b"x", b"y"]))
    next(chunks)  # the server holds the chunk and cannot get rid of it
    done = free.guarded(iter([b"x"]))
    assert list(done) == [b"x"]
    deadline = time.monotonic() + 10
    while not cut and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cut and set(cut) == {"blocked"}
    streams.close(0.01)


def test_a_reader_that_stops_reading_is_disconnected(model, store):
    """A real socket with a full buffer: the thread of the server comes free again."""
    app = create_app(ModelSlot.holding(model), store)
    here = parlor(app)
    streams = Streams(5, blocked_seconds=0.2)
    app.extensions[KEY] = replace(here, streams=streams)
    with served(app, threads=4, outbuf_high_watermark=1 << 14) as address:
        page = Page(app.test_client())
        reply = page.send("POST", "/messages", text="hi")["reply"]
        page.finish(reply)
        log = EventLog()
        here.chat.chains.job(reply["reply_id"]).log = log
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", urlsplit(address).port))
        events = f"/api/replies/{reply['reply_id']}/events"
        deaf.sendall(f"GET {events} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        deadline = time.monotonic() + 20
        while not len(streams) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(streams) == 1
        while len(streams) and time.monotonic() < deadline:
            log.append("text", {"text": "x" * 100_000})
            time.sleep(0.02)
        assert len(streams) == 0
        deaf.close()
        log.end("done", {})
