"""Other engines behind the page: named, kept, chosen, spoken by; two bots of one room on two of them."""

from __future__ import annotations

import json
import logging
import os
import stat

import pytest

from model import EngineAddress, Engines, ModelSlot
from tests.helpers.api import LIN, MARLOW, OTTO, Page, read_some, wait_until
from tests.helpers.failing_disk import FailingDisk
from tests.helpers.fake_model import FakeModel
from tests.helpers.fake_server import write_bots
from tests.helpers.stand_in_engine import CLOSE, STALL, StandInEngine, end, text
from webui import create_app
from webui.chat.models import Models
from webui.chat.other_engines import OtherEngines
from webui.routes.parlor import parlor
from webui.storage.store import Store

SECRET = "sk-nobody-else-knows"


@pytest.fixture
def engine():
    with StandInEngine("small").running() as engine:
        yield engine


@pytest.fixture
def second():
    with StandInEngine("large").running() as engine:
        yield engine


@pytest.fixture
def client(app):
    yield app.test_client()
    parlor(app).slot.engines.close()


def name(client, engine, called="Box", **more):
    """Name an engine as the page does."""
    return client.post("/api/engines", json={"url": engine.url, "name": called, **more})


def listed(client):
    """What the menu shows once all lists are read."""
    client.get("/api/models")
    wait_until(lambda: not client.get("/api/models").json["looking"])
    return client.get("/api/models").json


def give(client, bot, engine, model):
    """Let the bot speak by a model of the engine."""
    known = client.get(f"/api/bots/{bot}").json["bot"]
    chosen = engine and {"id": EngineAddress(engine.url).id, "model": model}
    return client.patch(f"/api/bots/{bot}", json={"revision": known["revision"], "engine": chosen})


def load(client, engine):
    """Let the engine's first model take the place of the loaded one."""
    name(client, engine)
    model = next(one for one in listed(client)["models"] if one["host"] == engine.host)
    assert client.post(f"/api/models/{model['id']}/load", json={}).status_code == 202
    wait_until(lambda: client.get("/api/status").json["slot"]["name"] == model["name"])
    return model


def test_a_look_that_ends_while_its_answer_is_made_is_asked_for_again(app, client, engine, monkeypatch):
    name(client, engine)
    engines = parlor(app).slot.engines

    def late(_models):
        wait_until(lambda: not engines.is_looking)
        return []

    monkeypatch.setattr(Models, "adapters", late)
    assert client.get("/api/models").json["looking"]


def test_an_engine_is_named_listed_and_forgotten(client, engine):
    made = name(client, engine, key=SECRET, headers={"X-Team": SECRET})
    assert made.status_code == 201
    assert made.json["engine"] == {
        "id": EngineAddress(engine.url).id, "name": "Box", "url": engine.url, "host": engine.host,
        "has_key": True, "headers": ["X-Team"], "is_fixed": False, "is_read": False, "num_models": 0,
        "problem": ""}
    assert engine.requests == []  # nobody has asked for anything yet
    assert client.get("/api/settings").json["engines"] == [made.json["engine"]] and engine.requests == []
    body = listed(client)
    model, = (one for one in body["models"] if one["host"])
    assert (model["name"], model["place"], model["host"], model["fits"]) == (
        "small (Box)", "Box", engine.host, True)
    assert body["engines"][0]["num_models"] == 1 and body["engines"][0]["is_read"]
    assert client.delete(f"/api/engines/{made.json['engine']['id']}", json={}).status_code == 200
    assert listed(client)["engines"] == []
    assert client.delete(f"/api/engines/{made.json['engine']['id']}", json={}).status_code == 404


def test_an_engine_is_changed_and_keeps_what_is_not_given(client, engine, store):
    made = name(client, engine, key=SECRET, headers={"X-Team": SECRET, "X-More": "a"}).json["engine"]
    where = f"/api/engines/{made['id']}"
    changed = client.patch(where, json={"name": "Cellar", "headers": {"X-Team": None, "X-New": "b"}})
    assert changed.json["engine"] == {**made, "name": "Cellar", "headers": ["X-Team", "X-New"]}
    kept = store.engines.get(made["id"])
    assert (kept["key"], kept["headers"]) == (SECRET, {"X-Team": SECRET, "X-New": "b"})
    assert client.patch(where, json={"key": ""}).json["engine"]["has_key"] is False
    assert client.patch(where, json={"name": ""}).json["engine"]["name"] == engine.host
    refused = client.patch(where, json={"headers": {"X-Other": None}})
    assert refused.status_code == 400 and "X-Other has no value" in refused.text
    assert store.engines.get(made["id"])["headers"] == {"X-Team": SECRET, "X-New": "b"}
    assert client.patch(f"/api/engines/{'0' * 16}", json={"name": "x"}).status_code == 404


def test_what_is_secret_goes_to_no_other_host_than_that_for_which_it_was_given(client, engine, second, store):
    made = name(client, engine, key=SECRET, headers={"X-Team": SECRET}).json["engine"]
    where = f"/api/engines/{made['id']}"
    headers = {"X-Team": "red"}
    for body in ({}, {"key": "new"}, {"headers": headers}, {"key": "new", "headers": {"X-Team": None}}):
        refused = client.patch(where, json={"url": second.url, **body})
        assert refused.status_code == 400 and "give them again" in refused.text and SECRET not in refused.text
    assert client.patch(where, json={"url": engine.url.replace("http:", "https:")}).status_code == 400
    assert listed(client)["engines"][0]["url"] == engine.url and second.requests == []
    moved = client.patch(where, json={"url": second.url, "key": "new", "headers": headers}).json["engine"]
    assert moved["url"] == second.url
    file, = (store.folder / "engines").glob("*.json")
    assert SECRET not in file.read_text(encoding="utf-8")


def test_bots_and_the_loaded_model_go_on_at_the_new_address(client, engine, second):
    load(client, engine), give(client, OTTO, engine, "small")
    second.models[0]["id"] = "small"
    page = Page(client, MARLOW, OTTO)
    assert page.say("Marlow, hello")[0]["text"].startswith("You said")
    before = len(engine.requests)
    where = f"/api/engines/{EngineAddress(engine.url).id}"
    moved = client.patch(where, json={"url": second.url}).json["engine"]
    assert (moved["id"], moved["name"]) == (EngineAddress(second.url).id, "Box")
    assert [one["id"] for one in client.get("/api/settings").json["engines"]] == [moved["id"]]
    assert client.get(f"/api/bots/{OTTO}").json["bot"]["engine"] == {"id": moved["id"], "model": "small"}
    for bot in ("Marlow", "Otto"):
        assert page.say(f"{bot}, again")[0]["text"].startswith("You said")
    assert len(second.chats) == 2 and len(engine.requests) == before


def test_a_loaded_model_shows_the_key_that_was_given_last(client, engine):
    load(client, engine)
    page = Page(client, MARLOW)
    page.say("hello")
    engine.key = SECRET
    assert "refuses the key" in page.say("hello")[0]["error"]
    client.patch(f"/api/engines/{EngineAddress(engine.url).id}", json={"key": SECRET})
    assert page.say("hello")[0]["text"] == "You said: hello"


def test_an_engine_is_not_given_the_address_of_another(client, engine, second):
    made = name(client, engine).json["engine"]
    name(client, second, "Second")
    refused = client.patch(f"/api/engines/{made['id']}", json={"url": second.url})
    assert refused.status_code == 400 and "is an engine already" in refused.text
    assert [one["name"] for one in listed(client)["engines"]] == ["Box", "Second"]


@pytest.mark.parametrize("body", [
    {}, {"url": ""}, {"url": "ftp://box"}, {"url": f"http://me:{SECRET}@box/v1"},
    {"url": "http://box", "name": 5}, {"url": "http://box", "key": "a\nb"},
    {"url": "http://box", "headers": []}, {"url": "http://box", "more": 1},
    {"url": "http://box", "headers": {"Host": "x"}}, {"url": "http://box", "headers": {"X-A": 5}}])
def test_what_is_no_engine_is_refused(client, body):
    refused = client.post("/api/engines", json=body)
    assert refused.status_code == 400 and SECRET not in refused.text
    assert client.get("/api/settings").json["engines"] == []


def test_a_key_is_kept_for_its_owner_alone_and_never_shown_logged_or_exported(client, engine, store, caplog):
    caplog.set_level(logging.DEBUG)
    engine.key = SECRET
    name(client, engine, key=SECRET, headers={"X-Team": SECRET})
    file, = (store.folder / "engines").glob("*.json")
    assert SECRET in file.read_text(encoding="utf-8")
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    give(client, MARLOW, engine, "small")
    page = Page(client, MARLOW)
    assert page.say("hello")[0]["text"] == "You said: hello"
    engine.key = "another"
    message = page.say("again")[0]
    assert "refuses the key" in message["error"]
    texts = [client.get(path).text for path in ("/api/models", "/api/settings", "/api/status", "/api/changes",
                                                "/api/bots", page.url, f"{page.url}/export?format=json")]
    texts += [path.read_text(encoding="utf-8") for path in store.folder.rglob("*.json*") if path != file]
    assert SECRET not in "".join(texts) + caplog.text
    client.delete(f"/api/engines/{file.stem}", json={})
    assert not file.exists() and list(store.trash.glob("engine*")) == []


def test_an_engine_that_was_named_is_there_after_a_restart_with_its_key(client, engine, store):
    name(client, engine, key=SECRET)
    name(client, engine, "Renamed", key=SECRET)
    engines = Engines()
    OtherEngines(engines, store)
    state, = engines.known()
    assert (state.address.name, state.address.key, state.is_read) == ("Renamed", SECRET, False)
    (store.folder / "engines" / f"{state.address.id}.json").write_text(
        json.dumps({**store.engines.get(state.address.id), "url": "ftp://box"}))
    fresh = Store.__new__(Store)
    fresh.engines = store._documents("engines", store.engines.kind)
    again = Engines()
    OtherEngines(again, fresh)  # edited by hand: it is not used, and nothing breaks
    assert again.known() == []


def test_a_disk_that_refuses_leaves_no_engine(tmp_path, engine):
    write_bots(tmp_path / "bots")
    disk = FailingDisk()
    store = Store(tmp_path, disk=disk)
    app = create_app(ModelSlot.holding(FakeModel()), store)
    client = app.test_client()
    disk.fails_always = "replace"
    assert name(client, engine).status_code == 507
    assert client.get("/api/settings").json["engines"] == []
    disk.fails_always = ""
    assert name(client, engine).status_code == 201
    disk.fails_always = "replace"
    where = f"/api/engines/{EngineAddress(engine.url).id}"
    assert client.patch(where, json={"url": "http://elsewhere"}).status_code == 507
    assert [one["url"] for one in client.get("/api/settings").json["engines"]] == [engine.url]
    disk.fails_always = "unlink"
    assert client.delete(f"/api/engines/{EngineAddress(engine.url).id}", json={}).status_code == 507
    assert len(client.get("/api/settings").json["engines"]) == 1
    parlor(app).close("the test is over", 1.0)
    store.close()


def test_one_that_was_named_at_the_start_stays(store, engine):
    engines = Engines([EngineAddress(engine.url, "Given")])
    app = create_app(ModelSlot.holding(FakeModel(), engines), store)
    client = app.test_client()
    assert client.get("/api/settings").json["engines"][0]["is_fixed"] is True
    assert client.delete(f"/api/engines/{EngineAddress(engine.url).id}", json={}).status_code == 400
    assert name(client, engine).status_code == 400
    assert list((store.folder / "engines").glob("*.json")) == []
    parlor(app).close("the test is over", 1.0)


def test_its_model_takes_the_place_of_the_loaded_one_and_all_goes_on_as_usual(client, engine):
    load(client, engine)
    page = Page(client, MARLOW)
    reply = page.say("hello there")[0]
    assert reply["text"] == "You said: hello there" and reply["model"] == "small (Box)"
    assert (reply["finish_reason"], reply["new_tokens"], reply["cached_tokens"]) == ("eos", 4, 1)
    assert reply["seed"] == engine.chats[0]["seed"] and reply["seconds_to_first_token"] > 0
    again = page.reply("regenerate")[0]
    assert (again["text"], again["parent"]) == (reply["text"], reply["parent"]) and again["id"] != reply["id"]
    engine.script = [text(" And on."), end()]
    more = page.reply("continue")[0]
    assert more["text"] == "You said: hello there And on." and more["id"] == again["id"]
    context = page.load()["context"]
    assert context["about"] is True and context["prompt_tokens"] > 0 and context["max_seq_len"] is None
    status = client.get("/api/status").json
    assert status["model"]["host"] == engine.host and status["engine"]["problem"] is None


def test_what_its_engine_cannot_do_is_refused_with_a_sentence(client, engine):
    engine.continues = engine.echoes = False
    load(client, engine)
    page = Page(client, MARLOW, OTTO)
    first = page.say("hello")[0]
    refused = page.send("POST", "/replies", 400, kind="continue")
    assert "cannot be continued" in refused["error"]["message"]
    refused = page.send("PATCH", "", 400, turn_order="model")
    assert "cannot decide who speaks" in refused["error"]["message"]
    page.load()
    kept = next(one for one in page.session["messages"] if one["id"] == first["id"])
    assert kept["text"] == first["text"] and not kept["error"]


def test_two_bots_of_a_room_speak_by_two_engines_and_one_by_our_model(client, engine, second, model):
    name(client, engine), name(client, second, "Two")
    give(client, MARLOW, engine, "small"), give(client, OTTO, second, "large")
    page = Page(client, MARLOW, OTTO)
    page.set(bots=[{"id": bot, "muted": False} for bot in (MARLOW, OTTO, LIN)], turn_order="all")
    replies = page.say("hello")
    assert [one["model"] for one in replies] == ["small (Box)", "large (Two)", "fake-1M"]
    assert "You are Marlow" in engine.chats[0]["messages"][0]["content"]
    assert "Marlow: You said" in second.chats[0]["messages"][-1]["content"]
    assert len(model.started) == len(engine.chats) == len(second.chats) == 1


def test_a_bot_with_an_engine_of_its_own_needs_no_loaded_model(store, engine):
    shelf = ModelSlot.holding(FakeModel())
    app = create_app(shelf, store)
    client = app.test_client()
    shelf.unload()
    assert shelf.wait().phase == "empty"
    page = Page(client, MARLOW)
    assert page.send("POST", "/messages", 409, text="hello")["error"]["code"] == "no_model"
    name(client, engine), give(client, MARLOW, engine, "small")
    assert page.say("hello")[0]["text"] == "You said: hello"
    give(client, MARLOW, None, "")
    assert page.send("POST", "/messages", 409, text="hello")["error"]["code"] == "no_model"
    parlor(app).close("the test is over", 1.0)
    shelf.close()


def test_whom_the_loaded_model_chooses_speaks_by_an_engine_of_its_own(client, engine, room):
    name(client, engine), give(client, OTTO, engine, "small")
    room.set(turn_order="model")
    reply = room.say("Otto, are you there?")[0]
    assert (reply["name"], reply["model"]) == ("Otto", "small (Box)")


def test_stopping_closes_the_connection_and_keeps_the_text(client, engine):
    name(client, engine), give(client, MARLOW, engine, "small")
    engine.script = [text("One "), STALL]
    page = Page(client, MARLOW)
    reply = page.send("POST", "/messages", text="hello")["reply"]
    read_some(client, reply)
    client.post(f"/api/replies/{reply['reply_id']}/stop", json={})
    message = page.finish(reply)[0]
    assert (message["text"], message["finish_reason"]) == ("One", "cancelled")
    assert engine.closed.wait(1.0)


def test_a_reply_whose_engine_is_still_being_asked_can_be_stopped(client, engine):
    name(client, engine), give(client, MARLOW, engine, "small")
    engine.pieces = lambda body: [STALL]
    page = Page(client, MARLOW)
    reply = page.send("POST", "/messages", text="hello")["reply"]
    wait_until(lambda: any(path.endswith("completions") for path, _, _ in engine.requests))
    client.post(f"/api/replies/{reply['reply_id']}/stop", json={})
    assert page.finish(reply)[0]["finish_reason"] == "cancelled"
    assert engine.closed.wait(1.0)


def test_what_breaks_is_an_error_on_the_message_with_its_text_and_the_next_reply_works(client, engine):
    name(client, engine), give(client, MARLOW, engine, "small")
    page = Page(client, MARLOW)
    engine.script = [text("One "), CLOSE]
    message = page.say("hello")[0]
    assert (message["text"], message["finish_reason"]) == ("One", "error")
    assert "The engine Box" in message["error"] and "closed the connection" in message["error"]
    engine.script = None
    assert page.reply("regenerate")[0]["text"] == "You said: hello"
    engine.models[0]["id"] = "other"
    message = page.reply("regenerate")[0]
    assert message["error"].startswith("The engine Box") and "small does not exist" in message["error"]
    message = page.reply("regenerate")[0]  # by now its list is known
    assert "has no model small any more; it has other" in message["error"]


def test_a_bot_whose_engine_was_removed_says_so_on_its_message(client, engine):
    name(client, engine), give(client, MARLOW, engine, "small")
    client.delete(f"/api/engines/{EngineAddress(engine.url).id}", json={})
    page = Page(client, MARLOW)
    message = page.say("hello")[0]
    assert "not known here any more" in message["error"] and engine.chats == []
    assert "not known" in page.load()["context"]["problem"] or page.load()["context"]["problem"]


def test_looking_at_a_session_sends_nothing_of_it_to_an_engine(client, engine):
    load(client, engine)
    page = Page(client, MARLOW)
    page.send("POST", "/messages", text="nobody's business", reply=False)
    before = len(engine.requests)
    assert page.load()["context"]["prompt_tokens"] > 0
    assert len(engine.requests) == before


@pytest.mark.parametrize("engine_field", [
    5, {}, {"id": "x", "model": "small"}, {"id": "a" * 16}, {"id": "a" * 16, "model": ""},
    {"id": "a" * 16, "model": "small", "url": "http://box"}])
def test_a_bots_engine_is_an_id_and_a_model_or_nothing(client, engine_field):
    revision = client.get(f"/api/bots/{MARLOW}").json["bot"]["revision"]
    refused = client.patch(f"/api/bots/{MARLOW}", json={"revision": revision, "engine": engine_field})
    assert refused.status_code == 400


def test_an_imported_bot_does_not_choose_where_text_goes(client, engine):
    name(client, engine), give(client, MARLOW, engine, "small")
    page = Page(client, MARLOW)
    data = client.get(f"{page.url}/export?format=json").json
    assert data["bots"][0]["engine"]["model"] == "small"
    client.delete(f"/api/bots/{MARLOW}", json={})
    assert client.post("/api/sessions/import", json={"data": data}).status_code == 201
    assert client.get(f"/api/bots/{MARLOW}").json["bot"]["engine"] is None
