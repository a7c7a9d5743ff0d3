"""Every change of a session can be undone and done again, and nothing is lost by it."""

from __future__ import annotations

import random

import pytest

from tests.helpers.api import LIN, MARLOW, OTTO, Page
from webui import strict_json
from webui.storage import history, tree
from webui.storage.history import recorded, redone, steps_of, undone, without_history
from webui.storage.schema import SESSION, USER, new_message, new_session
from webui.storage.store import Store


def begun():
    """A session with one message, whose making is over."""
    return did(new_session([]), lambda old: said(old, "one"))


def did(session, edit):
    """What the store makes of a change."""
    changed = {**edit(session), "revision": session["revision"] + 1}
    SESSION.check(changed)
    changed = recorded(session, changed)
    return strict_json.loads(strict_json.dumps(changed))


def said(session, text, parent=...):
    message = new_message(USER, "User", text, session["leaf"] if parent is ... else parent)
    return tree.with_message(session, message, leaf=message["id"])


def edited(session, text, index=-1):
    message = {**session["messages"][index], "text": text, "edited": 1.0}
    return tree.with_message(session, message, leaf=session["leaf"])


def content(session):
    """What is to come back: everything but messages that are on no branch that is shown."""
    shown = tree.path(session, session["leaf"])
    fields = {name: value for name, value in without_history(session).items()
              if name not in ("messages", "revision", "updated", "taken_replies", "history", "next")}
    return {**fields, "shown": shown}


def texts(session):
    return [message["text"] for message in tree.path(session, session["leaf"])]


def change_at_random(session, rng):
    messages = session["messages"]
    some = rng.choice(messages)
    kind = rng.randrange(9)
    if kind == 0 or len(messages) < 3:
        return said(session, str(rng.random()))
    if kind == 1:
        return said(session, str(rng.random()), rng.choice([some["parent"], some["id"]]))
    if kind == 2:
        return edited(session, str(rng.random()), messages.index(some))
    if kind == 3:
        return tree.without_message(session, some["id"])[0]
    if kind == 4:
        return {**session, "leaf": some["id"]}
    if kind == 5:
        return tree.with_label(session, some["id"], rng.choice(["", "a", "b"]))
    if kind == 6:
        return {**session, "sampling": {"temperature": rng.random(), "seed": rng.randrange(9)}}
    if kind == 7:
        bots = [{"id": key, "muted": rng.random() < 0.5} for key in rng.sample([MARLOW, OTTO, LIN], 2)]
        return {**session, "bots": bots}
    tags = [f"t{rng.randrange(9)}"]
    return {**session, rng.choice(["title", "system_prompt"]): str(rng.random()), "tags": tags}


@pytest.mark.parametrize("seed", range(20))
def test_undoing_all_changes_in_turn_shows_each_state_again_and_redoing_them_too(seed, monkeypatch):
    monkeypatch.setattr(history, "JOINED_SECONDS", -1.0)
    rng = random.Random(seed)
    session = begun()
    states = [content(session)]
    for _ in range(30):
        before = len(steps_of(session, "undo"))
        session = did(session, lambda old: change_at_random(old, rng))
        if len(steps_of(session, "undo")) > before:
            states.append(content(session))
    for _ in range(2):
        for state in reversed(states[:-1]):
            session = did(session, undone)
            assert content(session) == state
        for state in states[1:]:
            session = did(session, redone)
            assert content(session) == state
        with pytest.raises(history.NotFound, match="nothing to redo"):
            redone(session)


@pytest.mark.parametrize("seed", range(10))
def test_no_text_is_lost_however_changes_undos_and_redos_are_mixed(seed):
    """What was ever said or written over is in the session's messages or can be reached by undo and redo."""
    rng = random.Random(seed)
    session = begun()
    ever = {"one"}
    for _ in range(25):
        edit = rng.choice([undone, redone, *[lambda old: change_at_random(old, rng)] * 3])
        try:
            session = did(session, edit)
        except history.NotFound:
            continue
        ever |= {message["text"] for message in session["messages"]}
    reachable = {message["text"] for message in session["messages"]}
    while steps_of(session, "redo"):
        session = did(session, redone)
        reachable |= {message["text"] for message in session["messages"]}
    try:
        while True:
            session = did(session, undone)
            reachable |= {message["text"] for message in session["messages"]}
    except history.NotFound:
        pass
    assert ever == reachable


def test_something_said_after_an_undo_leaves_what_was_undone_beside_it():
    session = did(begun(), lambda old: said(old, "two"))
    session = did(session, undone)
    assert texts(session) == ["one"]
    session = did(session, lambda old: said(old, "other"))
    above = session["messages"][0]["id"]
    beside = [message["text"] for message in session["messages"] if message["parent"] == above]
    assert beside == ["two", "other"] and not steps_of(session, "redo")


def test_a_text_that_was_undone_before_something_else_was_done_is_reached_by_undoing_further():
    session = did(begun(), lambda old: edited(old, "corrected"))
    session = did(did(session, undone), lambda old: {**old, "title": "Another"})
    assert history.shown_history(session)["undo"]["kind"] == "settings"
    session = did(session, undone)
    assert history.shown_history(session)["undo"] | {"id": ""} == {"id": "", "kind": "edit", "undone": True}
    session = did(session, undone)
    assert texts(session) == ["corrected"]
    assert texts(did(session, undone)) == ["one"]


def test_one_step_of_several_is_undone_alone():
    session = did(begun(), lambda old: said(old, "two"))
    session = did(session, lambda old: tree.without_message(old, old["messages"][0]["id"])[0])
    deletion = steps_of(session, "undo")[-1]["id"]
    session = did(session, lambda old: said(old, "three"))
    session = did(session, lambda old: undone(old, deletion))
    assert texts(session) == ["one", "two", "three"]
    with pytest.raises(history.NotFound, match="undone before"):
        undone(session, deletion)


def test_what_is_dragged_or_typed_is_one_step_and_after_a_pause_another(monkeypatch):
    clock = [1e9]
    monkeypatch.setattr(history.time, "time", lambda: clock[0])
    session = begun()
    for value in (0.1, 0.2, 0.3):
        clock[0] += history.JOINED_SECONDS / 2
        session = did(session, lambda old, value=value: {**old, "sampling": {"temperature": value}})
    clock[0] += history.JOINED_SECONDS * 2
    session = did(session, lambda old: {**old, "sampling": {"temperature": 0.9}})
    session = did(session, lambda old: {**old, "sampling": {"temperature": 0.9, "top_p": 0.5}})
    seen = []
    while steps_of(session, "undo"):
        seen.append(session["sampling"])
        session = did(session, undone)
    assert seen[:4] == [{"temperature": 0.9, "top_p": 0.5}, {"temperature": 0.9}, {"temperature": 0.3}, {}]


def test_the_latest_steps_are_kept_as_far_as_there_is_room(monkeypatch):
    monkeypatch.setattr(history, "JOINED_SECONDS", -1.0)
    session = begun()
    for number in range(history.MAX_STEPS + 10):
        session = did(session, lambda old, number=number: {**old, "title": str(number)})
    assert len(steps_of(session, "undo")) == history.MAX_STEPS
    for letter in "xyz":
        session = did(session, lambda old, letter=letter: {**old, "messages": [
            {**old["messages"][0], "author": MARLOW, "text": letter * 900_000, "edited": 1.0}]})
    assert len(steps_of(session, "undo")) == 1
    assert did(session, undone)["messages"][0]["text"] == "y" * 900_000


def test_steps_count_for_nothing_once_another_program_changed_the_session():
    session = did(begun(), lambda old: edited(old, "corrected"))
    session = {**session, "revision": session["revision"] + 1}
    assert history.shown_history(session) == {"undo": None, "redo": None}
    session = did(session, lambda old: said(old, "two"))
    assert len(steps_of(session, "undo")) == 1


@pytest.mark.parametrize("steps", [3, [3], [{}], [{"id": "a"}], {"a": 1}])
def test_what_is_no_step_counts_for_nothing(steps):
    session = {**begun(), "undo": steps}
    assert history.shown_history(session)["undo"] is None
    assert texts(did(session, lambda old: said(old, "two"))) == ["one", "two"]


def test_a_step_that_does_not_fit_changes_nothing_that_is_there():
    session = did(begun(), lambda old: edited(old, "corrected"))
    [_, step] = session["undo"]
    gone = {**step, "changed": [{**step["changed"][0], "id": "f" * 16}], "after": {"leaf": "f" * 16}}
    session = did({**session, "undo": [gone]}, lambda old: said(old, "two"))
    session = did(session, undone)
    with pytest.raises(history.NotFound):
        undone(session)


def test_undo_and_redo_outlive_a_restart(tmp_path):
    store = Store(tmp_path / "sessions")
    session = store.add_session(new_session([]))
    key = session["id"]
    store.change_session(key, None, lambda old: said(old, "one"))
    store.change_session(key, None, lambda old: edited(old, "corrected"))
    store.change_session(key, None, undone)
    store.close()
    store = Store(tmp_path / "sessions")
    assert texts(store.change_session(key, None, redone)) == ["corrected"]
    assert texts(store.change_session(key, None, undone)) == ["one"]
    store.close()


# By HTTP


def undo(page):
    return page.send("POST", "/undo")["undone"]


def redo(page):
    return page.send("POST", "/redo")["done"]


def test_each_kind_of_change_is_undone_and_done_again_by_its_name(client):
    page = Page(client, MARLOW, OTTO)
    page.say("Marlow, one")
    message, reply = page.session["messages"]

    def bots():
        return page.session["bots"]

    changes = [
        ("settings", lambda: page.set(title="Title")),
        ("settings", lambda: page.set(system_prompt="Be brief.")),
        ("settings", lambda: page.set(note={"text": "Note", "depth": 2})),
        ("settings", lambda: page.set(lore=[{"keys": ["key"], "text": "Lore"}])),
        ("settings", lambda: page.set(turn_order="all")),
        ("settings", lambda: page.set(tags=["a"], folder="F")),
        ("sampling", lambda: page.set(sampling={"temperature": 0.3})),
        ("bot-in", lambda: page.set(bots=[*bots(), {"id": LIN, "muted": False, "notes": "Own"}])),
        ("bot-move", lambda: page.set(bots=bots()[::-1])),
        ("bot-mute", lambda: page.set(bots=[{**entry, "muted": entry["id"] == LIN} for entry in bots()])),
        ("bot-out", lambda: page.set(bots=bots()[1:])),
        ("edit", lambda: page.send("PATCH", f"/messages/{message['id']}", text="corrected")),
        ("pin", lambda: page.send("PATCH", f"/messages/{message['id']}", pinned=True)),
        ("whisper", lambda: page.send("PATCH", f"/messages/{message['id']}", **{"for": [MARLOW]})),
        ("label", lambda: page.send("PUT", f"/messages/{reply['id']}/label", label="Branch")),
        ("continue", lambda: page.reply("continue", message=reply["id"])),
        ("reply", lambda: page.reply("regenerate", message=reply["id"])),
        ("branch", lambda: page.set(leaf=reply["id"])),
        ("settings", lambda: page.send("POST", "/summaries", until=message["id"], text="Short.")),
        ("delete", lambda: page.send("DELETE", f"/messages/{message['id']}")),
        ("say", lambda: page.send("POST", "/messages", text="more", reply=False)),
    ]
    states = [content(page.session)]
    for kind, change in changes:
        change()
        page.load()
        assert page.session["history"]["undo"]["kind"] == kind
        states.append(content(page.session))
    for (kind, _), state in zip(reversed(changes), reversed(states[:-1]), strict=True):
        assert undo(page)["kind"] == kind and content(page.session) == state, kind
    for (kind, _), state in zip(changes, states[1:], strict=True):
        assert redo(page)["kind"] == kind and content(page.session) == state, kind


def test_undoing_another_version_of_a_reply_shows_the_one_before_it(page):
    page.say("one")
    first = page.shown()
    page.reply("regenerate")
    second = page.session["leaf"]
    assert undo(page)["kind"] == "reply"
    assert page.shown() == first
    redo(page)
    assert page.session["leaf"] == second


def test_while_a_reply_is_written_nothing_is_undone(page, model):
    model.scripts.append("a long reply " * 50)
    model.delay = 0.01
    started = page.send("POST", "/messages", text="one")
    error = page.send("POST", "/undo", 409)["error"]
    assert error["code"] == "busy" and "still writing" in error["message"] and "Stop" in error["hint"]
    page.send("POST", "/redo", 409)
    page.client.post(f"/api/replies/{started['reply']['reply_id']}/stop", json={})
    page.finish(started["reply"])
    assert undo(page)["kind"] == "reply"


def test_of_two_tabs_that_undo_at_once_one_hears_that_the_session_changed(page):
    page.say("one")
    other = Page(page.client)
    other.session = page.session
    undo(page)
    assert other.send("POST", "/undo", 409)["error"]["code"] == "stale"
    assert other.send("POST", "/redo", 409)["error"]["code"] == "stale"


def test_what_was_set_before_the_first_message_is_the_sessions_making(page):
    page.set(system_prompt="Be brief.", turn_order="all")
    assert page.session["history"]["undo"] is None
    page.send("POST", "/undo", 404)
    page.send("POST", "/redo", 404)


def test_a_session_whose_first_message_was_undone_gets_its_name_from_the_next(page):
    page.send("POST", "/messages", text="First words", reply=False)
    assert undo(page)["kind"] == "say" and page.session["title"] == "New session"
    page.send("POST", "/messages", text="Other words", reply=False)
    assert page.session["title"] == "Other words"


def test_what_was_deleted_is_in_no_export_and_no_copy(page, client):
    page.set(title="Title")
    page.send("POST", "/messages", text="a secret", reply=False)
    page.send("DELETE", f"/messages/{page.session['leaf']}")
    assert b"a secret" not in client.get(f"{page.url}/export?format=json").data
    several = client.post("/api/sessions/export", json={"sessions": [page.session["id"]]}).data
    assert b"Title" in several and b"a secret" not in several
    copy = client.post(f"{page.url}/duplicate", json={}).json["session"]
    assert copy["history"] == {"undo": None, "redo": None}
    exported = client.get(f"{page.url}/export?format=json").json
    exported["session"] |= {"undo": [{"id": "x"}], "history_at": 1}
    taken = client.post("/api/sessions/import", json={"data": exported}).json["session"]
    assert taken["history"]["undo"] is None and "history_at" not in taken
