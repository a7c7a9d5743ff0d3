"""A finished reply reaches its session once, whatever the disk does in the meantime."""

from __future__ import annotations

import pytest

from model import ModelSlot
from tests.helpers.api import Page, wait_until
from tests.helpers.failing_disk import FailingDisk
from tests.helpers.fake_model import FakeModel
from tests.helpers.fake_server import write_bots
from webui import create_app
from webui.chat import commits
from webui.routes.parlor import parlor
from webui.storage.store import Store

WORDS = " ".join(f"word{number}" for number in range(300))


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(commits, "RETRY_SECONDS", 60.0)  # what a test does not ask for does not happen
    monkeypatch.setattr(commits, "TRY_SECONDS", 0.0)
    return FailingDisk()


class Server:
    """An app around a folder, which can be started anew."""

    def __init__(self, folder, disk):
        write_bots(folder / "bots")
        self.folder, self.disk = folder, disk
        self.start()

    def start(self):
        self.model = FakeModel()
        self.store = Store(self.folder, disk=self.disk)
        self.app = create_app(ModelSlot.holding(self.model), self.store)
        self.client = self.app.test_client()

    def restart(self, page):
        self.end()
        self.start()
        page.client = self.client
        page.load()

    def end(self):
        parlor(self.app).close("the test is over", 1.0)
        self.store.close()

    def problems(self):
        return self.client.get("/api/sessions").json["problems"]

    def journals(self):
        return list(self.store.journal_folder.iterdir())


@pytest.fixture
def server(tmp_path, disk):
    server = Server(tmp_path, disk)
    yield server
    server.end()


def test_what_was_deleted_stays_deleted_though_its_journal_cannot_be_removed(server, disk):
    page = Page(server.client)
    disk.fails_always = "unlink"
    page.say("hello")
    reply = page.session["messages"][-1]
    page.send("DELETE", f"/messages/{reply['id']}")
    assert page.load()["session"]["messages"][-1]["text"] == "hello"
    for _ in range(2):
        server.restart(page)
        assert page.shown() == ["hello"] and not server.problems()
    disk.fails_always = ""
    server.restart(page)
    assert page.shown() == ["hello"] and not server.journals() and not server.problems()


def test_what_was_edited_stays_edited_though_the_journals_of_two_replies_cannot_be_removed(server, disk):
    page = Page(server.client)
    disk.fails_always = "unlink"
    page.say("hello")
    page.reply("continue")
    reply = page.session["messages"][-1]
    page.send("PATCH", f"/messages/{reply['id']}", text="What I wanted to read.")
    assert page.load()["session"]["messages"][-1]["text"] == "What I wanted to read."
    for _ in range(2):
        server.restart(page)
        assert page.shown() == ["hello", "What I wanted to read."]
    assert len(server.journals()) == 2


def test_a_reply_taken_over_after_a_crash_stays_deleted_too(server, disk):
    page = Page(server.client)
    server.model.gate.clear()
    page.send("POST", "/messages", text="hello")
    wait_until(server.journals)
    (path,) = server.journals()
    wait_until(lambda: path.stat().st_size)
    journal = path.read_bytes()
    parlor(server.app).close("", 1.0)
    session = page.load()["session"]
    page.send("DELETE", f"/messages/{session['messages'][-1]['id']}")
    path.write_bytes(journal)  # its removal did not reach the disk
    server.restart(page)
    assert page.shown() == ["hello"]


def test_a_session_forgets_the_replies_whose_journals_are_gone(server):
    page = Page(server.client)
    for text in ("one", "two", "three"):
        page.say(text)
    assert len(server.store.session(page.session["id"])["taken_replies"]) == 1


def full_at_the_end(server, disk, page):
    """A reply of 300 words; the disk is full from its first word on. Its last event."""
    server.model.scripts.append(WORDS)
    server.model.gate.clear()
    reply = page.send("POST", "/messages", text="hello")["reply"]
    wait_until(lambda: server.model.running)
    disk.fails_always = "write"
    server.model.gate.set()
    return page.events(reply)[-1]


def test_a_reply_that_a_full_disk_refused_is_shown_whole_and_saved_when_there_is_room(server, disk):
    page = Page(server.client)
    last = full_at_the_end(server, disk, page)
    assert last.name == "error" and "No space left" in last.data["message"] and last.data["revision"] is None
    assert last.data["partial"]["text"] == WORDS
    shown = page.load()["session"]["messages"][-1]
    assert shown["text"] == WORDS and "No space left" in shown["error"]
    (problem,) = server.problems()
    assert problem["file"].startswith("journal/") and "tried again" in problem["message"]
    disk.fails_always = ""
    page.load()
    saved = server.store.session(page.session["id"])["messages"][-1]
    assert page.shown() == ["hello", WORDS]
    assert (saved["text"], saved["finish_reason"], saved["error"]) == (WORDS, "eos", "")
    assert not server.problems() and not server.journals()
    answers = page.say("again")
    server.restart(page)
    assert page.shown() == ["hello", WORDS, "again", answers[0]["text"]]


def test_it_is_saved_without_anybody_asking(server, disk, monkeypatch):
    monkeypatch.setattr(commits, "RETRY_SECONDS", 0.01)
    page = Page(server.client)
    full_at_the_end(server, disk, page)
    disk.fails_always = ""
    wait_until(lambda: len(server.store.session(page.session["id"])["messages"]) == 2)
    wait_until(lambda: not server.problems())


def test_it_is_saved_when_the_server_ends(server, disk):
    page = Page(server.client)
    full_at_the_end(server, disk, page)
    disk.fails_always = ""
    server.restart(page)
    assert page.shown() == ["hello", WORDS] and page.session["messages"][-1]["finish_reason"] == "eos"


def test_nothing_is_changed_in_a_session_whose_reply_waits_for_the_disk(server, disk):
    page = Page(server.client)
    full_at_the_end(server, disk, page)
    message = page.load()["session"]["messages"][-1]["id"]
    for method, path, body in (("PATCH", f"/messages/{message}", {"text": "mine"}),
                               ("DELETE", f"/messages/{message}", {}), ("PATCH", "", {"leaf": message}),
                               ("POST", "/replies", {"kind": "continue", "message": message})):
        refused = page.send(method, path, 507, **body)["error"]
        assert refused["code"] == "not_saved" and "No space left" in refused["message"]
    disk.fails_always = ""
    page.load()
    page.send("PATCH", f"/messages/{message}", text="mine")
    assert page.load()["session"]["messages"][-1]["text"] == "mine"


def test_a_session_that_is_deleted_while_its_reply_waits_gets_it_with_the_undo(server, disk):
    page = Page(server.client)
    full_at_the_end(server, disk, page)
    undo = server.client.delete(page.url).json["undo"]
    assert server.client.get(page.url).status_code == 404
    parlor(server.app).chat.commits.try_again()
    assert not server.problems()
    disk.fails_always = ""
    server.client.post("/api/sessions/restore", json={"undo": undo})
    page.load()
    assert page.shown() == ["hello", WORDS]


def test_a_journal_goes_on_where_there_is_room_again(server, disk):
    """A disk that was full for a moment costs a crash nothing: what it refused comes with the next piece."""
    page = Page(server.client)
    server.model.gate.clear()
    page.send("POST", "/messages", text="hello")
    wait_until(lambda: server.model.running)
    job = next(iter(parlor(server.app).chat.chains._jobs.values()))
    for piece, fails in (("one ", ""), ("two ", "write"), ("three ", "write"), ("four", "")):
        disk.fails_always = fails
        job._journal._last_line = 0.0
        job._note_in_journal("text", piece)
    path = job._journal.path
    journal = path.read_bytes()
    server.model.gate.set()
    wait_until(lambda: not server.journals())
    path.write_bytes(journal)
    server.store.change_session(page.session["id"], None, lambda old: {**old, "taken_replies": [],
                                "messages": old["messages"][:1], "leaf": old["messages"][0]["id"]})
    server.restart(page)
    assert page.shown() == ["hello", "one two three four"]
