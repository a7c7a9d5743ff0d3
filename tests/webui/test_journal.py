"""The journal of a reply: what a crash leaves can be read, a torn tail is cut, damage is told."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import pytest

from tests.helpers.failing_disk import FastDisk
from webui.storage import tree
from webui.storage.journal import Journal, encode_line, read_journal
from webui.storage.recovery import fold_in_all
from webui.storage.schema import USER, new_message, new_session

BOT = "a0a0a0a0a0a0a001"


def begun(store, text=""):
    """A session with a question, and a journal of the reply to it."""
    question = new_message(USER, "User", "Hello?", None)
    session = store.add_session(tree.with_message(new_session([]), question, leaf=question["id"]))
    message = new_message(BOT, "Marlow", text, question["id"])
    journal = Journal(store.journal_folder / "0123456789abcdef.jsonl", FastDisk())
    journal.begin(session["id"], message)
    return session, message, journal


def write_pieces(journal, *pieces):
    for piece in pieces:
        journal._last_line = 0.0  # as if a quarter of a second had passed
        journal.text("text", piece)


def shown(store, session):
    session = store.session(session["id"])
    return [message["text"] for message in tree.path(session, session["leaf"])]


def test_a_line_by_hand():

    assert encode_line({"seq": 0}) == b"%08x " % zlib.crc32(b'{"seq": 0}') + b'{"seq": 0}\n'


def test_an_interrupted_reply_comes_back_with_all_pieces(store):
    session, _message, journal = begun(store)
    write_pieces(journal, "Good ", "morning 🎉")
    journal.close()
    fold_in_all(store)
    assert shown(store, session) == ["Hello?", "Good morning 🎉"]
    last = tree.find(store.session(session["id"]), store.session(session["id"])["leaf"])
    assert last["finish_reason"] == "interrupted" and "ended" in last["error"]
    assert not list(store.journal_folder.iterdir()) and not store.problems


def test_an_ended_reply_that_missed_its_commit_comes_back_whole(store):
    session, message, journal = begun(store)
    write_pieces(journal, "Good ")
    journal.end({**message, "text": "Good morning", "finish_reason": "eos", "error": ""})
    journal.close()
    fold_in_all(store)
    last = store.session(session["id"])["messages"][-1]
    assert last["text"] == "Good morning" and last["finish_reason"] == "eos"


def test_folding_in_twice_changes_nothing(store):
    session, _message, journal = begun(store)
    write_pieces(journal, "Good ")
    journal.close()
    data = journal.path.read_bytes()
    fold_in_all(store)
    before = store.session(session["id"])
    journal.path.write_bytes(data)  # the crash came between the commit and the removal
    fold_in_all(store)
    assert store.session(session["id"]) == before
    assert not list(store.journal_folder.iterdir())


def test_a_continued_reply_grows_in_place(store):
    session, message, journal = begun(store)
    journal.end({**message, "text": "Once"})
    journal.close()
    fold_in_all(store)
    journal = Journal(store.journal_folder / "0123456789abcde0.jsonl", FastDisk())
    journal.begin(session["id"], {**message, "text": "Once", "continues": True})
    write_pieces(journal, " upon a time")
    journal.close()
    fold_in_all(store)
    after = store.session(session["id"])
    assert shown(store, session) == ["Hello?", "Once upon a time"]
    assert len(after["messages"]) == 2 and "continues" not in after["messages"][-1]


def test_a_journal_cut_at_every_byte_gives_a_beginning_of_the_text(store):
    _session, _message, journal = begun(store)
    write_pieces(journal, "one ", "two ", "three")
    journal.close()
    data = journal.path.read_bytes()
    seen = set()
    for at in range(len(data) + 1):
        content = read_journal(data[:at])
        if content is not None:
            assert not content.damage and "one two three".startswith(content.message["text"])
            seen.add(content.message["text"])
    assert seen == {"", "one ", "one two ", "one two three"}


def test_a_journal_flipped_at_every_byte_never_gives_wrong_text(store):
    _session, message, journal = begun(store)
    write_pieces(journal, "one ", "two ", "three")
    journal.end({**message, "text": "one two three"})
    journal.close()
    data = journal.path.read_bytes()
    told = 0
    for at in range(len(data)):
        content = read_journal(data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1:])
        if content is not None:
            assert "one two three".startswith(content.message["text"])
            told += bool(content.damage)
    assert told > 100


def test_a_bad_line_in_the_middle_keeps_the_good_part_and_the_file(store):
    session, _message, journal = begun(store)
    write_pieces(journal, "one ", "two ", "three")
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + lines[1] + b"00000000 garbage\n" + lines[3]
    journal.path.write_bytes(damaged)
    fold_in_all(store)
    assert shown(store, session) == ["Hello?", "one "]
    (kept,) = store.quarantine.iterdir()
    assert kept.read_bytes() == damaged
    (problem,) = store.problems
    assert "damaged at line 3" in problem["message"] and kept.name in problem["message"]


def test_a_missing_line_in_the_middle_counts_as_damage(store):
    """Each line is whole, but a number is left out."""
    _session, _message, journal = begun(store)
    write_pieces(journal, "one ", "two ", "three")
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    content = read_journal(lines[0] + lines[1] + lines[3] + lines[3])
    assert content.message["text"] == "one " and content.damage


@pytest.mark.parametrize("data", [b"garbage\n", b"\0" * 500, b'00000000 {"seq": 0}\n',
                                  b"{" * 5000 + b"\nx\n"])
def test_a_journal_without_a_beginning_is_set_aside(store, data):
    path = store.journal_folder / "0123456789abcdef.jsonl"
    path.write_bytes(data)
    fold_in_all(store)
    assert not path.exists() and next(store.quarantine.iterdir()).read_bytes() == data
    assert len(store.problems) == 1


def test_a_journal_without_a_whole_line_is_nothing(store):
    """The power went before anything was promised."""
    session, _message, journal = begun(store)
    journal.close()
    line = journal.path.read_bytes()
    for at in range(len(line) - 1):
        journal.path.write_bytes(line[:at])
        fold_in_all(store)
        assert not journal.path.exists() and not store.problems
    assert shown(store, session) == ["Hello?"]


def test_a_reply_of_a_session_that_is_gone_is_kept_aside(store):
    session, _message, journal = begun(store)
    write_pieces(journal, "lost?")
    journal.close()
    store.delete_session(session["id"])
    fold_in_all(store)
    assert b"lost?" in next(store.quarantine.iterdir()).read_bytes()
    assert "no session takes" in store.problems[0]["message"]


def test_the_journal_writes_at_most_four_lines_a_second(store, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("webui.storage.journal.time", SimpleNamespace(monotonic=lambda: now[0]))
    _session, _message, journal = begun(store)
    for _ in range(1000):
        journal.text("text", "x")
        now[0] += 0.0021
    journal.close()
    assert len(journal.path.read_bytes().splitlines()) == 1 + 8  # the beginning, and two seconds
