"""Search: the index says what reading every session says, at every moment, and is only ever a copy."""

from __future__ import annotations

import random
import sqlite3

import pytest

from tests.helpers.api import wait_until
from tests.helpers.failing_disk import FastDisk
from webui.storage import search_index
from webui.storage.schema import USER, new_message, new_session
from webui.storage.search_index import fold, snippet
from webui.storage.store import Store
from webui.storage.tree import with_message, without_message

TEXTS = ("The lighthouse was dark.", "Straße und Maß", "STRASSE", "ok", "a", "数字の話", "İstanbul",
         "ﬁn de ﬁl", 'a "quoted" word', "percent % and _ under", "AND OR NOT NEAR(", "two\nlines", "",
         "ß" * 90 + " needle here", "x" * 150 + " the end", "emoji 🎉🎉", "null \x00 inside")
QUERIES = ("the", "THE LIGHT", "strasse", "STRASSE", "ß", "ok", "a", "a the", "数字", "字の話", "i̇stanbul",
           "fin", '"quoted"', "%", "_", "AND", "near(", "lines", "needle", "here needle", "end", "🎉", "🎉🎉",
           "missing", "title", "dark. was", "\x00", "ll \x00", "inside", "'", '"', "* -")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(search_index, "WAIT_SECONDS", 0.001)


def indexed(store):
    """Wait until the index has everything."""
    wait_until(lambda: store.search_index._known and not store.search_index._changed)
    return store


def session_of(rng, title="A Title"):
    session = new_session([], title)
    for _ in range(rng.randrange(6)):
        message = new_message(USER, "User", rng.choice(TEXTS), session["leaf"])
        session = with_message(session, message, leaf=message["id"])
    return session


def found(store, query):
    return {entry["id"]: entry["snippet"] for entry in store.search(query)}


def read_by_hand(store, query):
    """By the plainest way: what the sessions themselves hold."""
    words, hits = query.casefold().split(), set()
    for entry in store.summaries():
        session = store.session(entry["id"])
        texts = [session["title"], *(message["text"] for message in session["messages"])]
        if all(any(word in text.casefold() for text in texts) for word in words):
            hits.add(entry["id"])
    return hits


def change_something(store, rng):
    keys = [entry["id"] for entry in store.summaries()]
    key = rng.choice(keys) if keys else None
    kind = rng.choice(("add", "say", "edit", "drop", "title", "delete", "undo"))
    if key is None or kind == "add":
        store.add_session(session_of(rng, rng.choice(TEXTS) or "?"))
    elif kind == "delete":
        store.delete_session(key)
    elif kind == "undo":
        store.restore_session(store.delete_session(key))
    elif kind == "title":
        store.change_session(key, None, lambda old: {**old, "title": rng.choice(TEXTS)})
    else:
        def edited(old):
            messages = old["messages"]
            if kind == "say" or not messages:
                message = new_message(USER, "User", rng.choice(TEXTS), old["leaf"])
                return with_message(old, message, leaf=message["id"])
            message = rng.choice(messages)
            if kind == "edit":
                return with_message(old, {**message, "text": rng.choice(TEXTS)}, leaf=old["leaf"])
            return without_message(old, message["id"])[0]
        store.change_session(key, None, edited)


@pytest.mark.parametrize(("seed", "most_trigrams"), [(0, 100), (1, 100), (2, 2)])
def test_the_index_finds_what_reading_every_session_finds_at_every_moment(store, seed, most_trigrams,
                                                                          monkeypatch):
    """With few trigrams short words are looked for in the texts, as those are that begin too many."""
    monkeypatch.setattr(search_index, "MOST_TRIGRAMS", most_trigrams)
    rng = random.Random(seed)
    for _ in range(10):
        store.add_session(session_of(rng))
    store.begin_indexing()
    for _ in range(25):
        change_something(store, rng)
        if rng.random() < 0.5:
            indexed(store)
        for query in rng.sample(QUERIES, 8):
            assert found(store, query).keys() == read_by_hand(store, query), query
    indexed(store)
    for query in QUERIES:
        assert found(store, query).keys() == read_by_hand(store, query), query


def test_the_index_takes_up_what_changed_while_it_was_not_there(store):
    rng = random.Random(7)
    keys = [store.add_session(session_of(rng))["id"] for _ in range(10)]
    store.begin_indexing()
    indexed(store).close()
    store = Store(store.folder, disk=FastDisk())  # without the index
    store.delete_session(keys[0])
    store.change_session(keys[1], None, lambda old: {**old, "title": "renamed meanwhile"})
    added = store.add_session(session_of(rng, "added meanwhile"))["id"]
    store.close()
    store = Store(store.folder, disk=FastDisk())
    store.begin_indexing()
    assert found(store, "meanwhile").keys() == {keys[1], added}
    assert found(indexed(store), "meanwhile").keys() == {keys[1], added}
    for query in QUERIES:
        assert found(store, query).keys() == read_by_hand(store, query)
    with sqlite3.connect(store.folder / ".search.sqlite") as database:
        assert database.execute("SELECT count(*) FROM sessions").fetchone() == (10,)
        database.execute("INSERT INTO words (words) VALUES ('integrity-check')")  # against the messages
    store.close()


@pytest.mark.parametrize("make", [
    lambda path: path.write_bytes(b"garbage" * 1000), lambda path: path.write_bytes(b""),
    lambda path: path.mkdir(), lambda path: sqlite3.connect(path).execute("PRAGMA user_version=99").close(),
    lambda path: sqlite3.connect(path).execute("CREATE TABLE messages (mine)").close()])
def test_a_damaged_index_is_made_anew_or_done_without(store, make):
    key = store.add_session(session_of(random.Random(1), "Needle"))["id"]
    path = store.folder / ".search.sqlite"
    make(path)
    store.begin_indexing()
    assert found(store, "needle").keys() == {key}
    if path.is_file():
        indexed(store)
    assert found(store, "needle").keys() == {key} and not store.problems


def test_an_index_that_breaks_while_it_runs_is_done_without(store, monkeypatch):
    key = store.add_session(session_of(random.Random(1), "Needle"))["id"]
    store.begin_indexing()
    indexed(store)

    def malformed(*_arguments):
        raise sqlite3.DatabaseError("malformed")

    monkeypatch.setattr(search_index, "_find", malformed)
    assert found(store, "needle").keys() == {key}


def test_a_session_that_cannot_be_read_any_more_is_not_found(store):
    key = store.add_session(session_of(random.Random(1), "Needle"))["id"]
    store.begin_indexing()
    indexed(store)
    store.sessions._forget(key)
    (store.folder / "chats" / f"{key}.json").write_text("{")
    store.search_index.touch(key)
    assert found(store, "needle") == {}
    indexed(store)


@pytest.mark.parametrize(("text", "word"), [
    ("ß" * 300 + " the needle", "needle"), ("İ" * 200 + "needle" + "x" * 300, "needle"),
    ("Straße", "strasse"), ("ﬁ" * 100 + "needle", "ineedle"), ("needle", "needle"),
    ("x" * 500 + "ß", "ss"), ("ßa", "sa")])
def test_a_snippet_shows_the_place_however_folding_moved_it(text, word):
    shown = snippet(text, fold(text), word)
    assert word in shown.casefold()
    assert shown.startswith("…") == (len(text) > 100)
