"""Sessions, messages, bots, presets, export and import over HTTP. With a scripted model."""

from __future__ import annotations

import json

import pytest

from model import PARAMETER_SPECS, ModelSlot
from tests.helpers.api import LIN, MARLOW, OTTO, Page
from tests.helpers.fake_model import FakeModel
from webui import create_app
from webui.storage.store import Store


def error_of(response):
    return response.status_code, response.json["error"]["code"]


def test_a_new_session_has_the_first_bot(client, page):
    session = client.post("/api/sessions", json={}).json["session"]
    assert session["bots"] == [{"id": MARLOW, "muted": False}]
    assert session["title"] == "New session" and session["turn_order"] == "in_turn"
    assert session["replies"] == [] and session["leaf"] is None


def test_the_greeting_is_the_first_message(client):
    session = client.post("/api/sessions", json={"bots": [LIN]}).json["session"]
    (greeting,) = session["messages"]
    assert greeting["text"] == "Hello User, I am Lin." and greeting["author"] == LIN
    assert session["leaf"] == greeting["id"] and session["title_is_auto"]


def test_sessions_are_listed_with_the_latest_first(client):
    pages = [Page(client) for _ in range(3)]
    pages[0].say("hello")
    listed = client.get("/api/sessions").json
    assert listed["sessions"][0]["id"] == pages[0].session["id"] and len(listed["sessions"]) == 3
    assert listed["sessions"][0]["num_messages"] == 2 and listed["problems"] == []


def test_looking_at_another_version_does_not_move_a_session_up(client):
    old, new = Page(client), Page(client)
    message = old.send("POST", "/messages", text="one", reply=False)["message"]
    new.send("POST", "/messages", text="two", reply=False)
    old.set(leaf=message["id"])
    assert client.get("/api/sessions").json["sessions"][0]["id"] == new.session["id"]


def test_search_finds_titles_and_texts(client, page):
    page.say("the lighthouse keeper")
    Page(client).say("something else")
    (found,) = client.get("/api/sessions?q=LIGHTHOUSE keeper").json["sessions"]
    assert found["id"] == page.session["id"] and "lighthouse" in found["snippet"]
    assert client.get("/api/sessions?q=nothing+like+that").json["sessions"] == []


def test_all_settings_of_a_session_can_be_changed(client, page):
    page.set(title="  Mine ", user_name="Ann", system_prompt="Be brief.", turn_order="all", preset="precise",
             sampling={"top_k": 5, "stop": ["\n"]}, bots=[{"id": OTTO, "muted": True}])
    session = client.get(page.url).json["session"]
    assert session["title"] == "Mine" and not session["title_is_auto"] and session["sampling"]["top_k"] == 5
    assert session["bots"] == [{"id": OTTO, "muted": True}] and session["revision"] == 2


def test_an_own_title_stays_and_an_empty_one_is_automatic_again(page):
    page.set(title="Mine")
    page.say("hello")
    assert page.session["title"] == "Mine"
    page.set(title="  ")
    assert page.session["title"] == "New session" and page.session["title_is_auto"]


@pytest.mark.parametrize("fields", [
    {"turn_order": "random"}, {"turn_order": ["all"]}, {"sampling": {"temperature": 99}}, {"sampling": []},
    {"sampling": {"x": 1}}, {"user_name": "a:b"}, {"user_name": "a\nb"}, {"user_name": "x" * 61},
    {"user_name": 5}, {"system_prompt": None}, {"system_prompt": "x" * 50_001},
    {"bots": [{"id": "../x", "muted": False}]}, {"bots": [{"id": MARLOW}]},
    {"bots": [{"id": MARLOW, "muted": False}] * 2}, {"bots": {}}, {"title": "x" * 201}, {"title": None},
    {"preset": "nope"}, {"preset": None}, {"leaf": "0" * 16}, {"leaf": 7}, {"messages": []},
    {"id": "0" * 16}, {"revision": "1"}, {"revision": 1.0}, {"revision": True}, {"revision": -1}])
def test_what_breaks_the_rules_is_refused_and_changes_nothing(page, fields):
    before = page.load()["session"]
    response = page.client.patch(page.url, json={"revision": page.session["revision"], **fields})
    assert response.status_code in (400, 404) and response.json["error"]["message"]
    assert page.load()["session"] == before


def test_a_stale_write_gets_409_with_the_current_session(client, page):
    other = Page.__new__(Page)
    other.client, other.session = client, dict(page.session)
    page.set(title="first")
    stale = other.send("PATCH", "", 409, title="second")
    assert stale["error"]["code"] == "stale" and stale["session"]["title"] == "first"
    assert other.send("POST", "/messages", 409, text="hi")["session"]["revision"] == 2
    assert client.get(page.url).json["session"]["title"] == "first"


def test_an_edited_message_of_the_user_is_a_branch(page):
    page.say("one")
    first = page.session["messages"][0]
    page.say("two")
    page.say("one, but better", parent=first["parent"])
    assert page.shown()[0] == "one, but better" and len(page.shown()) == 2
    page.set(leaf=first["id"])
    assert len(page.shown()) == 4


def test_a_message_below_another_one_branches_there(page):
    page.say("one")
    page.say("two")
    page.say("instead", parent=page.session["messages"][1]["id"])
    assert [page.shown()[0], page.shown()[2]] == ["one", "instead"]
    page.send("POST", "/messages", 404, text="x", parent="0" * 16)


def test_editing_in_place_drops_nothing(page):
    page.say("one")
    reply = page.session["messages"][1]
    page.say("two")
    page.send("PATCH", f"/messages/{reply['id']}", text="corrected")
    assert page.shown()[1] == "corrected" and len(page.shown()) == 4


def test_deleting_a_message_moves_its_children_up(page):
    page.say("one")
    page.say("two")
    page.send("DELETE", f"/messages/{page.session['messages'][1]['id']}")
    assert page.shown()[:2] == ["one", "two"]
    page.send("DELETE", "/messages/" + "0" * 16, 404)


def test_a_deleted_message_comes_back_with_undo(page, client):
    page.say("one")
    page.say("two")
    before = page.session
    undo = page.send("DELETE", f"/messages/{before['messages'][1]['id']}")["undo"]
    other = Page(client)
    other.send("POST", "/undo", 404, step=undo)
    page.send("POST", "/undo", step=undo)
    assert page.session["messages"] == before["messages"] and page.session["leaf"] == before["leaf"]
    page.send("POST", "/undo", 404, step=undo)


@pytest.mark.parametrize("text", ["", "   \n"])
def test_an_empty_message_is_no_message(page, text):
    assert "empty" in page.send("POST", "/messages", 400, text=text)["error"]["message"]


def test_texts_have_a_limit_and_say_so(page, client):
    most = client.get("/api/settings").json["limits"]["max_text"]
    page.send("POST", "/messages", text="x" * most, reply=False)
    assert f"{most:,}" in page.send("POST", "/messages", 400, text="x" * (most + 1))["error"]["message"]


def test_refusals_are_said_in_words_that_a_person_uses(client, page):
    said = [page.send("PATCH", "", 400, **fields)["error"]["message"] for fields in (
        {"title": "x" * 201}, {"user_name": "a:b"}, {"system_prompt": "x" * 50_001})]
    said += [client.post("/api/bots", json={"name": "a", **fields}).json["error"]["message"] for fields in (
        {"name": " "}, {"persona": "x" * 50_001}, {"greeting": "x" * 50_001})]
    said.append(client.post("/api/sessions/import", json={"data": []}).json["error"]["message"])
    assert said == [
        "The title has 201 characters; expected 0 to 200.",
        "This session cannot be saved: the user's name may not hold a colon, a line break or outer spaces.",
        "This session cannot be saved: the system prompt has 50,001 characters; expected 0 to 50,000.",
        "This bot cannot be saved: the name may not hold a colon, a line break or outer spaces.",
        "This bot cannot be saved: the character has 50,001 characters; expected 0 to 50,000.",
        "This bot cannot be saved: the greeting has 50,001 characters; expected 0 to 50,000.",
        "This file cannot be taken: it is no chat and no character that Parlor knows."]


def test_unknown_fields_are_named(page):
    assert "'txt'" in page.send("POST", "/messages", 400, text="hi", txt="x")["error"]["message"]


def test_duplicate_copies_every_version(client, page):
    page.say("one")
    page.reply("regenerate")
    copy = client.post(f"{page.url}/duplicate").json["session"]
    assert copy["id"] != page.session["id"] and copy["messages"] == page.session["messages"]
    assert copy["title"] == "one (copy)" and copy["revision"] == 1
    assert client.get(f"/api/sessions/{copy['id']}").status_code == 200


def test_delete_and_undo(client, page):
    page.say("one")
    undo = client.delete(page.url).json["undo"]
    assert client.get(page.url).status_code == 404 and client.delete(page.url).status_code == 404
    assert client.get("/api/sessions").json["sessions"] == []
    back = client.post("/api/sessions/restore", json={"undo": undo}).json["session"]
    assert back["id"] == page.session["id"] and len(back["messages"]) == 2
    assert error_of(client.post("/api/sessions/restore", json={"undo": undo})) == (404, "not_found")


def test_the_context_shows_where_the_memory_begins(store):
    model = FakeModel(max_seq_len=200)
    client = create_app(ModelSlot.holding(model), store).test_client()
    page = Page(client)
    page.set(sampling={"max_new_tokens": 20})
    assert page.load()["context"] == {"first_message": None, "prompt_tokens": 14, "max_seq_len": 200,
                                      "about": False, "left_out": 0, "guide_tokens": None}
    for number in range(12):
        page.send("POST", "/messages", text=f"{number} " + "word " * 30, reply=False)
    context = page.load()["context"]
    ids = [message["id"] for message in page.session["messages"]]
    assert 0 < ids.index(context["first_message"]) < 12 and context["prompt_tokens"] <= 180


def test_settings_come_from_the_one_place(client):
    settings = client.get("/api/settings").json
    assert [row["name"] for row in settings["parameters"]] == list(PARAMETER_SPECS)
    assert settings["parameters"][5]["default"] == PARAMETER_SPECS["temperature"]["default"]
    orders = [order["id"] for order in settings["turn_orders"]]
    presets = [preset["id"] for preset in settings["presets"]]
    assert orders == ["in_turn", "mention", "all", "model", "manual"]
    assert presets == ["balanced", "precise", "creative", "greedy"]
    assert settings["limits"]["max_seq_len"] == 2048


def test_status_tells_what_runs(client):
    status = client.get("/api/status").json
    assert status["model"]["name"] == "fake-1M" and status["engine"]["running"] == 0
    assert status["uptime"] >= 0 and status["version"]


def test_presets_can_be_made_changed_and_deleted_but_not_those_that_come_along(client, page):
    dry = {"name": "Dry", "sampling": {"temperature": 0.1}}
    preset = client.post("/api/presets", json=dry).json["preset"]
    page.set(preset=preset["id"])
    page.say("temperature")
    assert page.shown()[-1].startswith("temperature 0.1")
    wet = {"name": "Wet", "sampling": {"temperature": 2.0}}
    changed = client.put(f"/api/presets/{preset['id']}", json=wet)
    assert changed.json["preset"] == {"id": preset["id"], **wet}
    assert client.get("/api/settings").json["presets"][-1]["name"] == "Wet"
    assert client.delete(f"/api/presets/{preset['id']}").status_code == 200
    page.say("temperature")  # the session falls back to Balanced
    assert page.shown()[-1].startswith("temperature 0.8")
    for response in (client.put("/api/presets/greedy", json={"name": "x", "sampling": {}}),
                     client.delete("/api/presets/balanced")):
        assert error_of(response) == (403, "refused")
    assert client.post("/api/presets", json={"name": "x", "sampling": {"top_p": 7}}).status_code == 400


def test_bots_can_be_made_changed_and_deleted(client):
    bot = client.post("/api/bots", json={"name": "Ada", "persona": "You are Ada."}).json["bot"]
    assert bot["revision"] == 1 and bot["color"].startswith("#")
    assert [b["name"] for b in client.get("/api/bots").json["bots"]] == ["Marlow", "Otto", "Lin", "Ada"]
    changed = client.patch(f"/api/bots/{bot['id']}", json={"revision": 1, "name": "Ada L."}).json["bot"]
    assert changed["name"] == "Ada L." and changed["persona"] == "You are Ada."
    stale = client.patch(f"/api/bots/{bot['id']}", json={"revision": 1, "name": "x"})
    assert stale.status_code == 409 and stale.json["current"]["name"] == "Ada L."
    undo = client.delete(f"/api/bots/{bot['id']}").json["undo"]
    assert client.get(f"/api/bots/{bot['id']}").status_code == 404
    assert client.post("/api/bots/restore", json={"undo": undo}).json["bot"]["name"] == "Ada L."


@pytest.mark.parametrize("fields", [
    {}, {"name": ""}, {"name": "a:b"}, {"name": " a"}, {"name": "a\nb"}, {"name": "x" * 61}, {"name": 5},
    {"name": "a", "color": "red"}, {"name": "a", "color": "#12345"}, {"name": "a", "sampling": {"x": 1}},
    {"name": "a", "persona": 5}, {"name": "a", "id": "x"}, {"name": "a", "color": "#00000g"},
    {"name": "a", "adapter": 5}, {"name": "a", "adapter": "x" * 101}])
def test_a_bot_that_breaks_the_rules_is_refused(client, fields):
    assert client.post("/api/bots", json=fields).status_code == 400
    assert len(client.get("/api/bots").json["bots"]) == 3


def test_a_session_of_a_deleted_bot_still_opens_and_another_can_speak(client):
    page = Page(client, MARLOW, OTTO)
    page.say("hello")
    client.delete(f"/api/bots/{MARLOW}")
    assert page.load()["session"]["messages"][1]["name"] == "Marlow"
    page.say("and now?")
    assert page.names()[-1] == "Otto"
    client.delete(f"/api/bots/{OTTO}")
    assert page.send("POST", "/messages", text="anybody?")["reply"] is None
    assert page.send("POST", "/replies", 400, kind="next")["error"]["hint"] == "Add one, or unmute one."


def test_other_tabs_follow_by_asking_what_changed(client, page):
    since = client.get("/api/status").json["changes"]
    nothing = client.get(f"/api/changes?since={since}").json
    assert nothing.pop("model")["phase"] == "ready"
    assert nothing == {"changes": since, "sessions": [], "deleted": [], "bots": False, "full": False}
    page.say("hello")
    changed = client.get(f"/api/changes?since={since}").json
    assert [entry["title"] for entry in changed["sessions"]] == ["hello"] and changed["changes"] > since
    client.post("/api/bots", json={"name": "Ada"})
    client.delete(page.url)
    changed = client.get(f"/api/changes?since={changed['changes']}").json
    assert changed["deleted"] == [page.session["id"]] and changed["bots"] and changed["sessions"] == []


def test_a_tab_from_before_a_restart_gets_everything(client, page):
    changed = client.get("/api/changes?since=17").json
    assert changed["full"] and [entry["id"] for entry in changed["sessions"]] == [page.session["id"]]


def test_an_export_comes_back_as_a_new_session_with_its_bots(client, page, model, tmp_path):
    page.say("hello 🎉")
    page.reply("regenerate")
    response = client.get(f"{page.url}/export?format=json")
    assert 'attachment; filename="hello.json"' in response.headers["Content-Disposition"]
    exported = json.loads(response.data)
    again = client.post("/api/sessions/import", json={"data": exported}).json["session"]
    assert again["messages"] == page.session["messages"] and again["id"] != page.session["id"]
    elsewhere = Store(tmp_path / "elsewhere")
    other = create_app(ModelSlot.holding(model), elsewhere).test_client()
    session = other.post("/api/sessions/import", json={"data": exported}).json["session"]
    assert session["messages"] == page.session["messages"]
    assert [bot["name"] for bot in other.get("/api/bots").json["bots"]] == ["Marlow"]
    elsewhere.close()


def test_a_session_file_itself_can_be_imported(client, page, store):
    page.say("hello")
    path = store.folder / "chats" / f"{page.session['id']}.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    response = client.post("/api/sessions/import", json={"data": data})
    assert response.status_code == 201 and len(response.json["session"]["messages"]) == 2


def test_a_session_beyond_the_usual_limit_of_a_body_comes_back_from_its_export(page, client):
    for number in range(25):
        page.say(f"{number} " + "é" * 100_000, reply=False)
    export = client.get(page.url + "/export")
    assert len(export.data) > 5_000_000
    made = client.post("/api/sessions/import", json={"data": export.json})
    assert made.status_code == 201
    assert made.json["session"]["messages"] == page.session["messages"]


def test_the_markdown_export_reads_well(client, page):
    page.set(user_name="Ann", title="Über / das <Meer>?")
    page.say("code please")
    response = client.get(f"{page.url}/export?format=markdown")
    text = response.data.decode()
    assert text.startswith("# Über / das <Meer>?\n\n**Ann** · ")
    assert "```python" in text and "**Marlow**" in text
    disposition = response.headers["Content-Disposition"]
    assert disposition.endswith("filename*=UTF-8''%C3%9Cber%20_%20das%20_Meer.md")
    assert client.get(f"{page.url}/export?format=pdf").status_code == 400


EXLLAMA = {
    "unsaved": False, "fixed_prompt": {"author": None, "text": "This is a chat.", "uuid": "1"},
    "keep_fixed_prompt": True, "participants": ["Ann", "Chatbort", "Otto"],
    "history": [{"author": "Ann", "text": "Hello", "uuid": "2"},
                {"author": "Chatbort", "text": "Chatbort: Blue!", "uuid": "3"},
                {"author": "Otto", "text": "Ahoy", "uuid": "4"},
                {"author": None, "text": "narrated", "uuid": "5"}],
    "temperature": 0.95, "top_p": 0.75, "min_p": 0.0, "top_k": 0, "typical": 0.0, "break_on_newline": True,
    "max_response_tokens": 300, "chunk_size": 128, "token_repetition_penalty_max": 1.15,
    "token_repetition_penalty_sustain": -1, "token_repetition_penalty_decay": 512}


def test_a_session_of_exllama_can_be_imported_and_goes_on(client):
    response = client.post("/api/sessions/import", json={"data": EXLLAMA, "title": "From ExLlama"})
    session = response.json["session"]
    assert session["title"] == "From ExLlama" and session["user_name"] == "Ann"
    assert session["system_prompt"] == "This is a chat."
    assert [(m["name"], m["text"]) for m in session["messages"]] == [
        ("Ann", "Hello"), ("Chatbort", "Blue!"), ("Otto", "Ahoy"), ("Ann", "narrated")]
    assert session["sampling"] == {
        "temperature": 0.95, "top_p": 0.75, "min_p": 0.0, "max_new_tokens": 300, "repetition_penalty": 1.15,
        "repetition_range": 0, "repetition_decay": 512, "stop": ["\n"]}
    bots = {bot["name"]: bot["id"] for bot in client.get("/api/bots").json["bots"]}
    assert session["bots"] == [{"id": bots["Chatbort"], "muted": False}, {"id": OTTO, "muted": False}]
    page = Page.__new__(Page)
    page.client, page.session = client, session
    page.say("and on it goes")
    assert page.names()[-1] == "Chatbort"


@pytest.mark.parametrize(("file", "title"), [
    ("My chat.json", "My chat"), ("/home/ann/a b.json", "a b"), ("C:\\\\chats\\\\late.json", "late"),
    ("", "Imported session"),
    (".json", "Imported session"), ("  \n ", "Imported session"), ("x" * 300 + ".json", "x" * 200)])
def test_a_session_of_exllama_is_titled_by_its_file(client, file, title):
    made = client.post("/api/sessions/import", json={"data": EXLLAMA, "file": file})
    assert made.json["session"]["title"] == title


def bot_names(client):
    return [bot["name"] for bot in client.get("/api/bots").json["bots"]]


def test_whoever_imports_can_be_asked_before_bots_are_made(client):
    asked = client.post("/api/sessions/import", json={"data": EXLLAMA, "unknown": "ask"})
    assert asked.status_code == 200 and asked.json == {"session": None, "unknown_bots": ["Chatbort"]}
    assert client.get("/api/sessions").json["sessions"] == []
    assert bot_names(client) == ["Marlow", "Otto", "Lin"]
    kept = client.post("/api/sessions/import", json={"data": EXLLAMA, "unknown": "keep"}).json["session"]
    assert [m["name"] for m in kept["messages"]] == ["Ann", "Chatbort", "Otto", "Ann"]
    assert bot_names(client) == ["Marlow", "Otto", "Lin"]
    page = Page.__new__(Page)
    page.client, page.session = client, kept
    page.say("and on it goes")
    assert page.names()[-1] == "Otto"
    client.post("/api/sessions/import", json={"data": EXLLAMA, "unknown": "make"})
    assert bot_names(client)[-1] == "Chatbort"
    again = client.post("/api/sessions/import", json={"data": EXLLAMA, "unknown": "ask"})
    assert again.status_code == 201  # they are known now
    assert client.post("/api/sessions/import", json={"data": EXLLAMA, "unknown": "x"}).status_code == 400


def test_odd_names_and_many_entries_of_exllama_come_in(client):
    user, bot = "A\x00nn", "B:o\nb\u2028"
    history = [{"author": bot, "text": "hi"}, {"author": user, "text": "yo"}] * 10_000
    data = {"participants": [user, bot], "history": history}
    session = client.post("/api/sessions/import", json={"data": data}).json["session"]
    assert {message["name"] for message in session["messages"]} == {"B o b", "A nn"}
    assert len(session["messages"]) == 20_000 and session["leaf"] == session["messages"][-1]["id"]


@pytest.mark.parametrize("data", [
    None, [], 5, "x", {}, {"history": 5}, {"history": [5]}, {"history": [{"author": "A"}]},
    {"history": [], "participants": [1]}, {"messages": [], "schema_version": 1},
    {"messages": 5, "schema_version": 1}, {"schema_version": 99, "messages": []},
    {"parlor_export": 1}, {"parlor_export": 1, "session": []},
    {"parlor_export": 1, "session": {"messages": []}, "bots": [{"id": "0" * 16}]}])
def test_an_import_of_something_else_is_refused_and_leaves_nothing(client, data):
    assert client.post("/api/sessions/import", json={"data": data}).status_code == 400
    assert client.get("/api/sessions").json["sessions"] == []
    assert len(client.get("/api/bots").json["bots"]) == 3


def test_damaged_files_are_told_in_the_list(client, store, model):
    (store.folder / "chats" / "00000000deadbeef.json").write_text("{", encoding="utf-8")
    assert client.get("/api/sessions/00000000deadbeef").status_code == 404
    (problem,) = client.get("/api/sessions").json["problems"]
    assert problem["file"] == "chats/00000000deadbeef.json"


@pytest.mark.parametrize("fields", [
    {"note": {"text": "It rains and rains.", "depth": 1}},
    {"lore": [{"keys": ["one"], "text": "It is wet."}]},
    {"system_prompt": "Be as brief as can be."}, {"user_persona": "A nurse."}])
def test_what_bots_are_told_is_counted_in_the_answer_that_sets_it(page, fields):
    page.say("one")
    before = page.load()["context"]["prompt_tokens"]
    assert page.send("PATCH", "", **fields)["context"]["prompt_tokens"] > before
    assert page.load()["context"]["prompt_tokens"] > before


def test_an_edited_and_a_deleted_message_are_counted_in_the_answer(page):
    page.say("one")
    first, second = page.session["messages"]
    before = page.load()["context"]["prompt_tokens"]
    longer = page.send("PATCH", f"/messages/{first['id']}", text="one " * 20)["context"]["prompt_tokens"]
    assert longer > before
    assert page.send("DELETE", f"/messages/{second['id']}")["context"]["prompt_tokens"] < longer
