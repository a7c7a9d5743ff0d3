"""Chats of SillyTavern, Open WebUI, and of {role, content}: what they become, and what bad ones are told."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from tests.helpers.api import MARLOW, Page
from webui.exchange.chat_parts import moment, without_thoughts
from webui.exchange.incoming import read_incoming

TAVERN = [
    {"user_name": "Ann", "character_name": "Sera", "create_date": "2024-5-1@10h00m00s", "chat_metadata": {}},
    {"name": "Sera", "is_user": False, "mes": "Who goes there?", "send_date": "May 1, 2024 10:00am",
     "swipe_id": 1, "swipes": ["Hush.", "Who goes there?"],
     "swipe_info": [{"send_date": "2024-05-01T09:59:00.000Z",
                     "extra": {"reasoning": "quiet", "model": "m-7b"}}, {}]},
    {"name": "Ann", "is_user": True, "mes": "A friend.", "send_date": 1_714_557_660_000},
    {"name": "Marlow", "is_user": False, "mes": "Ahoy, edited.", "send_date": "2024-5-1 @10h 2m 3s 4ms",
     "extra": {}, "swipe_id": 0, "swipes": ["Ahoy.", "Hm."]}]
WEBUI = {"id": "1", "title": "outer", "created_at": 1_714_557_600, "updated_at": 1_714_557_700, "chat": {
    "title": "Two ways\nto ask", "models": ["llama3.2:latest"], "params": {"system": "Be brief."},
    "history": {"currentId": "d", "messages": {
        "a": {"id": "a", "parentId": None, "childrenIds": ["b", "c"], "role": "user", "content": "Ask",
              "timestamp": 1_714_557_601},
        "b": {"id": "b", "parentId": "a", "childrenIds": [], "role": "assistant", "content": "One",
              "model": "llama3.2:latest", "modelName": "llama3.2:latest", "timestamp": 1_714_557_602},
        "c": {"id": "c", "parentId": "a", "childrenIds": ["d"], "role": "assistant",
              "model": "llama3.2:latest", "modelName": "Marlow", "timestamp": 1_714_557_603, "content":
              '<details type="reasoning" done="true" duration="2">\n<summary>Thought for 2 s</summary>\n'
              "&gt; So &amp; so\n&gt; it is\n</details>\nTwo"},
        "d": {"id": "d", "parentId": "c", "childrenIds": [], "role": "user", "content": [
            {"type": "text", "text": "And"}, {"type": "image_url", "image_url": {"url": "data:"}}]}}}}}
ROLES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
         {"role": "assistant", "content": "<think>Hm.</think>\n\nHello"}, {"role": "tool", "content": "42"},
         {"role": "assistant", "name": "Marlow", "content": [{"type": "text", "text": "Ahoy"}, "you"]}]


def imported(client, data, status=201, **options):
    response = client.post("/api/sessions/import", json={"data": data, **options})
    assert response.status_code == status, response.json
    return response.json


def tree_of(session):
    """(parent's text, name, text, thinking) of each message."""
    texts = {message["id"]: message["text"] for message in session["messages"]}
    return [(texts.get(message["parent"]), message["name"], message["text"], message["thinking"])
            for message in session["messages"]]


def shown(session):
    page = Page.__new__(Page)
    page.session = session
    return page.shown()


def test_swipes_of_sillytavern_become_versions(client):
    session = imported(client, TAVERN, file="Sera - 2024.jsonl")["session"]
    assert session["title"] == "Sera - 2024" and session["user_name"] == "Ann"
    assert tree_of(session) == [
        (None, "Sera", "Hush.", "quiet"), (None, "Sera", "Who goes there?", ""),
        ("Who goes there?", "User", "A friend.", ""),
        ("A friend.", "Marlow", "Ahoy, edited.", ""), ("A friend.", "Marlow", "Hm.", "")]
    assert shown(session) == ["Who goes there?", "A friend.", "Ahoy, edited."]
    assert session["messages"][0]["model"] == "m-7b" and session["messages"][2]["created"] == 1_714_557_660
    assert [bot["name"] for bot in client.get("/api/bots").json["bots"]] == ["Marlow", "Otto", "Lin", "Sera"]
    assert session["bots"][1]["id"] == MARLOW
    page = Page.__new__(Page)
    page.client, page.session = client, session
    page.say("and on it goes")
    assert page.names()[-1] in ("Sera", "Marlow")


def test_a_chat_of_sillytavern_without_a_first_line_is_read_too(client):
    lines = [{"name": "You", "is_user": True, "mes": "a"}, {"name": "Lin", "mes": "b"}]
    session = imported(client, lines)["session"]
    assert [name for _, name, _, _ in tree_of(session)] == ["User", "Lin"] and session["user_name"] == ""


def test_a_tree_of_open_webui_stays_a_tree(client):
    for data in (WEBUI, [WEBUI], WEBUI["chat"]):
        session = imported(client, data)["session"]
        assert session["title"] == "Two ways to ask" and session["system_prompt"] == "Be brief."
        assert tree_of(session) == [
            (None, "User", "Ask", ""), ("Ask", "Assistant", "One", ""),
            ("Ask", "Marlow", "Two", "So & so\nit is"), ("Two", "User", "And", "")]
        assert shown(session) == ["Ask", "Two", "And"]
        assert session["messages"][1]["model"] == "llama3.2:latest"
        assert session["messages"][1]["created"] == 1_714_557_602
    assert imported(client, WEBUI)["session"]["created"] == 1_714_557_600


def test_messages_of_open_webui_stand_in_the_order_of_their_times_whatever_that_of_the_file(client):
    """Who comes in later knows nothing of what stands above. A wrong clock moves none above its parent."""
    def entry(key, parent, timestamp):
        return {"id": key, "parentId": parent, "role": "user", "content": key, "timestamp": timestamp}

    entries = [entry("d", "b", 40), entry("b", "a", 20), entry("e", "a", 30), entry("a", None, 10),
               entry("c", "d", 5)]
    chat = {"history": {"currentId": "c", "messages": {one["id"]: one for one in entries}}}
    session = imported(client, {"chat": chat})["session"]
    assert [message["text"] for message in session["messages"]] == list("abedc")
    assert shown(session) == list("abdc")


def test_versions_of_sillytavern_stand_in_the_order_of_their_times_too(client):
    """Whoever came in between two versions of an answer knows the later one alone."""
    lines = [{"name": "Ann", "is_user": True, "mes": "a", "send_date": 10},
             {"name": "Sera", "mes": "late", "send_date": 12, "swipe_id": 0, "swipes": ["late", "early"],
              "swipe_info": [{"send_date": 12}, {"send_date": 11}]},
             {"name": "Ann", "is_user": True, "mes": "b", "send_date": 5}]
    session = imported(client, lines)["session"]
    assert [message["text"] for message in session["messages"]] == ["a", "early", "late", "b"]
    assert shown(session) == ["a", "late", "b"]


def test_messages_with_roles_become_a_chat(client):
    for data in (ROLES, {"messages": ROLES}, [{"messages": ROLES}]):
        session = imported(client, data, file="x.jsonl")["session"]
        assert session["title"] == "x" and session["system_prompt"] == "Be kind."
        assert tree_of(session) == [(None, "User", "Hi", ""), ("Hi", "Assistant", "Hello", "Hm."),
                                    ("Hello", "Marlow", "Ahoy\nyou", "")]


def told(session):
    return [(name, text, thinking) for _, name, text, thinking in tree_of(session)]


@pytest.mark.parametrize(("kind", "suffix"), [
    ("sillytavern", "jsonl"), ("openwebui", "json"), ("messages", "jsonl")])
def test_what_goes_out_for_another_program_comes_in_again(client, kind, suffix):
    first = imported(client, WEBUI)["session"]
    answer = client.get(f"/api/sessions/{first['id']}/export?format={kind}")
    assert f'.{suffix}"' in answer.headers["Content-Disposition"]
    values = [json.loads(line) for line in answer.text.splitlines()]
    again = imported(client, values if kind == "sillytavern" else values[0])["session"]
    if kind == "openwebui":
        assert tree_of(again) == tree_of(first) and again["title"] == first["title"]
        assert again["system_prompt"] == "Be brief."
    else:
        assert told(again) == [("User", "Ask", ""), ("Marlow", "Two", "So & so\nit is"),
                               ("User", "And", "")]
    assert shown(again) == ["Ask", "Two", "And"]


def test_a_chat_for_sillytavern_by_hand(client):
    session = imported(client, TAVERN)["session"]
    answer = client.get(f"/api/sessions/{session['id']}/export?format=sillytavern")
    about, first, said, last = [json.loads(line) for line in answer.text.splitlines()]
    assert about["user_name"] == "Ann" and about["character_name"] == "Sera" and about["chat_metadata"] == {}
    assert {name: first[name] for name in ("name", "is_user", "mes", "extra", "swipe_id", "swipes")} == {
        "name": "Sera", "is_user": False, "mes": "Who goes there?", "extra": {}, "swipe_id": 1,
        "swipes": ["Hush.", "Who goes there?"]}
    assert first["swipe_info"][0] == {"send_date": "2024-05-01T09:59:00.000Z",
                                      "extra": {"reasoning": "quiet", "model": "m-7b"}}
    assert said == {"name": "Ann", "is_user": True, "is_system": False, "mes": "A friend.", "extra": {},
                    "send_date": "2024-05-01T10:01:00.000Z"}
    assert (last["swipes"], last["swipe_id"]) == (["Ahoy, edited.", "Hm."], 0)


def test_an_empty_session_goes_out_too(client):
    session = client.post("/api/sessions", json={}).json["session"]
    for kind in ("sillytavern", "openwebui", "messages"):
        assert client.get(f"/api/sessions/{session['id']}/export?format={kind}").status_code == 200
    assert client.get(f"/api/sessions/{session['id']}/export?format=x").status_code == 400


def test_a_file_of_many_chats_brings_all_of_them_or_none(client):
    chats = [{"messages": ROLES}] * 3
    answer = imported(client, chats, file="many.jsonl")
    assert answer["number"] == 3 and answer["session"]["title"] == "many 1"
    titles = [entry["title"] for entry in client.get("/api/sessions").json["sessions"]]
    assert sorted(titles) == ["many 1", "many 2", "many 3"]
    for wrong in ({"messages": [{"role": 5}]}, {"messages": []}, 5, ROLES[0], WEBUI, TAVERN,
                  {"messages": [{"role": "user", "content": "x" * 200_001}]}):
        error = imported(client, [*chats, wrong], 400)["error"]["message"]
        assert error.startswith("This file cannot be taken: chat 4: ") and len(error) < 250, error
    assert "at most 1,000" in imported(client, chats * 400, 400)["error"]["message"]
    assert len(client.get("/api/sessions").json["sessions"]) == 3


def test_a_disk_that_fills_up_at_the_second_chat_leaves_none(client, store, monkeypatch):
    taken = []

    def add(session, real=store.add_session):
        if taken:
            raise OSError(28, "No space left on device")
        taken.append(real(session))
        return taken[0]

    monkeypatch.setattr(store, "add_session", add)
    client.post("/api/sessions/import", json={"data": [{"messages": ROLES}] * 2})
    assert taken and client.get("/api/sessions").json["sessions"] == []
    assert [bot["name"] for bot in client.get("/api/bots").json["bots"]] == ["Marlow", "Otto", "Lin"]


WRONG = [
    ([{"user_name": "A"}, {"name": "B"}], 'line 2 is no message of SillyTavern\'s (it has no text "mes")'),
    ([{"mes": "a"}, 5], "line 2 is no message"),
    ([{"mes": "x" * 1_000_001}], "messages[0].text has 1,000,001"),
    ([{"role": "user", "content": 5}], "message 1 has no text"),
    ([{"role": "user"}, {}], "message 2 has no role"),
    ([{"role": "user", "content": [{"type": "text"}]}], "message 1 has a part without text"),
    ([{"role": "system", "content": "x" * 50_001}], "the system prompt has 50,001 characters"),
    ({"history": {"messages": {"a": {"content": "x"}}}}, "message a has no role"),
    ({"history": {"messages": {"a": {"role": "user", "content": "x", "parentId": "a"}}}}, "does not lead up"),
    ({"history": {"messages": {"a": {"role": "user", "content": {}}}}}, "message a has no text")]


def test_a_damaged_chat_is_told_and_nothing_changes(client):
    for data, said in WRONG:
        error = imported(client, data, 400, file="chat.jsonl")["error"]["message"]
        assert error.startswith("chat.jsonl cannot be taken: ") and said in error, error
    assert client.get("/api/sessions").json["sessions"] == []


def test_moments_however_they_are_written():
    ten = datetime(2024, 5, 1, 10, 2, 3, tzinfo=timezone.utc).timestamp()
    here = datetime(2024, 5, 1, 10, 2, 3).timestamp()
    for value in (ten, ten * 1000, str(int(ten)), "2024-05-01T10:02:03Z", "2024-05-01T12:02:03+02:00"):
        assert moment(value) == ten, value
    for value in ("2024-5-1 @10h 2m 3s 4ms", "2024-5-1@10h2m3s", "2024-05-01 10:02:03"):
        assert moment(value) == here, value
    assert moment("May 1, 2024 10:02am") == moment("2024-5-1@10h02m") == here - 3
    for odd in (None, True, "", "x" * 1_000, "9" * 90, -1, 1e300, [], "2024-99-99 @99h 99m",
                "0001-01-01T00:00:00"):
        assert moment(odd, 7.0) == 7.0, odd


@pytest.mark.parametrize(("text", "said", "thought"), [
    ("plain", "plain", ""), ("a <think>b</think>", "a <think>b</think>", ""), ("<think>a", "<think>a", ""),
    ("<think>a\nb</think>c", "c", "a\nb"),
    ('<details type="reasoning" done="true">\n> a\n> \n> b\n</details>\n c', "c", "a\n\nb")])
def test_thoughts_are_those_before_the_text(text, said, thought):
    assert without_thoughts(text) == (said, thought)


def test_a_bot_is_made_once_however_many_chats_it_speaks_in():
    found = read_incoming([{"messages": ROLES[:3]}, {"messages": ROLES[:3]}], [], "t")
    assert [bot["name"] for bot in found.bots] == ["Assistant"]
    assert [session["bots"][0]["id"] for session in found.sessions] == [found.bots[0]["id"]] * 2
