"""Whatever breaks in a thread, those who wait for it get an answer, and their session can be used again."""

from __future__ import annotations

import threading

import pytest

from model import EngineClosed
from tests.helpers.api import wait_until
from tests.helpers.fake_model import FakeReply
from webui.chat import reply_job
from webui.chat.reply_job import ReplyJob
from webui.server.streams import Streams


class Panic(BaseException):
    """What a library written in Rust raises when it gives up."""


ERRORS = [pytest.param(error, id=type(error).__name__)
          for error in (RuntimeError("a secret path"), Panic("a secret path"), OverflowError("too large"))]


def raises(error):
    def call(*_args, **_named):
        raise error

    return call


def ends_with_an_error_and_goes_on(page, monkeypatch, asked="hello"):
    """The reply to `asked` ends, its session is free, and once all is well again so is the next reply."""
    (message,) = page.say(asked)
    assert message["finish_reason"] == "error" and "secret" not in message["error"]
    assert page.load()["session"]["replies"] == []
    monkeypatch.undo()
    assert page.say("again")[0]["finish_reason"] == "eos"
    return message


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("method", ["start", "fit"])
def test_a_model_that_breaks_before_the_reply(page, model, monkeypatch, method, error):
    monkeypatch.setattr(model, method, raises(error))
    message = ends_with_an_error_and_goes_on(page, monkeypatch)
    assert "Parlor's log" in message["error"] or "its log" in message["error"]


@pytest.mark.parametrize("error", ERRORS)
def test_a_model_that_breaks_in_mid_reply_is_told_to_stop(page, model, monkeypatch, error):
    cancelled = threading.Event()

    def events(self):
        yield from ()
        raise error

    monkeypatch.setattr(FakeReply, "events", events)
    monkeypatch.setattr(FakeReply, "cancel", lambda self: cancelled.set())
    ends_with_an_error_and_goes_on(page, monkeypatch)
    assert cancelled.is_set(), "nobody reads what it would write"


def test_an_engine_that_is_gone_says_so_in_the_reply(page, model, monkeypatch):
    monkeypatch.setattr(model, "start", raises(EngineClosed("The engine has stopped.")))
    assert page.say("hello")[0]["error"] == "The engine has stopped."


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("step", ["_final_message", "_commit"])
def test_a_fault_at_the_end_of_a_reply(page, store, monkeypatch, step, error):
    sound = getattr(ReplyJob, step)
    calls = []

    def broken(self, *arguments):
        calls.append(step)
        if len(calls) == 1:
            raise error
        return sound(self, *arguments)

    monkeypatch.setattr(ReplyJob, step, broken)
    message = ends_with_an_error_and_goes_on(page, monkeypatch)
    assert message["text"].startswith("You said")
    assert page.session["messages"][1]["text"] == message["text"]


def test_an_end_that_fails_whatever_is_tried_still_ends(page, monkeypatch):
    monkeypatch.setattr(reply_job, "as_json", raises(Panic("twice")))
    monkeypatch.setattr(ReplyJob, "_commit", raises(Panic("and again")))
    reply = page.send("POST", "/messages", text="hello")["reply"]
    last = page.events(reply)[-1]
    assert last.name == "error" and last.data["revision"] is None
    monkeypatch.undo()
    assert page.load()["session"]["replies"] == []
    assert page.say("again")[0]["finish_reason"] == "eos"


@pytest.mark.parametrize("error", ERRORS)
def test_a_model_that_breaks_while_it_decides_who_speaks(room, model, error):
    room.set(turn_order="model")
    model.rank_error = error
    body = room.send("POST", "/messages", text="hello")
    assert room.finish(body["reply"]) == [None], "nobody spoke, and that is told"
    assert room.load()["session"]["replies"] == []
    model.rank_error = None
    assert room.say("again")[0]["finish_reason"] == "eos"


@pytest.mark.parametrize("error", ERRORS)
def test_a_chain_ends_where_the_next_speaker_cannot_be_found(room, model, error):
    room.set(turn_order="model")
    model.gate.clear()
    reply = room.send("POST", "/replies", kind="next", bot=None, turns=3)["reply"]
    model.rank_error = error
    model.gate.set()
    said, nobody = room.finish(reply)
    assert said["finish_reason"] == "eos" and nobody is None
    assert room.load()["session"]["replies"] == []


def test_a_reply_for_which_the_system_has_no_thread_leaves_the_session_free(app, page, monkeypatch):
    app.testing = False
    monkeypatch.setattr(ReplyJob, "start", raises(RuntimeError("can't start new thread")))
    page.client.post(page.url + "/messages", json={"revision": page.session["revision"], "text": "hello"})
    monkeypatch.undo()
    assert page.load()["session"]["replies"] == []
    assert page.say("again")[0]["finish_reason"] == "eos"


def test_a_panic_in_a_route_is_an_answer(client, store, monkeypatch):
    monkeypatch.setattr(store, "summaries", raises(Panic("a secret path")))
    response = client.get("/api/sessions")
    assert response.status_code == 500 and "secret" not in response.text and response.json["id"]


def test_one_stream_that_cannot_be_cut_does_not_keep_the_next_from_being_cut(caplog):
    cut = threading.Event()
    streams = Streams(4, blocked_seconds=0.01)
    blocked = [streams.open(raises(AttributeError("no socket"))), streams.open(cut.set)]
    for stream in blocked:
        stream.blocked_since = 0.0
    wait_until(cut.is_set)
    for stream in blocked:
        streams.release(stream)
