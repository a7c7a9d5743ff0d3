"""Answers that carry what changed: whoever puts them together has the session as it is, after anything."""

from __future__ import annotations

import random

import pytest

from tests.helpers.api import MARLOW, OTTO, Page
from webui.storage import revisions
from webui.storage.revisions import Revisions
from webui.storage.schema import USER, new_message


class Follower:
    """A tab that asks for what changed, and puts it together as docs/http-api.md says."""

    def __init__(self, page):
        self.page, self.client = page, page.client
        self.session = self.client.get(page.url).json["session"]
        self.whole_answers = 0

    def ask(self, method="GET", path="", **body):
        known = {"Known-Revision": self.session["revision"]}
        answer = self.client.open(self.page.url + path, method=method, json=body or None, headers=known).json
        if "session" not in answer:
            return answer
        session = answer["session"]
        if "delta" not in answer:
            self.whole_answers += 1
        else:
            assert "messages" not in session and answer["delta"]["since"] == self.session["revision"]
            changed = answer["delta"]["changed"]
            gone = {*answer["delta"]["removed"], *(message["id"] for _, message in changed)}
            messages = [message for message in self.session["messages"] if message["id"] not in gone]
            for index, message in changed:
                messages.insert(index, message)
            session["messages"] = messages
        self.session = session
        return answer

    def has_all(self):
        assert self.session == self.client.get(self.page.url).json["session"]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_by_this_tab_and_others_the_session_put_together_is_the_session(page, seed):
    rng = random.Random(seed)
    page.say("hello")
    mine, other = Follower(page), Follower(page)
    undone = []
    for _ in range(40):
        tab = rng.choice((mine, other))
        tab.ask()  # its revision is the current one now
        messages = tab.session["messages"]
        kind = rng.choice(("say", "edit", "erase", "undo", "title", "leaf", "nothing", "back", "forth"))
        revision = tab.session["revision"]
        if kind == "say" or not messages:
            tab.ask("POST", "/messages", revision=revision, text="more", reply=False)
        elif kind == "edit":
            text = str(rng.random())
            tab.ask("PATCH", f"/messages/{rng.choice(messages)['id']}", revision=revision, text=text)
        elif kind == "erase":
            answer = tab.ask("DELETE", f"/messages/{rng.choice(messages)['id']}", revision=revision)
            undone.append(answer["undo"])
        elif kind == "undo" and undone:
            tab.ask("POST", "/undo", revision=revision, step=undone.pop())
        elif kind == "back" and tab.session["history"]["undo"]:
            tab.ask("POST", "/undo", revision=revision)
        elif kind == "forth" and tab.session["history"]["redo"]:
            tab.ask("POST", "/redo", revision=revision)
        elif kind == "title":
            tab.ask("PATCH", "", revision=revision, title=f"Title {rng.random()}")
        elif kind == "leaf":
            tab.ask("PATCH", "", revision=revision, leaf=rng.choice(messages)["id"])
        tab.has_all()
    for tab in (mine, other):
        tab.ask()
        tab.has_all()
    assert mine.whole_answers + other.whole_answers == 0


def test_a_reply_comes_as_one_message(page):
    tab = Follower(page)
    page.say("hello")
    answer = tab.ask()
    tab.has_all()
    assert [message["author"] for _, message in answer["delta"]["changed"]] == ["user", MARLOW]
    page.reply("regenerate")
    assert len(tab.ask()["delta"]["changed"]) == 1
    tab.has_all()


def test_a_refusal_that_shows_the_session_carries_what_changed(client, page):
    tab = Follower(page)
    page.send("POST", "/messages", text="from another tab", reply=False)
    old = tab.session["revision"]
    answer = tab.ask("POST", "/messages", revision=old, text="from here")
    assert answer["error"]["code"] == "stale" and len(answer["delta"]["changed"]) == 1
    tab.has_all()
    refused = client.post(page.url + "/messages", json={"revision": old, "text": "from here"},
                          headers={"Known-Revision": "x"})
    assert refused.status_code == 400 and "session" not in refused.json


def test_who_has_a_revision_that_is_not_known_any_more_gets_the_whole_session(page, store, monkeypatch):
    tab = Follower(page)
    monkeypatch.setattr(revisions, "KEPT_REVISIONS", 3)
    for _ in range(4):
        page.send("POST", "/messages", text="more", reply=False)
    tab.ask()
    assert tab.whole_answers == 1
    tab.ask()
    assert tab.whole_answers == 1, "the answer before was noted"
    store.sessions._forget(page.session["id"])
    page.send("POST", "/messages", text="read from disk again", reply=False)
    tab.ask()
    tab.has_all()
    page.send("POST", "/messages", text="and on", reply=False)
    tab.ask()
    tab.has_all()


def test_another_session_of_the_same_revision_is_another_one(client):
    first, second = Page(client), Page(client, OTTO)
    tab = Follower(first)
    tab.page = second
    tab.session = {**tab.session, "revision": 999}
    tab.ask()
    tab.has_all()


@pytest.mark.parametrize("known", ["", "x", "-1", "1e3", "9" * 30])
def test_a_known_revision_that_is_no_number_is_refused(client, page, known):
    assert client.get(page.url, headers={"Known-Revision": known}).status_code == 400


def test_sessions_that_are_not_looked_at_any_more_are_forgotten(monkeypatch):
    monkeypatch.setattr(revisions, "KEPT_SESSIONS", 2)
    known = Revisions()
    sessions = [{"id": str(number), "revision": 1, "messages": [new_message(USER, "User", "x", None)]}
                for number in range(3)]
    for session in sessions:
        known.note(session)
    assert [known.delta(session, 1) is None for session in sessions] == [True, False, False]
