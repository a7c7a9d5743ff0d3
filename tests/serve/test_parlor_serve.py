"""What is deployed by which options, and what the front and a replica say when something is wrong."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install -r requirements-serve.txt")

from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError
from starlette.requests import Request

from model import ModelSlot
from serve.parlor_serve import MAX_BODY, Front, Replica, app, options_of
from tests.helpers.coroutines import finished
from tests.helpers.fake_model import FakeModel
from webui.routes.service import STUCK_SECONDS

HEAD = (200, [("Content-Type", "text/event-stream"), ("X-One", "1"), ("X-One", "2")])


class Replicas:
    """A handle whose replicas answer with these pieces; an exception among them is raised."""

    def __init__(self, *pieces):
        self.answer, self._pieces, self.calls, self.sessions = self, pieces, [], []

    def options(self, session_id):
        self.sessions.append(session_id)
        return self

    async def remote(self, call):
        self.calls.append(call)
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def passed_on(replicas, body=b"{}", path="/v1/chat/completions"):
    """Status, headers and body of what the front answers."""
    front = object.__new__(Front.func_or_class)
    front._replicas = replicas
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"n=5", "scheme": "http",
             "headers": [(b"host", b"box:8000"), (b"x-session-id", b"mine")], "server": ("box", 8000)}
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    async def run():
        response = await front.pass_on(Request(scope, receive))
        await response(scope | {"asgi": {"spec_version": "2.4"}}, receive, send)

    finished(run())
    return sent[0]["status"], sent[0]["headers"], b"".join(message["body"] for message in sent[1:])


def test_the_front_passes_on_what_comes_and_what_is_answered():
    replicas = Replicas(HEAD, b"data: one\n\n", b"data: two\n\n")
    status, headers, body = passed_on(replicas, b'{"a": 1}')
    assert (status, body) == (200, b"data: one\n\ndata: two\n\n")
    assert headers == [(b"content-type", b"text/event-stream"), (b"x-one", b"1"), (b"x-one", b"2")]
    call, = replicas.calls
    assert (call.method, call.path, call.query) == ("POST", "/v1/chat/completions", "n=5")
    assert call.body == b'{"a": 1}'
    assert ("host", "box:8000") in call.headers and replicas.sessions == ["mine"]


def test_of_a_body_that_is_too_large_the_front_reads_no_more_than_shows_it():
    replicas = Replicas(HEAD)
    passed_on(replicas, b"x" * (MAX_BODY + 1))
    assert len(replicas.calls[0].body) == MAX_BODY + 1


def test_a_replica_that_dies_in_the_middle_ends_the_stream_with_an_error():
    _, _, body = passed_on(Replicas(HEAD, b"data: one\n\n", ActorDiedError()))
    first, error, done = body.decode().strip().split("\n\n")
    assert first == "data: one" and done == "data: [DONE]"
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "replica_gone"


@pytest.mark.parametrize(("problem", "code"), [
    (ActorDiedError(), "replica_gone"),
    (BackPressureError(num_queued_requests=1, max_queued_requests=1), "too_many")])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/healthz"])
def test_what_no_replica_answers_is_refused_for_a_while(problem, code, path):
    status, headers, body = passed_on(Replicas(problem), path=path)
    assert status == 503 and json.loads(body)["error"]["code"] == code
    assert dict(headers).get(b"retry-after") if path != "/healthz" else True


def test_a_replica_whose_engine_is_gone_or_stuck_is_not_well():
    model, replica = FakeModel(), object.__new__(Replica.func_or_class)
    replica._slot = ModelSlot.holding(model)
    replica.check_health()
    model.seconds_in_step = STUCK_SECONDS + 1
    with pytest.raises(RuntimeError, match="stuck"):
        replica.check_health()
    model.seconds_in_step, model.problem = 0.0, "A fault."
    with pytest.raises(RuntimeError, match="stopped"):
        replica.check_health()


def test_the_options_are_those_of_the_engine_and_a_few(tmp_path):
    options = options_of({"model": str(tmp_path), "replicas": "3", "max_seq_len": 512, "cache": "q8",
                          "exact": "false", "allow-host": ["box", "cluster"]})
    assert (options.model, options.replicas, options.max_replicas) == (tmp_path, 3, None)
    assert (options.config.max_seq_len, options.config.cache) == (512, "q8") and not options.config.exact
    assert options.allow_host == ["box", "cluster"]
    assert options_of({"exact": "true"}).config.exact and options_of({"exact": True}).config.exact
    assert app({"replicas": 1, "max-replicas": 4, "queue": 8, "device": "cpu"})


@pytest.mark.parametrize("wrong", [{"modle": "x"}, {"replicas": "many"}, {"replicas": "0"}, {"threads": "0"},
                                   {"replicas": "3", "max-replicas": "2"}, {"api-key": "/no/such/file"}])
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises((ValueError, OSError)):
        app(wrong)
