"""Replies over HTTP: streaming, resuming, stopping, chains of bots, failures. With a scripted model."""

from __future__ import annotations

import threading
import time

import pytest

from model import TextDelta
from tests.api import LIN, MARLOW, OTTO, Page, parse_events
from tests.failing_disk import FailingDisk
from tests.fake_model import CODE, EMOJI, THINK
from tests.fake_server import write_bots
from webui import create_app
from webui.context import parlor
from webui.event_log import EventLog
from webui.replies import COALESCE_SECONDS, event_chunks
from webui.store import Store


@pytest.fixture
def page(client):
    return Page(client)


@pytest.fixture
def room(client):
    """Marlow, Otto and Lin, without Lin's greeting."""
    page = Page(client, MARLOW, OTTO)
    page.set(bots=[{"id": bot, "muted": False} for bot in (MARLOW, OTTO, LIN)])
    return page


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def read_some(client, reply):
    """Read a reply's events until there is text; the tab is closed then."""
    response = client.get(f"/api/replies/{reply['reply_id']}/events")
    while b"event: text" not in next(response.response):
        pass
    response.close()


def test_a_message_is_answered_and_both_are_kept(page, store):
    (reply,) = page.say("code please")
    assert page.shown() == ["code please", CODE]
    assert page.session["title"] == "code please"
    assert reply["model"] == "fake-1M" and reply["seed"] == 4711 and reply["finish_reason"] == "eos"
    assert reply["new_tokens"] > 10 and reply["sampling"]["temperature"] == 0.8 and reply["error"] == ""
    assert page.load()["session"]["messages"][-1] == reply
    assert not list(store.journal_folder.iterdir())


def test_the_user_message_is_on_disk_before_the_reply_begins(page, model, store):
    model.prompt_delay = 0.2
    body = page.send("POST", "/messages", text="hello")
    (path,) = (store.folder / "chats").glob("*.json")
    assert "hello" in path.read_text(encoding="utf-8")
    page.finish(body["reply"])


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
    model.delay = 0.005
    reply = page.send("POST", "/messages", text="long")["reply"]
    read_some(client, reply)
    stopped = time.monotonic()
    assert client.post(f"/api/replies/{reply['reply_id']}/stop").json == {"stopped": True}
    (message,) = page.finish(reply)
    assert time.monotonic() - stopped < 10 and not model.running
    assert message["finish_reason"] == "cancelled" and message["text"].startswith("word0")
    assert page.shown()[-1] == message["text"]


def test_stop_before_the_first_token_works_too(client, page, model):
    model.prompt_delay = 0.05
    reply = page.send("POST", "/messages", text="long")["reply"]
    client.post(f"/api/replies/{reply['reply_id']}/stop", json={})
    (message,) = page.finish(reply)
    assert message["finish_reason"] == "cancelled" and message["text"] == ""


def test_an_unknown_reply_is_404_and_an_old_one_410(app, client, page, monkeypatch):
    response = client.get("/api/replies/0123456789abcdef/events")
    assert response.status_code == 404 and response.json["error"]["code"] == "unknown_reply"
    reply = page.send("POST", "/messages", text="hi")["reply"]
    page.finish(reply)
    monkeypatch.setattr("webui.chains.LOG_SECONDS", -1.0)
    response = client.get(f"/api/replies/{reply['reply_id']}/events")
    assert response.status_code == 410 and response.json["error"]["code"] == "gone"


@pytest.mark.parametrize("start", ["-1", "x", "1e3", "9" * 30, "٣", "1.0", " 1"])
def test_a_cursor_that_is_no_number_is_refused(client, page, start):
    reply = page.send("POST", "/messages", text="hi")["reply"]
    page.finish(reply)
    url = f"/api/replies/{reply['reply_id']}/events"
    assert client.get(url, query_string={"from": start}).status_code == 400


def test_partial_text_survives_a_failure_of_the_engine(page):
    reply = page.send("POST", "/messages", text="fail please")["reply"]
    last = page.events(reply)[-1]
    assert last.name == "error" and "out of pages" in last.data["message"]
    assert last.data["partial"]["text"].startswith("You said:")
    message = page.load()["session"]["messages"][-1]
    assert message["finish_reason"] == "error" and "out of pages" in message["error"]
    assert message["text"] == last.data["partial"]["text"]
    assert last.data["revision"] == page.session["revision"]


def test_a_failure_before_any_text_is_a_message_with_its_error(page):
    (message,) = page.say("fail at once")
    assert message["text"] == "" and message["finish_reason"] == "error"
    assert page.say("and now?")[0]["finish_reason"] == "eos"


def test_a_crash_inside_shows_an_id_and_no_path(page, caplog):
    (message,) = page.say("crash please")
    assert message["finish_reason"] == "error" and message["text"].startswith("You said:")
    assert "secret" not in message["error"] and "/home" not in message["error"]
    error_id = message["error"].split()[-1].rstrip(".")
    assert error_id in caplog.text and "secret path" in caplog.text


def test_what_the_model_says_of_the_request_is_shown(page):
    (message,) = page.say("refuse this")
    assert "9,000 tokens" in message["error"]


def test_the_name_in_front_is_taken_off(page):
    (message,) = page.say("what is your name")
    assert message["text"] == "My name is Marlow."
    assert page.say("spaces around")[0]["text"] == "surrounded by space"


def test_settings_reach_the_model_and_the_bot_beats_the_session(client, page, model):
    page.set(sampling={"temperature": 0.5, "top_k": 7}, preset="creative")
    page.say("hi")
    params = model.started[-1]["params"]
    assert (params.temperature, params.top_k, params.repetition_penalty) == (0.5, 7, 1.05)
    bot = client.get(f"/api/bots/{MARLOW}").json["bot"]
    client.patch(f"/api/bots/{MARLOW}", json={"revision": bot["revision"], "sampling": {"temperature": 0.1}})
    page.say("hi")
    assert model.started[-1]["params"].temperature == 0.1


def test_temperature_0_twice_is_equal_and_otherwise_not(page):
    page.set(sampling={"temperature": 0})
    first = page.say("tell me many different words about the old sea")[0]["text"]
    assert page.reply("regenerate")[0]["text"] == first
    page.set(sampling={"temperature": 1})
    assert len({page.reply("regenerate")[0]["text"] for _ in range(4)}) > 1


def test_regenerating_adds_a_version_beside_the_old_one(page):
    page.say("hello")
    old = page.session["messages"][-1]
    (new,) = page.reply("regenerate")
    assert new["parent"] == old["parent"] and new["id"] != old["id"]
    assert page.session["leaf"] == new["id"] and len(page.session["messages"]) == 3


def test_any_message_can_be_regenerated_not_only_the_last(page):
    page.say("one")
    first = page.session["messages"][1]
    page.say("two")
    (new,) = page.reply("regenerate", message=first["id"])
    assert page.shown() == ["one", new["text"]]
    page.set(leaf=first["id"])
    assert len(page.shown()) == 4  # the old way is still whole, down to its newest message


def test_moving_to_another_version_while_one_is_written_stays_there(page, model):
    page.say("one")
    old = page.session["messages"][1]
    model.gate.clear()
    reply = page.send("POST", "/replies", kind="regenerate")["reply"]
    page.set(leaf=old["id"])
    model.gate.set()
    page.finish(reply)
    assert page.session["leaf"] == old["id"] and len(page.session["messages"]) == 3


def test_continue_appends_to_the_reply(page, model):
    page.set(sampling={"max_new_tokens": 5})
    (before,) = page.say("tell me something")
    assert before["finish_reason"] == "length"
    page.set(sampling={})
    reply = page.send("POST", "/replies", kind="continue")["reply"]
    assert reply["message_id"] == before["id"]
    events = page.events(reply)
    added = "".join(event.data["text"] for event in events if event.name == "text")
    after = page.finish(reply)[0]
    assert events[0].data["continues"] and events[0].data["text"] == before["text"]
    assert after["text"] == before["text"] + added == before["text"] + " And so it goes on, a little further."
    assert model.started[-1]["prefix"] == before["text"]
    assert after["new_tokens"] > before["new_tokens"] and len(page.session["messages"]) == 2


def test_only_replies_can_be_continued_or_written_again(page):
    page.send("POST", "/messages", text="hello", reply=False)
    for kind in ("continue", "regenerate"):
        assert page.send("POST", "/replies", 400, kind=kind)["error"]["message"].startswith("Only a bot")


def test_a_message_during_a_reply_is_refused_with_a_hint_and_ends_the_chain(room, model):
    room.set(turn_order="all")
    model.gate.clear()
    reply = room.send("POST", "/messages", text="hello everybody in the room")["reply"]
    refused = room.send("POST", "/messages", 409, text="wait!")
    assert refused["error"]["code"] == "busy" and "Marlow is still writing" in refused["error"]["message"]
    assert refused["session"]["replies"] == [reply]
    model.gate.set()
    messages = room.finish(reply)
    assert len(messages) == 1 and messages[0]["finish_reason"] == "eos"  # the others do not speak any more
    assert len(room.say("now then")) == 3


def test_a_message_that_interrupts_stops_the_reply_and_comes_after_it(room, model):
    room.set(turn_order="all")
    model.gate.clear()
    room.send("POST", "/messages", text="long story")
    wait_until(lambda: model.running)
    body = room.send("POST", "/messages", text="stop, please", interrupt=True)
    model.gate.set()
    answers = room.finish(body["reply"])
    assert len(answers) == 3
    texts = room.shown()
    assert texts[0] == "long story" and texts[2] == "stop, please"
    cut = room.session["messages"][1]
    assert cut["text"] == texts[1] and cut["finish_reason"] == "cancelled"


def test_what_a_running_reply_hangs_on_cannot_be_changed(page, model):
    model.gate.clear()
    body = page.send("POST", "/messages", text="long")
    assert page.send("DELETE", f"/messages/{body['message']['id']}", 409)["error"]["code"] == "busy"
    assert page.send("PATCH", f"/messages/{body['message']['id']}", 409, text="x")["error"]["code"] == "busy"
    assert page.send("POST", "/replies", 409, kind="next")["error"]["code"] == "busy"
    page.client.post(f"/api/replies/{body['reply']['reply_id']}/stop")
    page.finish(body["reply"])


def test_everyone_answers_once(room):
    room.set(turn_order="all")
    room.say("hello")
    assert room.names() == ["User", "Marlow", "Otto", "Lin"]


def test_in_turn_the_next_one_answers(room):
    for _ in range(4):
        room.say("hello")
    assert room.names()[1::2] == ["Marlow", "Otto", "Lin", "Marlow"]


def test_who_is_named_answers_and_muted_ones_do_not(room):
    room.set(turn_order="mention")
    room.say("Lin and Otto, what do you say?")
    assert room.names()[1:] == ["Lin", "Otto"]
    room.set(turn_order="all", bots=[{"id": MARLOW, "muted": False}, {"id": OTTO, "muted": True},
                                     {"id": LIN, "muted": False}])
    room.say("all of you")
    assert room.names()[-2:] == ["Marlow", "Lin"]


def test_the_model_decides_from_the_transcript(room, model):
    room.set(turn_order="model", user_name="Ann")
    room.say("I think of Lin")
    assert room.names()[-1] == "Lin"
    assert model.ranked[-1] == ([("Ann", "I think of Lin")], ["Marlow", "Otto", "Lin"])


def test_a_model_that_cannot_decide_leaves_the_message_without_a_reply(room, model):
    room.set(turn_order="model")
    model.rank_error = RuntimeError("no")
    body = room.send("POST", "/messages", text="hello")
    assert body["reply"] is None and room.shown() == ["hello"]


def test_on_click_only_the_clicked_one_speaks(room):
    room.set(turn_order="manual")
    assert room.send("POST", "/messages", text="hello")["reply"] is None
    room.reply("next", bot=OTTO)
    assert room.names() == ["User", "Otto"]


def test_bots_among_themselves_take_the_turns_that_were_asked_for(room):
    room.reply("next", turns=5)
    assert room.names() == ["Marlow", "Otto", "Lin", "Marlow", "Otto"]
    assert room.send("POST", "/replies", 400, kind="next", turns=51)["error"]["message"].startswith("turns")


def test_letting_everyone_speak_once_needs_no_message(room):
    room.set(turn_order="all")
    room.reply("next")
    assert room.names() == ["Marlow", "Otto", "Lin"]


def test_stop_ends_the_whole_chain(client, room, model):
    model.gate.clear()
    reply = room.send("POST", "/replies", kind="next", turns=20)["reply"]
    wait_until(lambda: model.running)
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    model.gate.set()
    assert len(room.finish(reply)) == 1
    assert room.load()["session"]["replies"] == []


def test_stop_of_an_earlier_reply_of_the_chain_ends_it_too(client, room, model):
    model.scripts = ["the first one"]
    reply = room.send("POST", "/replies", kind="next", turns=20)["reply"]
    model.delay = 0.3
    room.events(reply)
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    wait_until(lambda: not room.load()["session"]["replies"])
    assert len(room.session["messages"]) < 20


def test_an_error_ends_the_chain(room):
    room.set(turn_order="all")
    assert len(room.say("fail please")) == 1


def test_the_room_is_shown_to_the_model_as_it_is(room, model):
    room.set(user_name="Ann", system_prompt="It rains.")
    room.say("hi", bot=OTTO)
    started = model.started[-1]
    assert started["messages"][0].content.endswith(
        "It rains.\nPeople in the room: Ann, Marlow, Otto, Lin. You are Otto. Write only what Otto says.")
    assert started["params"].stop == ("\nAnn:", "\nMarlow:", "\nLin:") and started["name"] == "Otto"


def test_a_bot_that_is_not_in_the_room_does_not_speak(page):
    assert page.send("POST", "/messages", 400, text="hi", bot=OTTO)["error"]["hint"] == "Add it first."
    assert page.load()["session"]["messages"] == []


def test_the_list_shows_which_session_is_being_written(client, page, model):
    model.gate.clear()
    reply = page.send("POST", "/messages", text="long")["reply"]
    (entry,) = client.get("/api/sessions").json["sessions"]
    assert entry["writing"]["reply_id"] == reply["reply_id"] and entry["writing"]["bot"] == MARLOW
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    page.finish(reply)
    assert client.get("/api/sessions").json["sessions"][0]["writing"] is None


def test_deleting_a_session_stops_its_reply_and_undo_brings_both_back(client, page, model):
    model.gate.clear()
    page.send("POST", "/messages", text="long")
    wait_until(lambda: model.running)
    undo = client.delete(page.url).json["undo"]
    assert client.get(page.url).status_code == 404 and not model.running
    session = client.post("/api/sessions/restore", json={"undo": undo}).json["session"]
    assert session["messages"][0]["text"] == "long" and len(session["messages"]) == 2


def test_when_the_disk_is_full_the_reply_is_told_and_comes_back_later(model, tmp_path):
    write_bots(tmp_path / "bots")
    disk = FailingDisk()
    store = Store(tmp_path, disk=disk)
    page = Page(create_app(model, store).test_client())
    model.gate.clear()
    reply = page.send("POST", "/messages", text="hello")["reply"]
    wait_until(lambda: model.running)
    disk.fails_always = "replace"
    model.gate.set()
    last = page.events(reply)[-1]
    assert last.name == "error" and "No space left" in last.data["message"] and last.data["revision"] is None
    assert last.data["partial"]["text"].startswith("You said")
    disk.fails_always = ""
    page.load()  # first of all the journal is brought in
    assert page.shown() == ["hello", last.data["partial"]["text"]]
    answers = page.say("again")
    assert page.shown()[2:] == ["again", answers[0]["text"]]
    assert not list(store.journal_folder.iterdir())
    store.close()


def test_too_many_streams_are_told_to_come_back(store, model):
    app = create_app(model, store, most_streams=1)
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
    monkeypatch.setattr("webui.replies.HEARTBEAT_SECONDS", 0.02)
    model.prompt_delay, model.prompt_steps = 0.3, 1
    reply = page.send("POST", "/messages", text="hi")["reply"]
    body = client.get(f"/api/replies/{reply['reply_id']}/events").data
    assert body.count(b": beat\n\n") > 3 and parse_events(body)[-1].name == "done"


def test_text_that_comes_fast_is_sent_together_and_the_first_at_once(monkeypatch):
    log, slept = EventLog(), []

    def sleep(seconds):
        slept.append(seconds)
        for word in ("b", "c", "d"):
            log.append("text", {"text": word})
        if len(slept) == 2:
            log.end("done", {})

    monkeypatch.setattr("webui.replies.time.sleep", sleep)
    log.append("start", {})
    log.append("text", {"text": "a"})
    chunks = [parse_events(chunk) for chunk in event_chunks(log, 0)]
    assert [[(e.name, e.data.get("text")) for e in chunk] for chunk in chunks] == [
        [("start", None), ("text", "a")], [("text", "bcd")], [("text", "bcd"), ("done", None)]]
    assert slept == [COALESCE_SECONDS] * 2 and COALESCE_SECONDS == 0.04


def test_closing_keeps_all_partial_text_even_of_a_model_that_does_not_let_go(app, page, store, monkeypatch):
    started = threading.Event()
    release = threading.Event()

    def events(self):
        yield TextDelta("half a ", "text", 1)
        yield TextDelta("sentence", "text", 2)
        started.set()
        release.wait(20)

    monkeypatch.setattr("tests.fake_model.FakeReply.events", events)
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


def test_no_reply_begins_while_the_server_ends(app, page):
    parlor(app).close("bye", 0.1)
    assert page.send("POST", "/messages", 503, text="hello")["error"]["code"] == "too_many"


def test_many_quick_replies_at_once_leave_nothing_behind(app, client, model, store):
    pages = [Page(client) for _ in range(8)]
    threads = [threading.Thread(target=lambda p=p: [p.say("hi") for _ in range(5)]) for p in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(page.shown()) == 10 for page in pages)
    assert not list(store.journal_folder.iterdir()) and model.running == 0 and len(parlor(app).streams) == 0
