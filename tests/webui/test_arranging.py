"""Sessions in folders, with tags, pinned, many at once; their search by tags; and the trash."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.helpers.api import MARLOW, OTTO, Page
from webui.storage.arrangement import Arranging, words_and_tags
from webui.storage.schema import SESSION, new_session
from webui.storage.trash import DAY, KEPT_DAYS


def made(client, *titles: str) -> list[str]:
    return [client.post("/api/sessions", json={"bots": [MARLOW], "title": title}).json["session"]["id"]
            for title in titles]


def listed(client, query: str = "") -> dict[str, dict]:
    answer = client.get("/api/sessions", query_string={"q": query}).json
    return {entry["title"]: entry for entry in answer["sessions"]}


def arrange(client, ids, **changes):
    answer = client.patch("/api/sessions", json={"sessions": ids, **changes})
    assert answer.status_code == 200, answer.json
    return answer.json


def test_a_session_is_arranged_by_hand():
    """Tags are one whatever their capitals, in the order in which they came."""
    session = new_session([])
    full = Arranging(pinned=True, folder="Sea", add_tags=("Boats", "fog")).of(session)
    assert (full["pinned"], full["folder"], full["tags"]) == (True, "Sea", ["Boats", "fog"])
    assert Arranging(pinned=True, folder="Sea", add_tags=("boats",)).of(full) is full
    assert Arranging(add_tags=("FOG", "sun"), remove_tags=("BOATS",)).of(full)["tags"] == ["fog", "sun"]
    assert Arranging(pinned=False, folder="", remove_tags=("boats", "fog")).of(full) == session


@pytest.mark.parametrize(("typed", "words", "tags"), [
    ("#sea lamp", ["lamp"], [{"sea"}]),
    ("tag:sea", [], [{"sea"}]),
    ("#se", [], [{"sea", "seagull"}]),  # no tag is called so: all that begin so
    ("#sea #fog", [], [{"sea"}, {"fog"}]),
    ("#include <x>", ["#include", "<x>"], []),  # no tag begins so
    ("# tag: 1", ["#", "tag:", "1"], []),
    ("sea sea", ["sea"], []),
])
def test_a_search_has_words_and_tags(typed, words, tags):
    assert words_and_tags(typed, ["sea", "seagull", "fog"]) == (words, tags)


@pytest.mark.parametrize(("field", "value", "said"), [
    ("pinned", 1, "pinned is not true or false"),
    ("folder", " x", "folder is not a name of at most 60 characters"),
    ("folder", "a\nb", "folder is not a name"),
    ("folder", "x" * 61, "folder is not a name"),
    ("tags", "sea", "tags is not a list of at most 20 tags"),
    ("tags", [f"t{n}" for n in range(21)], "at most 20"),
    ("tags", ["two words"], "expected words of at most 40 characters"),
    ("tags", ["#sea"], "without # and comma"),
    ("tags", [""], "expected words"),
    ("tags", ["Sea", "sea"], "tags holds a tag twice"),
])
def test_a_wrong_arrangement_is_refused_in_a_file_and_by_the_interface(client, field, value, said):
    with pytest.raises(ValueError, match=said):
        SESSION.check({**new_session([]), field: value})
    page = Page(client)
    answer = page.send("PATCH", "", expect=400, **{field: value})
    assert said in answer["error"]["message"]


def test_sessions_are_pinned_tagged_and_moved_and_keep_their_place_in_time(client, store):
    first, second, third = made(client, "One", "Two", "Three")
    updated = {title: entry["updated"] for title, entry in listed(client).items()}
    since = store.changes.counter
    answer = arrange(client, [first, second, "0" * 16], folder="Sea", add_tags=["fog", "Lamp"], pinned=True)
    assert answer["sessions"] == [first, second]
    assert answer["failed"] == [{"id": "0" * 16, "message": "There is no such session."}]
    entries = listed(client)
    assert {title: entry["updated"] for title, entry in entries.items()} == updated
    assert (entries["One"]["pinned"], entries["One"]["folder"], entries["One"]["tags"]) == (
        True, "Sea", ["fog", "Lamp"])
    assert not {"pinned", "folder", "tags"} & set(entries["Three"])
    news = client.get(f"/api/changes?since={since}").json
    assert {entry["id"] for entry in news["sessions"]} == {first, second}  # other tabs hear of it
    on_disk = json.loads((store.folder / "chats" / f"{first}.json").read_text())
    assert on_disk["folder"] == "Sea" and on_disk["tags"] == ["fog", "Lamp"] and on_disk["pinned"] is True
    arrange(client, [first], pinned=False, folder="", remove_tags=["lamp"])
    assert listed(client)["One"].keys() == {*entries["Three"], "tags"}
    assert listed(client)["One"]["tags"] == ["fog"]
    assert client.get("/api/folders").json == {
        "folders": [{"name": "Sea", "number": 1}],
        "tags": [{"name": "fog", "number": 2}, {"name": "Lamp", "number": 1}]}
    page = Page(client)
    page.set(pinned=True, folder="Own", tags=["x"])
    assert page.session["folder"] == "Own" and third


def test_a_folder_is_renamed_and_removed_with_its_sessions_left(client):
    one, two, _ = made(client, "One", "Two", "Three")
    arrange(client, [one, two], folder="Sea")
    assert client.patch("/api/folders", json={"folder": "Sea", "name": "Ocean"}).json == {"number": 2}
    assert listed(client)["Two"]["folder"] == "Ocean"
    assert client.patch("/api/folders", json={"folder": "Sea", "name": "X"}).status_code == 404
    assert client.patch("/api/folders", json={"folder": "Ocean", "name": ""}).json == {"number": 2}
    assert client.get("/api/folders").json["folders"] == [] and len(listed(client)) == 3


def test_a_search_finds_by_tags_and_words_together(client):
    one, two, _ = made(client, "One lamp", "Two lamps", "Three lamps #fog")
    arrange(client, [one, two], add_tags=["Fog"])
    arrange(client, [two], add_tags=["sea"])
    assert set(listed(client, "#fog")) == {"One lamp", "Two lamps"}
    assert set(listed(client, "TAG:FOG lamps")) == {"Two lamps"}
    assert set(listed(client, "#fog #sea")) == {"Two lamps"}
    assert set(listed(client, "#three")) == set()
    assert client.get("/api/sessions?q=%23sea+Lamps").json["words"] == ["lamps"]
    arrange(client, [one, two], remove_tags=["fog"])
    assert set(listed(client, "#fog")) == {"Three lamps #fog"}  # it is no tag any more, but a word


def test_several_sessions_are_deleted_and_come_back_together(client):
    ids = made(client, "One", "Two", "Three")
    arrange(client, ids[:2], folder="Sea")
    answer = client.delete("/api/sessions", json={"sessions": ids[:2]}).json
    assert set(answer["undo"]) == set(ids[:2]) and answer["failed"] == []
    assert set(listed(client)) == {"Three"}
    back = client.post("/api/trash/restore", json={"undo": list(answer["undo"].values())}).json
    assert len(back["restored"]) == 2 and back["failed"] == []
    assert listed(client)["One"]["folder"] == "Sea"


@pytest.mark.parametrize(("body", "said"), [
    ({}, "sessions is missing or empty"),
    ({"sessions": []}, "sessions is missing or empty"),
    ({"sessions": ["x"]}, "sessions is not a list of at most 1000 ids"),
    ({"sessions": ["0" * 16], "tags": ["x"]}, "'tags' is not known here"),
    ({"sessions": ["0" * 16], "add_tags": ["a b"]}, "add_tags holds 'a b'"),
    ({"sessions": ["0" * 16], "folder": None}, "folder is not a name"),
])
def test_what_is_wrong_with_an_order_for_many_is_told(client, body, said):
    answer = client.patch("/api/sessions", json=body)
    assert answer.status_code == 400 and said in answer.json["error"]["message"]


def test_what_was_exported_together_comes_in_together(client, store):
    page = Page(client, MARLOW, OTTO)
    page.say("Hello to both")
    page.set(title="Talk")
    other, = made(client, "Other")
    arrange(client, [page.session["id"], other], folder="Sea", add_tags=["fog"], pinned=True)
    before = {title: store.session(entry["id"]) for title, entry in listed(client).items()}
    answer = client.post("/api/sessions/export", json={"sessions": [page.session["id"], "0" * 16, other]})
    data = json.loads(answer.data)
    assert [session["title"] for session in data["sessions"]] == ["Talk", "Other"]
    assert [bot["id"] for bot in data["bots"]] == [MARLOW, OTTO]  # each once
    client.delete("/api/sessions", json={"sessions": [page.session["id"], other]})
    client.delete(f"/api/bots/{OTTO}")
    asked = client.post("/api/sessions/import", json={"data": data, "unknown": "ask"}).json
    assert asked["unknown_bots"] == ["Otto"]
    answer = client.post("/api/sessions/import", json={"data": data})
    assert answer.status_code == 201 and answer.json["number"] == 2
    for title, entry in listed(client).items():
        came = store.session(entry["id"])
        assert came["id"] != before[title]["id"]
        differ = {name for name in came if came[name] != before[title].get(name)}
        assert differ <= {"id", "revision"}, differ  # each keeps its folder, its tags and its place in time
    data["sessions"][1]["tags"] = "fog"
    answer = client.post("/api/sessions/import", json={"data": data})
    assert answer.status_code == 400 and "session 2: tags is not a list" in answer.json["error"]["message"]
    assert len(listed(client)) == 2
    none = json.loads(client.post("/api/sessions/export", json={"sessions": ["0" * 16]}).data)
    assert none["sessions"] == [] and none["bots"] == []
    assert client.post("/api/sessions/import", json={"data": none}).status_code == 400


def test_the_trash_tells_what_is_in_it_brings_it_back_and_lets_it_go(client, store):
    page = Page(client, MARLOW)
    page.say("Hello")
    page.set(title="Talk")
    other, = made(client, "Other")
    undo = client.delete("/api/sessions", json={"sessions": [page.session["id"], other]}).json["undo"]
    bot = client.delete(f"/api/bots/{OTTO}").json["undo"]
    for days, token in enumerate((bot, undo[other], undo[page.session["id"]])):
        (file,) = store.trash.glob(f"*-{token}-*")
        os.utime(file, (time.time() - days * DAY,) * 2)
    answer = client.get("/api/trash").json
    assert [(entry["kind"], entry["name"], entry.get("num_messages")) for entry in answer["entries"]] == [
        ("bot", "Otto", None), ("session", "Other", 0), ("session", "Talk", 2)]
    assert answer["number"] == 3 and answer["entries"][2]["id"] == page.session["id"]
    assert all(entry["kept_until"] - entry["deleted"] == KEPT_DAYS * DAY for entry in answer["entries"])
    assert [entry["name"] for entry in client.get("/api/trash?from=2").json["entries"]] == ["Talk"]
    back = client.post("/api/trash/restore", json={"undo": [bot, undo[page.session["id"]], "0" * 16]}).json
    assert back["restored"] == [bot, undo[page.session["id"]]] and back["failed"][0]["id"] == "0" * 16
    assert "Talk" in listed(client) and store.bots.exists(OTTO)
    gone = client.delete("/api/trash", json={"undo": [undo[other], undo[page.session["id"]]]}).json
    assert gone["erased"] == [undo[other]] and "no longer in the trash" in gone["failed"][0]["message"]
    assert client.get("/api/trash").json == {"entries": [], "number": 0}
    assert not list(store.trash.glob("*.json"))


def test_a_damaged_file_in_the_trash_is_listed_and_no_other_is_hidden(client, store):
    one, two = made(client, "One", "Two")
    client.delete("/api/sessions", json={"sessions": [one, two]})
    (file,) = store.trash.glob(f"*-{one}.json")
    file.write_text("{")
    (store.trash / "notes.json").write_text("{}")
    assert {entry["name"] for entry in client.get("/api/trash").json["entries"]} == {"", "Two"}


def test_a_branch_has_the_name_that_was_given_to_its_first_message(client):
    page = Page(client, MARLOW)
    page.say("Hello")
    first = page.session["messages"][0]["id"]
    updated = page.session["updated"]
    page.send("PUT", f"/messages/{first}/label", label=" The calm one ")
    assert page.session["messages"][0]["label"] == "The calm one" and page.session["updated"] == updated
    revision = page.session["revision"]
    page.send("PUT", f"/messages/{first}/label", label="The calm one")
    assert page.session["revision"] == revision  # nothing changed
    refused = page.send("PUT", f"/messages/{first}/label", expect=400, label="two\nlines")
    assert "label is not a name of at most 60 characters" in refused["error"]["message"]
    page.send("PUT", f"/messages/{'0' * 16}/label", expect=404, label="x")
    page.send("PUT", f"/messages/{first}/label", label="")
    assert "label" not in page.session["messages"][0]
