"""A WSGI app as an async generator: its pieces come as they are made, and it hears that nobody reads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from model import ModelSlot
from serve.wsgi import IS_GONE, Call, answer
from tests.helpers.api import wait_until
from tests.helpers.coroutines import finished
from tests.helpers.fake_model import FakeModel
from webui import create_api

JSON = (("host", "localhost:8000"), ("content-type", "application/json"))
HELLO = Call("POST", "/v1/some where", "n=5", (*JSON, ("content-length", "99"), ("x-team", "red")),
             b'{"a": 1}')


def pieces(app, call=HELLO, most=None):
    """What comes of it, at most so many pieces."""
    async def read():
        found = []
        with ThreadPoolExecutor(1) as threads:
            generator = answer(app, call, threads)
            async for piece in generator:
                found.append(piece)
                if len(found) == most:
                    await generator.aclose()
                    break
        return found

    return finished(read())


def test_the_app_sees_the_request_and_its_head_comes_first():
    seen = {}

    def app(environ, start_response):
        seen.update(environ, body=environ["wsgi.input"].read())
        start_response("201 Created", [("X-One", "1"), ("X-One", "2")])
        return [b"a", b"b"]

    assert pieces(app) == [(201, [("X-One", "1"), ("X-One", "2")]), b"a", b"b"]
    assert seen["REQUEST_METHOD"] == "POST" and seen["PATH_INFO"] == "/v1/some where"
    assert (seen["QUERY_STRING"], seen["HTTP_HOST"], seen["HTTP_X_TEAM"]) == ("n=5", "localhost:8000", "red")
    assert (seen["body"], seen["CONTENT_LENGTH"]) == (b'{"a": 1}', "8")
    assert seen["CONTENT_TYPE"] == "application/json"


def test_a_piece_comes_before_the_next_one_is_made():
    read = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        assert read.wait(60)
        yield b"second"

    async def run():
        found = []
        with ThreadPoolExecutor(1) as threads:
            async for piece in answer(app, HELLO, threads):
                found.append(piece)
                if piece == b"first":
                    read.set()
        return found

    assert finished(run()) == [(200, []), b"first", b"second"]


def test_an_app_hears_that_nobody_reads_any_more_and_is_closed():
    closed = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            while not environ[IS_GONE]():
                yield b"more"
        finally:
            closed.set()

    assert pieces(app, most=3) == [(200, []), b"more", b"more"]
    assert closed.is_set()  # else the thread would never have ended


def test_what_the_app_raises_its_reader_gets():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"some"
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        pieces(app)


def test_a_reply_that_nobody_reads_is_cancelled():
    """While no token comes at all."""
    model = FakeModel()
    model.gate.clear()
    app = create_api(ModelSlot.holding(model))
    call = Call("POST", "/v1/chat/completions", "", JSON,
                b'{"messages": [{"role": "user", "content": "Hi"}], "stream": true}')
    head, role = pieces(app, call, most=2)
    assert head[0] == 200 and b'"role":"assistant"' in role
    wait_until(lambda: model.running == 0)
