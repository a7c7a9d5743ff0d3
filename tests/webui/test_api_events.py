"""The events of a reply over HTTP: streaming, resuming, stopping, many tabs. With a scripted model."""

from __future__ import annotations

import threading
import time

import pytest

from model import ModelSlot, TextDelta
from tests.helpers.api import Page, parse_events, read_some, wait_until
from tests.helpers.fake_model import EMOJI, THINK
from webui import create_app
from webui.chat.event_log import EventLog
from webui.routes.parlor import parlor
from webui.routes.replies import COALESCE_SECONDS, event_chunks


def test_the_events_tell_the_whole_reply_in_order(page):
    reply = page.send("POST", "/messages", text="think aloud")["reply"]
    events = page.events(reply)
    names = [event.name for event in events]
    assert names[0] == "start" and names[-1] == "done" and "progress" in names
    assert "".join(event.data["text"] for event in events if event.name == "think") == THINK
    assert "".join(event.data["text"] for event in events if event.name == "text") == "After thinking: yes."
    assert [event.index for event in events] == sorted({event.index for event in events})
    start, done = events[0].data, events[-1].data
    assert start["message_id"] == done["message"]["id"] == reply["message_id"]
    assert start["parent"] == done["message"]["parent"] and start["name"] == "Marlow"
    assert done["message"]["thinking"] == THINK and done["next"] is None
    assert done["revision"] == page.load()["session"]["revision"]


def test_reading_again_from_any_event_gives_the_same_text(page):
    reply = page.send("POST", "/messages", text="emoji")["reply"]
    whole = page.events(reply)
    for number, event in enumerate(whole):
        text = "".join(e.data["text"] for e in whole[:number + 1] if e.name == "text")
        rest = page.events(reply, event.index + 1)
        assert text + "".join(e.data["text"] for e in rest if e.name == "text") == EMOJI


def test_any_number_of_tabs_read_the_same_while_it_is_written(client, page, model):
    model.delay = 0.002
    reply = page.send("POST", "/messages", text="long")["reply"]
    seen = {}

    def watch(tab):
        time.sleep(0.05 * tab)
        seen[tab] = "".join(e.data["text"] for e in page.events(reply) if e.name == "text")

    tabs = [threading.Thread(target=watch, args=(tab,)) for tab in range(8)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert set(seen.values()) == {page.finish(reply)[0]["text"]}


def test_a_reply_goes_on_when_nobody_watches(page, model):
    model.delay = 0.001
    page.send("POST", "/messages", text="hello there")
    wait_until(lambda: not page.load()["session"]["replies"])
    assert len(page.shown()) == 2


def test_closing_a_tab_frees_its_stream(app, client, page, model):
    model.gate.clear()
    reply = page.send("POST", "/messages", text="long")["reply"]
    response = client.get(f"/api/replies/{reply['reply_id']}/events")
    next(response.response)
    assert len(parlor(app).streams) == 1
    response.close()
    assert len(parlor(app).streams) == 0
    client.post(f"/api/replies/{reply['reply_id']}/stop")


def test_stop_reaches_the_model_and_keeps_what_is_written(client, page, model):
    model.delay = 0.05  # 400 words would take 20 s
    reply = page.send("POST", "/messages", text="long")["reply"]
    read_some(client, reply)
    assert client.post(f"/api/replies/{reply['reply_id']}/stop").json == {"stopped": True}
    (message,) = page.finish(reply)
    wait_until(lambda: not model.running)
    assert message["finish_reason"] == "cancelled" and message["text"].startswith("word0")
    assert page.shown()[-1] == message["text"]


def test_stop_before_the_first_token_works_too(client, page, model):
    model.gate.clear()
    reply = page.send("POST", "/messages", text="long")["reply"]
    client.post(f"/api/replies/{reply['reply_id']}/stop", json={})
    (message,) = page.finish(reply)
    assert message["finish_reason"] == "cancelled" and message["text"] == ""


def test_an_unknown_reply_is_404_and_an_old_one_410(app, client, page, monkeypatch):
    response = client.get("/api/replies/0123456789abcdef/events")
    assert response.status_code == 404 and response.json["error"]["code"] == "unknown_reply"
    reply = page.send("POST", "/messages", text="hi")["reply"]
    page.finish(reply)
    monkeypatch.setattr("webui.chat.chains.LOG_SECONDS", -1.0)
    response = client.get(f"/api/replies/{reply['reply_id']}/events")
    assert response.status_code == 410 and response.json["error"]["code"] == "gone"


def test_of_replies_that_ended_the_last_logs_are_kept_and_nothing_they_were_made_from(
        app, client, page, monkeypatch):
    """Else memory would grow as long as replies come faster than old ones are forgotten."""
    monkeypatch.setattr("webui.chat.chains.MAX_LOGS", 3)
    replies = []
    for number in range(5):
        replies.append(page.send("POST", "/messages", text=f"hi {number}")["reply"])
        page.finish(replies[-1])
    statuses = [client.get(f"/api/replies/{reply['reply_id']}/events").status_code for reply in replies]
    assert statuses == [410, 410, 200, 200, 200]
    for job in parlor(app).chat.chains._jobs.values():
        wait_until(lambda job=job: job._reply is None)
        assert not job.plan.view.messages and not job._text and job._journal is None


@pytest.mark.parametrize("start", ["-1", "x", "1e3", "9" * 30, "٣", "1.0", " 1"])
def test_a_cursor_that_is_no_number_is_refused(client, page, start):
    reply = page.send("POST", "/messages", text="hi")["reply"]
    page.finish(reply)
    url = f"/api/replies/{reply['reply_id']}/events"
    assert client.get(url, query_string={"from": start}).status_code == 400


def test_too_many_streams_are_told_to_come_back(store, model):
    app = create_app(ModelSlot.holding(model), store, max_streams=1)
    client = app.test_client()
    page = Page(client)
    model.gate.clear()
    reply = page.send("POST", "/messages", text="long")["reply"]
    first = client.get(f"/api/replies/{reply['reply_id']}/events")
    second = client.get(f"/api/replies/{reply['reply_id']}/events")
    assert second.status_code == 503 and int(second.headers["Retry-After"]) > 0
    first.close()
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    assert client.get(f"/api/replies/{reply['reply_id']}/events").status_code == 200


def test_a_waiting_stream_has_a_heartbeat(monkeypatch, client, page, model):
    monkeypatch.setattr("webui.routes.replies.HEARTBEAT_SECONDS", 0.02)
    model.prompt_delay, model.prompt_steps = 0.3, 1
    reply = page.send("POST", "/messages", text="hi")["reply"]
    body = client.get(f"/api/replies/{reply['reply_id']}/events").data
    assert body.count(b": beat\n\n") >= 1 and parse_events(body)[-1].name == "done"


def test_text_that_comes_fast_is_sent_together_and_the_first_at_once(monkeypatch):
    log, slept = EventLog(), []

    def sleep(seconds):
        slept.append(seconds)
        for word in ("b", "c", "d"):
            log.append("text", {"text": word})
        if len(slept) == 2:
            log.end("done", {})

    monkeypatch.setattr("webui.routes.replies.time.sleep", sleep)
    log.append("start", {})
    log.append("text", {"text": "a"})
    chunks = [parse_events(chunk) for chunk in event_chunks({"": log}, {"": 0})]
    assert [[(e.name, e.data.get("text")) for e in chunk] for chunk in chunks] == [
        [("start", None), ("text", "a")], [("text", "bcd")], [("text", "bcd"), ("done", None)]]
    assert slept == [COALESCE_SECONDS] * 2


def test_no_reply_begins_while_the_server_ends(app, page):
    parlor(app).close("bye", 0.1)
    assert page.send("POST", "/messages", 503, text="hello")["error"]["code"] == "too_many"


def test_closing_keeps_all_partial_text_even_of_a_model_that_does_not_let_go(app, page, store, monkeypatch):
    started = threading.Event()
    release = threading.Event()

    def events(self):
        yield TextDelta("half a ", "text", 1)
        yield TextDelta("sentence", "text", 2)
        started.set()
        release.wait(20)

    monkeypatch.setattr("tests.helpers.fake_model.FakeReply.events", events)
    reply = page.send("POST", "/messages", text="hi")["reply"]
    assert started.wait(10)
    begun = time.monotonic()
    parlor(app).close("The server went home.", 0.6)
    assert time.monotonic() - begun < 10
    last = page.events(reply)[-1]
    release.set()
    assert last.name == "error" and last.data["message"] == "The server went home."
    message = store.session(page.session["id"])["messages"][-1]
    assert message["text"] == "half a sentence" and message["finish_reason"] == "interrupted"
