"""The store: what was saved is there, what fails changes nothing, what is damaged is never overwritten.

A thousand power cuts and more by hand: python -m tests.webui.test_store 45
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.helpers.api import MARLOW, OTTO
from tests.helpers.failing_disk import FailingDisk, FastDisk, PowerCutDisk
from tests.helpers.fake_server import write_bots
from webui import strict_json
from webui.errors import NotFound, NotSaved, Problem, ReadOnly, Stale
from webui.ids import new_id
from webui.storage import tree
from webui.storage.disk import Disk
from webui.storage.folder_lock import FolderInUse
from webui.storage.journal import Journal
from webui.storage.recovery import commit, drop_journal, fold_in_all
from webui.storage.schema import USER, new_message, new_session
from webui.storage.store import Store

ROOT = Path(__file__).resolve().parents[2]


def session_with(*texts: str):
    session = new_session([])
    for text in texts:
        message = new_message(USER, "User", text, session["leaf"])
        session = tree.with_message(session, message, leaf=message["id"])
    return session


def say(store: Store, session_id: str, text: str, revision: int | None = None):
    def said(old):
        message = new_message(USER, "User", text, old["leaf"])
        return tree.with_message(old, message, leaf=message["id"])

    return store.change_session(session_id, revision, said)


def texts(session) -> list[str]:
    return [message["text"] for message in tree.path(session, session["leaf"])]


def reopened(store: Store, **options) -> Store:
    store.close()
    return Store(store.folder, disk=store.disk, **options)


def test_a_session_survives_a_restart_byte_for_byte(store):
    session = store.add_session(session_with("Hello", "数字 🎉 \u202e"))
    say(store, session["id"], "more")
    again = reopened(store)
    assert texts(again.session(session["id"])) == ["Hello", "数字 🎉 \u202e", "more"]
    assert again.session(session["id"])["revision"] == 2
    assert not again.problems
    again.close()


def test_the_file_can_be_read_by_a_person(store):
    session = store.add_session(session_with("Grüße", "two"))
    text = (store.folder / "chats" / f"{session['id']}.json").read_text(encoding="utf-8")
    assert "Grüße" in text
    assert json.loads(text) == session
    assert len(text.splitlines()) == len(session) + 2 + 3  # a line a key, and a line a message


def test_a_save_writes_the_whole_session_though_it_encodes_only_what_changed(store, monkeypatch):
    encoded, dumps = [], strict_json.dumps

    def counted(value):
        if isinstance(value, dict) and "text" in value:
            encoded.append(value["text"])
        return dumps(value)

    monkeypatch.setattr(strict_json, "dumps", counted)
    key = store.add_session(session_with("one", "two", "three"))["id"]
    first, second, third = store.session(key)["messages"]
    changes = [
        (lambda old: tree.with_message(old, {**second, "text": "zwei"}, leaf=old["leaf"]), ["zwei"]),
        (lambda old: tree.without_message(old, first["id"])[0], ["zwei"]),  # it has another parent now
        (lambda old: {**old, "title": "Another"}, []),
        (lambda old: {**old, "messages": old["messages"][::-1]}, []),
    ]
    for change, expected in changes:
        encoded.clear()
        session = store.change_session(key, None, change)
        assert encoded == expected
        assert (store.folder / "chats" / f"{key}.json").read_bytes() == strict_json.pretty(session, dumps)
    with pytest.raises(Problem, match=r"messages\[1\].name is not a text"):
        store.change_session(key, None, lambda old: {**old, "messages": [third, {**third, "name": 7}]})


def test_a_change_on_an_old_revision_is_refused_with_the_current_session(store):
    session = store.add_session(session_with("one"))
    say(store, session["id"], "two", revision=1)
    with pytest.raises(Stale) as refused:
        say(store, session["id"], "three", revision=1)
    assert texts(refused.value.extra["current"]) == ["one", "two"]
    assert texts(store.session(session["id"])) == ["one", "two"]


def test_a_session_that_was_handed_out_does_not_change_later(store):
    before = store.add_session(session_with("one"))
    say(store, before["id"], "two")
    assert texts(before) == ["one"]


def test_many_threads_lose_no_message(store):
    session = store.add_session(new_session([]))
    threads = [threading.Thread(target=lambda n=n: [say(store, session["id"], f"{n}-{i}") for i in range(5)])
               for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = texts(store.session(session["id"]))
    assert sorted(said) == sorted(f"{n}-{i}" for n in range(8) for i in range(5))
    assert store.session(session["id"])["revision"] == 41


def operations_of_a_change(folder) -> int:
    disk = FailingDisk()
    store = Store(folder, disk=disk)
    key = store.summaries()[0]["id"]
    before = len(disk.operations)
    say(store, key, "new")
    store.close()
    return len(disk.operations) - before


@pytest.mark.parametrize("stays_broken", [False, True])
def test_every_operation_that_fails_leaves_the_old_session_or_the_new_one(tmp_path, stays_broken):
    store = Store(tmp_path / "source")
    key = store.add_session(session_with("old"))["id"]
    store.close()
    shutil.copytree(tmp_path / "source", tmp_path / "counted")
    count = operations_of_a_change(tmp_path / "counted")
    assert count >= 4  # write, fsync, replace, fsync of the folder
    for failing in range(count):
        folder = tmp_path / f"at-{failing}"
        shutil.copytree(tmp_path / "source", folder)
        disk = FailingDisk()
        store = Store(folder, disk=disk)
        disk.fails_at, disk.stays_broken = len(disk.operations) + failing, stays_broken
        with pytest.raises(NotSaved, match="No space left"):
            say(store, key, "new")
        disk.fails_at = None
        in_memory = texts(store.session(key))
        assert in_memory in (["old"], ["old", "new"])
        assert store.summaries()[0]["num_messages"] == len(in_memory)
        say(store, key, "later")  # the disk is well again
        store = reopened(store)
        assert texts(store.session(key)) == [*in_memory, "later"]
        assert not store.problems and not list((folder / "chats").glob(".*"))
        store.close()


@pytest.mark.parametrize("what", ["replace", "unlink"])
def test_a_file_that_a_scanner_has_open_for_a_moment_is_waited_for(tmp_path, monkeypatch, what):
    """As on Windows, where such a file can be neither renamed nor deleted."""
    disk, path, refusals = Disk(), tmp_path / "file", [PermissionError(), PermissionError()]
    path.write_bytes(b"old")
    call = getattr(Path, what)

    def busy(*arguments):
        if refusals:
            raise refusals.pop()
        return call(*arguments)

    monkeypatch.setattr(Path, what, busy)
    monkeypatch.setattr("webui.storage.disk.PATIENT_TRIES", 10)
    disk.save(path, b"new") if what == "replace" else disk.remove(path)
    assert not refusals and (path.read_bytes() == b"new" if what == "replace" else not path.exists())


def with_failing_folder(disk):
    """From now on the folder of a changed name cannot be synced; files can."""
    def sync_folder(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.sync_folder = sync_folder


def test_what_is_answered_with_not_saved_is_not_there(tmp_path):
    """The rename went well and only the folder's sync failed: the old text is put back."""
    disk = FailingDisk()
    store = Store(tmp_path, disk=disk)
    key = store.add_session(session_with("old"))["id"]
    with_failing_folder(disk)
    with pytest.raises(NotSaved, match="Input/output error"):
        say(store, key, "new")
    with pytest.raises(NotSaved):
        store.add_session(session_with("another"))
    with pytest.raises(NotSaved):
        store.delete_session(key)
    assert [entry["id"] for entry in store.summaries()] == [key]
    del disk.sync_folder
    store = reopened(store)
    assert [entry["id"] for entry in store.summaries()] == [key]
    assert texts(store.session(key)) == ["old"] and not list(store.trash.glob("*.json"))
    store.close()


def test_what_could_not_be_taken_back_is_said_and_shown(tmp_path):
    disk = FailingDisk()
    store = Store(tmp_path, disk=disk)
    key = store.add_session(session_with("old"))["id"]
    disk.fails_at, disk.stays_broken = len(disk.operations) + 3, True  # all after write, fsync and replace
    with pytest.raises(NotSaved, match="was changed, but the disk did not confirm") as told:
        say(store, key, "new")
    assert texts(told.value.extra["current"]) == ["old", "new"]
    assert texts(store.session(key)) == ["old", "new"] and store.summaries()[0]["num_messages"] == 2
    store.close()


def power_cuts(tmp_path: Path, saves: int) -> int:
    """After every operation of so many saves, by every way in which unsynced names and bytes may be lost."""
    store = Store(tmp_path / "source")
    key = store.add_session(session_with("old"))["id"]
    store.close()
    shutil.copytree(tmp_path / "source", tmp_path / "before")
    disk = PowerCutDisk()
    store = Store(tmp_path / "source", disk=disk)
    disk.moments.clear()
    acknowledged = []
    for number in range(saves):
        say(store, key, str(number))
        acknowledged.append(len(disk.moments))
    store.close()
    cuts = 0
    for moment in range(len(disk.moments)):
        promised = sum(moment >= end - 1 for end in acknowledged)
        for names in ("least", "most"):
            for data in ("whole", "cut", "gone"):
                target = tmp_path / "after"
                disk.after_cut(moment, tmp_path / "before", target, names=names, data=data)
                after = Store(target, disk=FastDisk())
                left = texts(after.session(key))
                assert left == ["old", *map(str, range(len(left) - 1))] and len(left) - 1 >= promised
                assert not after.problems
                after.close()
                shutil.rmtree(target)
                cuts += 1
    return cuts


def test_a_power_cut_at_any_moment_leaves_the_old_session_or_the_new_one(tmp_path):
    assert power_cuts(tmp_path, saves=2) > 40


def reply_and_what_is_done_to_it(store: Store, key: str):
    """A reply is written, taken over and deleted, another one is written and edited. Yields at each promise
    what is shown from then on."""
    def reply(text: str):
        message = new_message(MARLOW, "Marlow", "", store.session(key)["leaf"])
        journal = Journal(store.journal_path(new_id()), store.disk)
        journal.begin(key, message)
        journal._last_line = 0.0
        journal.text("text", text[:3])
        message |= {"text": text, "finish_reason": "eos", "error": ""}
        journal.end(message)
        yield message
        commit(store, key, journal.path.stem, message)
        journal.close()
        drop_journal(store, journal.path.stem)

    for first in reply("first reply"):
        yield ["old", first["text"]]
    store.change_session(key, None, lambda old: tree.without_message(old, first["id"])[0])
    yield ["old"]
    for second in reply("second reply"):
        yield ["old", second["text"]]
    second = {**second, "text": "as I want it"}
    store.change_session(key, None, lambda old: tree.with_message(old, second, leaf=old["leaf"]))
    yield ["old", "as I want it"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for the names of open files")
def test_a_power_cut_brings_back_no_reply_that_was_deleted_or_edited_and_loses_none(tmp_path):
    store = Store(tmp_path / "source")
    key = store.add_session(session_with("old"))["id"]
    store.close()
    shutil.copytree(tmp_path / "source", tmp_path / "before")
    disk = PowerCutDisk()
    store = Store(tmp_path / "source", disk=disk)
    disk.moments.clear()
    promises = [(0, ["old"])]
    for shown in reply_and_what_is_done_to_it(store, key):
        promises.append((len(disk.moments), shown))
    store.close()
    for moment in range(len(disk.moments)):
        kept = sum(moment >= end - 1 for end, _ in promises)
        possible = [shown for _, shown in promises[kept - 1:]]
        for names in ("least", "most"):
            for data in ("whole", "cut", "gone"):
                target = tmp_path / "after"
                disk.after_cut(moment, tmp_path / "before", target, names=names, data=data)
                after = Store(target, disk=FastDisk())
                fold_in_all(after)
                left = texts(after.session(key))
                is_begun = left[0] == "old" and any(shown[-1].startswith(left[-1]) for shown in possible)
                assert left in possible or is_begun, (moment, names, data)
                assert not after.problems
                after.close()
                shutil.rmtree(target)


def test_a_session_file_cut_at_every_byte_loads_or_is_quarantined(store):
    damaged = damage_everywhere(store, lambda data, at: data[:at])
    assert damaged["loaded"] <= 2  # the last line break and brace do not matter, everything else does


def test_a_session_file_flipped_at_every_byte_loads_or_is_quarantined(store):
    damaged = damage_everywhere(
        store, lambda data, at: data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1:])
    assert damaged["quarantined"] > 300


def damage_everywhere(store: Store, damage) -> dict[str, int]:
    session = store.add_session(session_with("Hello", "world 🎉"))
    path = store.folder / "chats" / f"{session['id']}.json"
    whole = path.read_bytes()
    seen = {"loaded": 0, "quarantined": 0}
    for at in range(len(whole)):
        data = damage(whole, at)
        path.write_bytes(data)
        store.sessions._forget(session["id"])
        try:
            loaded = store.session(session["id"])
            tree.path(loaded, loaded["leaf"])
            assert path.read_bytes() == data
            seen["loaded"] += 1
        except NotFound:
            (kept,) = store.quarantine.iterdir()
            assert kept.read_bytes() == data  # as it was, for a person to mend
            kept.unlink()
            assert not path.exists()
            seen["quarantined"] += 1
    assert len(store.problems) == seen["quarantined"]
    return seen


def test_one_damaged_session_does_not_hide_the_others(store):
    good = store.add_session(session_with("good"))
    bad = store.add_session(session_with("bad"))
    path = store.folder / "chats" / f"{bad['id']}.json"
    path.write_text("{ this is not JSON", encoding="utf-8")
    store = reopened(store)
    assert [entry["id"] for entry in store.summaries()] == [good["id"]]
    (problem,) = store.problems
    assert problem["file"] == f"chats/{bad['id']}.json" and "quarantine/" in problem["message"]
    assert not path.exists()
    store.close()


def test_a_file_that_cannot_be_read_stays_where_it_is(store):
    session = store.add_session(session_with("there"))
    path = store.folder / "chats" / f"{session['id']}.json"
    path.unlink()
    path.mkdir()  # read_bytes() fails with something else than "not found", for root too
    store = reopened(store)
    assert store.summaries() == [] and "could not be read" in store.problems[0]["message"]
    assert path.is_dir()
    with pytest.raises(FileExistsError):
        store.sessions.create({**new_session([]), "id": session["id"]})
    store.close()


@pytest.mark.parametrize("content", [
    b"[" * 100_000, b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b"\xff\xfe", b"", b"null", b"[]",
    b'{"schema_version": true}', b'{"schema_version": 1e400}', b'{"a": ' + b"9" * 5000 + b"}"])
def test_hostile_json_is_quarantined(store, content):
    (store.folder / "chats" / "00000000deadbeef.json").write_bytes(content)
    store = reopened(store)
    assert len(store.problems) == 1
    assert next((store.folder / "quarantine").iterdir()).read_bytes() == content
    store.close()


def test_a_circle_of_parents_is_quarantined_and_not_followed(store):
    session = session_with("a", "b")
    session["messages"][0]["parent"] = session["messages"][1]["id"]
    path = store.folder / "chats" / f"{session['id']}.json"
    path.write_text(json.dumps(session), encoding="utf-8")
    store = reopened(store)
    assert "does not lead up" in store.problems[0]["message"]
    store.close()


def test_a_session_of_a_newer_version_opens_read_only(store):
    session = {**session_with("from the future"), "schema_version": 99, "colour_of_the_sky": "green"}
    path = store.folder / "chats" / f"{session['id']}.json"
    path.write_text(json.dumps(session), encoding="utf-8")
    before = path.read_bytes()
    store = reopened(store)
    assert texts(store.session(session["id"])) == ["from the future"]
    assert store.summaries()[0]["read_only"]
    with pytest.raises(ReadOnly):
        say(store, session["id"], "no")
    assert path.read_bytes() == before
    store.close()


def test_a_newer_version_that_makes_no_sense_here_is_left_alone_and_told(store):
    path = store.folder / "chats" / "00000000deadbeef.json"
    path.write_text('{"schema_version": 99, "id": "00000000deadbeef", "revision": 1}', encoding="utf-8")
    store = reopened(store)
    assert path.exists() and "version 99" in store.problems[0]["message"]
    assert store.summaries() == []
    store.close()


def test_unknown_fields_are_kept(store):
    session = store.add_session({**session_with("x"), "of another program": "mine"})
    assert say(store, session["id"], "y")["of another program"] == "mine"


def test_a_change_that_breaks_the_rules_is_refused_and_nothing_is_saved(store):
    session = store.add_session(session_with("x"))
    with pytest.raises(Problem, match="temperature is 99"):
        store.change_session(session["id"], 1, lambda old: {**old, "sampling": {"temperature": 99}})
    assert store.session(session["id"])["revision"] == 1


def test_the_second_server_says_who_holds_the_folder(store):
    store.lock.describe("http://127.0.0.1:5005/")
    with pytest.raises(FolderInUse, match=r"process \d+, http://127.0.0.1:5005/"):
        Store(store.folder)


def test_a_lock_that_is_left_behind_does_not_lock(store):
    """The file stays after a crash; only a living process holds it."""
    store.close()
    assert (store.folder / ".lock").exists()
    Store(store.folder).close()


def test_a_deleted_session_comes_back_with_undo(store):
    session = store.add_session(session_with("keep me"))
    token = store.delete_session(session["id"])
    assert store.summaries() == []
    with pytest.raises(NotFound):
        store.session(session["id"])
    assert texts(store.restore_session(token)) == ["keep me"]
    with pytest.raises(NotFound):
        store.restore_session(token)


def test_the_trash_counts_from_the_day_of_deletion(store):
    session = store.add_session(session_with("old"))
    path = store.folder / "chats" / f"{session['id']}.json"
    long_ago = time.time() - 400 * 86_400
    os.utime(path, (long_ago, long_ago))
    token = store.delete_session(session["id"])
    store = reopened(store)
    assert texts(store.restore_session(token)) == ["old"]
    again = store.delete_session(session["id"])
    (in_trash,) = store.trash.glob(f"*{again}*")
    os.utime(in_trash, (long_ago, long_ago))
    store = reopened(store)
    with pytest.raises(NotFound):
        store.restore_session(again)
    store.close()


class Clock:
    """The time of day, which somebody sets."""

    def __init__(self, monkeypatch):
        self.now = time.time()
        monkeypatch.setattr(time, "time", lambda: self.now)

    def days_pass(self, days):
        self.now += days * 86_400


@pytest.mark.parametrize("days", [31, -31, 4000, -4000])
def test_a_clock_that_is_set_empties_no_trash_and_the_days_go_on(store, monkeypatch, days):
    clock = Clock(monkeypatch)
    token = store.delete_session(store.add_session(session_with("old"))["id"])
    clock.days_pass(10)
    store = reopened(store)
    for jump in (days, 0, -days, days):
        clock.days_pass(jump)
        store = reopened(store)
    assert len(list(store.trash.glob("*.json"))) == 1
    for _ in range(4):
        clock.days_pass(6)
        store = reopened(store)
    assert not list(store.trash.glob("*.json"))
    with pytest.raises(NotFound):
        store.restore_session(token)
    store.close()


@pytest.mark.parametrize("days", [0, -1, -4000, 31])
def test_over_a_restart_an_open_tab_hears_that_all_may_have_changed_whatever_the_clock_says(
        store, monkeypatch, days):
    clock = Clock(monkeypatch)
    cursors = [store.changes.counter]
    for number in range(3):
        store.add_session(session_with(str(number)))
        cursors.append(store.changes.counter)
    clock.days_pass(days)
    store = reopened(store)
    assert all(store.changes.since(cursor).full for cursor in cursors)
    assert cursors == sorted(set(cursors)) and store.changes.counter > cursors[-1]
    now = store.changes.counter
    assert not store.changes.since(now).full
    key = store.add_session(session_with("new"))["id"]
    assert store.changes.since(now).sessions == [key]
    store.close()


def test_a_cursor_that_nobody_was_told_is_answered_with_everything(store):
    assert store.changes.since(store.changes.counter + 1).full
    (store.folder / ".changes").unlink()
    cursor = store.changes.counter + 1_000_000  # beyond the clock's milliseconds, from which it begins anew
    store = reopened(store)
    assert store.changes.since(cursor).full
    store.close()


def test_the_counter_goes_on_beyond_what_was_reserved_at_first(store, monkeypatch):
    monkeypatch.setattr("webui.storage.changes.RESERVED", 3)
    store = reopened(store)
    for _ in range(10):
        store.changes.touch_bots()
    last = store.changes.counter
    store = reopened(store)
    assert store.changes.counter > last
    store.close()


def test_half_written_files_of_a_crash_are_cleared_away(store):
    session = store.add_session(session_with("whole"))
    half = store.folder / "chats" / f".{session['id']}.json.12345678.tmp"
    half.write_text("{", encoding="utf-8")
    store = reopened(store)
    assert not half.exists() and texts(store.session(session["id"])) == ["whole"]
    store.close()


def test_a_shipped_bot_comes_once_and_then_is_the_users(tmp_path):
    shipped = tmp_path / "shipped"
    write_bots(shipped)
    (shipped / "a0a0a0a0a0a0a003.json").rename(tmp_path / "later.json")
    store = Store(tmp_path / "sessions", shipped_bots=shipped)
    assert [bot["name"] for bot in store.known_bots()] == ["Marlow", "Otto"]
    store.bots.change(MARLOW, None, lambda bot: {**bot, "name": "Marlowe"})
    store.bots.delete(OTTO)
    (tmp_path / "later.json").rename(shipped / "a0a0a0a0a0a0a003.json")  # a newer Parlor ships one more
    store = reopened(store, shipped_bots=shipped)
    assert [bot["name"] for bot in store.known_bots()] == ["Marlowe", "Lin"]
    store.close()


def test_using_parlor_changes_no_file_that_git_knows(tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    for name in (".gitignore", "sessions/README.md", "starter/bots"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "as it ships")
    assert len(git("ls-files").split()) == 8
    store = Store(tmp_path / "sessions", shipped_bots=tmp_path / "starter" / "bots")
    first, second, *_ = store.known_bots()
    store.bots.change(first["id"], None, lambda bot: {**bot, "name": "Somebody else"})
    store.bots.delete(second["id"])
    store.delete_session(store.add_session(new_session([first]))["id"])
    store.add_session(new_session([first]))
    assert git("status", "--porcelain") == ""
    store.close()


def test_search_needs_every_word_in_title_or_text(store):
    one = store.add_session({**session_with("The lamp turns", "and the SEA is black"), "title": "Lighthouse"})
    store.add_session(session_with("about lamps"))
    (found,) = store.search("lighthouse sea")
    assert found["id"] == one["id"] and "SEA is black" in found["snippet"]
    assert len(store.search("lamp")) == 2
    assert store.search("nowhere lamp") == []


@pytest.mark.parametrize("key", ["../../etc/passwd", "..", "", "0" * 15, "0" * 17, "G" * 16,
                                 "0123456789abcdef\n", "0123456789ABCDEF", "٠" * 16, "%2e%2e", "a/b", "con",
                                 None, 7])
def test_nothing_that_is_not_an_id_reaches_the_disk(store, key):
    for call in (store.session, store.delete_session, store.restore_session, store.bots.get):
        with pytest.raises(NotFound):
            call(key)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        print(f"{power_cuts(Path(where), int(sys.argv[1]))} power cuts, nothing lost that was acknowledged")
