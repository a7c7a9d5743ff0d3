"""One range for each field, whichever door it comes in by: an import, a file in the folder, the interface.

What is out of range is refused before anything is saved, or set aside when it lies in the folder already;
nothing that was taken breaks a later action.
"""

from __future__ import annotations

import copy
import json
import shutil

import pytest

from model import ModelSlot
from tests.helpers.api import MARLOW, OTTO, Page
from tests.helpers.failing_disk import FailingDisk
from webui import create_app
from webui.storage import schema
from webui.storage.store import MAX_KNOWN_BOTS, Store

ANN = "b0b0b0b0b0b0b001"
BOT = {"schema_version": 1, "id": ANN, "revision": 1, "name": "Ann", "color": "#123456", "persona": "",
       "greeting": "", "sampling": {}, "created": 1.0}
MESSAGES = [
    {"id": "0000000000000001", "parent": None, "author": "user", "name": "User", "text": "hello",
     "thinking": "", "created": 1_700_000_000.0},
    {"id": "0000000000000002", "parent": "0000000000000001", "author": ANN, "name": "Ann", "text": "hi",
     "thinking": "", "created": 1_700_000_001, "model": "m", "finish_reason": "eos", "error": "",
     "sampling": {"temperature": 0.5, "of_a_later_version": [1]}, "seed": 5, "new_tokens": 2}]
SESSION = {"schema_version": 1, "id": "00000000000000aa", "revision": 1, "title": "A session",
           "title_is_auto": False, "created": 1_700_000_000.0, "updated": 1_700_000_000.0,
           "bots": [{"id": ANN, "muted": False}], "user_name": "", "system_prompt": "",
           "turn_order": "in_turn", "sampling": {}, "preset": "balanced", "leaf": "0000000000000002",
           "messages": MESSAGES}

MOMENTS = [1.7e15, 1e18, -1, 10**30, True, None, "1", [], 32_503_680_001]
COUNTS = [10**400, -1, 1e300, True, "5", []]
NAMES = ["x" * 61, "", " a", "a:b", "a\nb", "a\x00b", "a\x85b", "a\u2028b", None, 5, ["a"]]
NAMES_OR_NONE = [name for name in NAMES if name != ""]
SAMPLINGS = [{"banned_tokens": [1 << 31]}, {"banned_tokens": [-1]}, {"banned_tokens": [True]},
             {"banned_tokens": 5}, {"banned_tokens": [1.0]}, {"logit_bias": {"2147483648": 1}},
             {"logit_bias": {"-1": 1}}, {"logit_bias": {"1_0": 1}}, {"logit_bias": {" 5": 1}},
             {"logit_bias": {"٣": 1}}, {"logit_bias": {"05": 1}}, {"logit_bias": {"9" * 5_000: 1}},
             {"logit_bias": {"1": 101}}, {"logit_bias": [1]}, {"stop": "ae"}, {"stop": [""]}, {"stop": [5]},
             {"stop": ["x"] * 17}, {"seed": 1 << 53}, {"seed": 1.5}, {"temperature": 5.1},
             {"samplers": ["x"]}, {"samplers": ["top_k"] * 2}, {"samplers": ["top_k", "dry"]},
             {"samplers": [[]]}, {"samplers": "top_k"}, {"dry_sequence_breakers": [""]}, {"mirostat": 1},
             {"temperature": None}, {"temperature": True}, {"max_new_tokens": 0}, None, [], "x"]
BAD_SESSION = {
    "schema_version": [True, None, "1", 1.0, -1, 0, 2, 1 << 60], "title": ["x" * 201, None, 5],
    "title_is_auto": [None, 0], "created": MOMENTS, "updated": MOMENTS,
    "user_name": NAMES_OR_NONE, "system_prompt": ["x" * 50_001, None],
    "note": [5, {}, {"text": "x"}, {"text": None, "depth": 1}, {"text": "x", "depth": 0},
             {"text": "x", "depth": 101}, {"text": "x" * 50_001, "depth": 1}],
    "lore": [None, {}, [5], [{"keys": ["a"]}], [{"keys": "a", "text": "x"}], [{"keys": [""], "text": "x"}],
             [{"keys": ["a"] * 11, "text": "x"}], [{"keys": ["a" * 101], "text": "x"}],
             [{"keys": ["a"], "text": None}], [{"keys": ["a"], "text": "x" * 50_001}],
             [{"keys": ["a"], "text": "x"}] * 101],
    "summaries": [None, {}, [5], [{"id": "0" * 16, "until": "x", "text": "x", "created": 1}],
                  [{"id": "0" * 16, "until": "0" * 16, "text": "", "created": 1}],
                  [{"id": "0" * 16, "until": "0" * 16, "text": "x" * 50_001, "created": 1}],
                  [{"id": "0" * 16, "until": "0" * 16, "text": "x", "created": -1}],
                  [{"id": "0" * 16, "until": "0" * 16, "text": "x", "created": 1, "for": []}],
                  [{"id": "0" * 16, "until": "0" * 16, "text": "x", "created": 1}] * 2],
    "turn_order": ["x", None, []], "sampling": [*SAMPLINGS, {"x": 1}], "preset": [None, "x", 5],
    "leaf": ["0" * 16, 5, []], "messages": [None, {}, [None], [MESSAGES[0]] * 2, [MESSAGES[1]]],
    "bots": [*([{"id": ANN, "muted": False, **entry}] for entry in (
                 {"since": "0" * 16}, {"since": 5}, {"since": []}, {"notes": None}, {"notes": "x" * 50_001})),
             None, [5], [{"id": ANN, "muted": False}] * 2, [{"id": "x", "muted": False}], [{"id": ANN}],
             [{"id": f"{number:016x}", "muted": False} for number in range(13)]]}
BAD_MESSAGE = {
    "id": ["", None, "x", "A" * 16], "parent": ["", 5, "0000000000000002", "0000000000000003"],
    "author": ["", None, "bot", 5], "name": NAMES_OR_NONE,
    "text": [None, 5, "x" * 1_000_001],
    "thinking": [None, "x" * 1_000_001], "created": MOMENTS, "edited": MOMENTS, "model": [5, "x" * 1_001],
    "error": [None, "x" * 2_001], "finish_reason": ["x", None, []],
    "for": [[], "x", ["x"], [5], [ANN] * 2, {}, True, [f"{number:016x}" for number in range(13)]],
    "pinned": [None, 1, "yes"], "sampling": [*SAMPLINGS], **dict.fromkeys(schema.REPLY_NUMBERS, COUNTS)}
BAD_BOT = {"schema_version": [True, None, 2], "name": NAMES, "color": ["red", None, "#12345g"],
           "persona": [None, "x" * 50_001], "greeting": [5], "sampling": [*SAMPLINGS, {"x": 1}],
           "created": MOMENTS, "example_dialogue": [None, 5, "x" * 50_001],
           "alternate_greetings": [None, "x", [5], ["x"] * 101, ["x" * 50_001]],
           "lore_book": [[], {}, {"entries": [{}]}, {"entries": [{"keys": [5], "content": ""}]},
                         {"entries": [{"keys": [], "content": "", "constant": 1}]},
                         {"entries": [{"keys": [], "content": "x" * 50_001}]},
                         {"entries": [{"keys": [], "content": ""}] * 2_001}],
           "picture": [None, 5, "?", "aGk=", "A" * 500_000],
           "card": [None, [], {"x": "y" * (1 << 20)}]}


def documents():
    """(session, bot, what is wrong) with one field of one of them out of its range."""
    for name, values in BAD_SESSION.items():
        for value in values:
            yield {**SESSION, name: value}, BOT, f"session.{name}"
    for name, values in BAD_MESSAGE.items():
        for value in values:
            yield {**SESSION, "messages": [MESSAGES[0], {**MESSAGES[1], name: value}]}, BOT, f"message.{name}"
    for name, values in BAD_BOT.items():
        for value in values:
            yield SESSION, {**BOT, name: value}, f"bot.{name}"


def export(session=SESSION, *bots):
    return {"parlor_export": 1, "session": session, "bots": list(bots or (BOT,))}


def take_in(client, data, status=201):
    response = client.post("/api/sessions/import", json={"data": data})
    assert response.status_code == status, (response.json, str(data)[:300])
    return response.json


def names(client):
    return [bot["name"] for bot in client.get("/api/bots").json["bots"]]


def test_the_documents_themselves_are_good(client):
    session = take_in(client, export())["session"]
    assert session["messages"] == MESSAGES and names(client) == ["Marlow", "Otto", "Lin", "Ann"]


def test_an_import_with_any_field_out_of_its_range_is_refused_and_leaves_nothing(client):
    count = 0
    for session, bot, what in documents():
        error = take_in(client, export(session, bot), 400)["error"]["message"]
        assert 20 < len(error) < 400 and "Error(" not in error, (what, error)
        count += 1
    assert count > 250
    assert client.get("/api/sessions").json["sessions"] == [] and names(client) == ["Marlow", "Otto", "Lin"]


def test_a_file_with_any_field_out_of_its_range_is_set_aside_and_the_rest_starts(client, store, model):
    good = Page(client).session["id"]
    store.close()
    newer = {"session.schema_version", "bot.schema_version"}  # 2 and more are read-only, not damaged
    bad = [entry for entry in documents() if entry[2] not in newer]
    for number, (session, bot, what) in enumerate(bad):
        kind, document = ("bots", bot) if what.startswith("bot.") else ("chats", session)
        key = f"{number:016x}"
        path = store.folder / kind / f"{key}.json"
        path.write_text(json.dumps({**document, "id": key}), encoding="utf-8")
    again = Store(store.folder)
    other = create_app(ModelSlot.holding(model), again).test_client()
    assert [entry["id"] for entry in other.get("/api/sessions").json["sessions"]] == [good]
    assert names(other) == ["Marlow", "Otto", "Lin"]
    assert len(again.problems) == len(bad) == len(list((store.folder / "quarantine").iterdir()))
    again.close()


def test_what_the_interface_takes_has_the_same_ranges(client, page):
    for name, values in BAD_SESSION.items():
        if name in ("title", "user_name", "system_prompt", "note", "lore", "turn_order", "sampling",
                    "preset", "bots"):
            for value in values:
                page.send("PATCH", "", 400, **{name: value})
    for name, values in BAD_BOT.items():
        if name not in ("schema_version", "created", "card", "picture"):
            for value in values:
                assert client.post("/api/bots", json={"name": "x", name: value}).status_code == 400
                response = client.patch(f"/api/bots/{MARLOW}", json={"revision": 1, name: value})
                assert response.status_code == 400
    for value in SAMPLINGS:
        assert client.post("/api/presets", json={"name": "x", "sampling": value}).status_code == 400


def test_token_ids_that_are_set_are_those_of_the_model(client, page, model):
    most = model.info()["vocab_size"]
    preset = client.post("/api/presets", json={"name": "p", "sampling": {}}).json["preset"]["id"]
    for good, sampling in ((True, {"banned_tokens": [0, most - 1], "logit_bias": {str(most - 1): 1}}),
                           (False, {"banned_tokens": [most]}), (False, {"logit_bias": {str(most): 1}})):
        statuses = {
            page.client.patch(page.url, json={"revision": page.session["revision"],
                                              "sampling": sampling}).status_code,
            client.post("/api/bots", json={"name": "x", "sampling": sampling}).status_code,
            client.patch(f"/api/bots/{OTTO}", json={"revision": 1, "sampling": sampling}).status_code,
            client.post("/api/presets", json={"name": "x", "sampling": sampling}).status_code,
            client.put(f"/api/presets/{preset}", json={"name": "x", "sampling": sampling}).status_code}
        assert statuses <= ({200, 201} if good else {400})


def test_a_session_with_tokens_of_a_larger_model_comes_in_and_its_bots_speak(client, model):
    most = model.info()["vocab_size"]
    page = Page.__new__(Page)
    page.client = client
    page.session = take_in(client, export({**SESSION, "sampling": {"banned_tokens": [most + 5]}}))["session"]
    (reply,) = page.say("hello")
    assert reply["finish_reason"] == "eos"


def test_a_bot_twice_in_an_import_is_refused_before_the_first_is_taken(client):
    take_in(client, export(SESSION, BOT, {**BOT, "name": "Twin"}), 400)
    take_in(client, export(SESSION, BOT, {**BOT, "id": "x"}), 400)
    take_in(client, export(SESSION, BOT, 5), 400)
    assert names(client) == ["Marlow", "Otto", "Lin"]


def test_an_import_brings_no_more_bots_than_there_is_room_for(client):
    bots = [{**BOT, "id": f"{number:016x}"} for number in range(1, MAX_KNOWN_BOTS - 1)]
    response = client.post("/api/sessions/import", json={"data": export(SESSION, *bots)})
    assert response.status_code == 503 and len(names(client)) == 3
    undo = client.delete(f"/api/bots/{OTTO}").json["undo"]
    take_in(client, export(SESSION, *bots))
    assert client.post("/api/bots", json={"name": "x"}).status_code == 503
    assert client.post("/api/bots/restore", json={"undo": undo}).status_code == 503
    assert len(names(client)) == MAX_KNOWN_BOTS
    take_in(client, export(SESSION, *bots))  # its bots are here already


@pytest.mark.parametrize("failing", [0, 4, 8, 12])
def test_an_import_that_the_disk_refuses_halfway_leaves_nothing(tmp_path, model, failing):
    """At the first write of each of three bots, and of the session."""
    disk = FailingDisk()
    store = Store(tmp_path, disk=disk)
    client = create_app(ModelSlot.holding(model), store).test_client()
    bots = [{**BOT, "id": f"{number:016x}"} for number in range(3)]
    disk.fails_at = len(disk.operations) + failing
    assert client.post("/api/sessions/import", json={"data": export(SESSION, *bots)}).status_code == 507
    assert names(client) == [] and client.get("/api/sessions").json["sessions"] == []
    take_in(client, export(SESSION, *bots))
    store.close()


def test_a_bot_whose_file_cannot_be_read_is_not_overwritten_by_an_import(client, store):
    path = store.folder / "bots" / f"{ANN}.json"
    path.write_text(json.dumps({**BOT, "schema_version": 99, "color": 5}), encoding="utf-8")
    take_in(client, export())
    assert json.loads(path.read_text(encoding="utf-8"))["schema_version"] == 99


def test_half_a_surrogate_pair_and_a_byte_order_mark_keep_nobody_out(client, store, model):
    half = copy.deepcopy(SESSION)
    half["messages"][0]["text"] = "half \ud83d here"
    response = client.post("/api/sessions/import", data=json.dumps({"data": half}),
                           content_type="application/json")
    assert response.json["session"]["messages"][0]["text"] == "half \ufffd here"
    path = store.folder / "chats" / f"{SESSION['id']}.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SESSION).encode())
    assert client.get(f"/api/sessions/{SESSION['id']}").json["session"]["messages"] == MESSAGES


def test_a_reply_that_grows_beyond_what_can_be_kept_ends_there(page, model, monkeypatch):
    for module in ("webui.storage.schema", "webui.chat.reply_job"):
        monkeypatch.setattr(f"{module}.MAX_REPLY", 300)
    (reply,) = page.say("long")
    assert len(reply["text"]) == 300 and reply["finish_reason"] == "length"
    (again,) = page.reply("continue")
    assert again["text"] == reply["text"] and again["error"] == ""


def test_numbers_of_a_continued_reply_stay_within_their_range(client):
    session = copy.deepcopy(SESSION)
    session["messages"][1] |= dict.fromkeys(schema.REPLY_NUMBERS, schema.MAX_REPLY_NUMBER)
    page = Page.__new__(Page)
    page.client, page.session = client, take_in(client, export(session))["session"]
    (reply,) = page.reply("continue")
    assert reply["new_tokens"] == schema.MAX_REPLY_NUMBER and reply["error"] == ""


def test_a_bots_text_may_be_edited_at_its_own_length_and_the_users_at_theirs(client):
    page = Page.__new__(Page)
    page.client, page.session = client, take_in(client, export())["session"]
    page.send("PATCH", f"/messages/{MESSAGES[1]['id']}", text="x" * 1_000_000)
    error = page.send("PATCH", f"/messages/{MESSAGES[0]['id']}", 400, text="x" * 200_001)["error"]["message"]
    assert error == "The text has 200,001 characters; expected at most 200,000."


def test_a_trash_that_cannot_be_made_is_a_507_and_deletes_nothing(client, page, store):
    shutil.rmtree(store.folder / "trash", ignore_errors=True)
    (store.folder / "trash").write_text("no folder", encoding="utf-8")
    for path in (page.url, f"/api/bots/{MARLOW}"):
        response = client.delete(path)
        assert response.status_code == 507 and client.get(path).status_code == 200
