"""One odd file does not keep Parlor from starting; it is set aside, or left where it is and told."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace

import pytest

from tests.helpers.failing_disk import FailingDisk, FastDisk
from webui.storage.journal import encode_line
from webui.storage.recovery import fold_in_all
from webui.storage.schema import BOT, SESSION, USER, new_message, new_session
from webui.storage.store import Store
from webui.storage.tree import with_message

BOT_ID = "00000000000000b0"
KEY = "00000000000000aa"


@pytest.fixture
def folder(tmp_path):
    """A sessions folder with one good session, one good bot and one good preset."""
    store = Store(tmp_path, disk=FastDisk())
    store.add_session(new_session([], "The good one"))
    store.bots.create(bot())
    store.close()
    return tmp_path


def bot(**changes):
    return {"schema_version": 1, "id": BOT_ID, "revision": 1, "name": "Good", "persona": "", "greeting": "",
            "color": "#000000", "sampling": {}, "created": 5.0, **changes}


def problems_at_start(folder, **options) -> list[str]:
    """Start as the program does; the good ones must be there."""
    store = Store(folder, disk=FastDisk(), **options)
    fold_in_all(store)
    assert "The good one" in [entry["title"] for entry in store.summaries()]
    assert "Good" in [entry["name"] for entry in store.known_bots()] and store.known_presets()
    store.close()
    return [f"{problem['file']} {problem['message']}" for problem in store.problems]


ODD_FILES = {
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x80"),
    "3 GiB": lambda path: (path.touch(), os.truncate(path, 3 << 30)),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders")
@pytest.mark.parametrize("make", ODD_FILES.values(), ids=ODD_FILES)
@pytest.mark.parametrize("place", [
    f"chats/{KEY}.json", f"bots/{KEY}.json", f"presets/{KEY}.json", f"journal/{KEY}.jsonl",
    "journal/odd.jsonl", f"trash/session-{KEY}-{KEY}.json", "bots/.shipped", "chats/.odd.tmp",
    f"quarantine/{KEY}.json", "quarantine", "trash", ".changes",
    "trash/.seen", "chats/odd.json"])
def test_an_odd_file_anywhere_does_not_stop_the_start(folder, tmp_path_factory, place, make):
    shipped = tmp_path_factory.mktemp("shipped")
    (shipped / "00000000000000c0.json").write_text(json.dumps(bot(id="00000000000000c0", name="Shipped")))
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    make(path)
    long_ago = time.time() - 400 * 86_400
    os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    told = problems_at_start(folder, shipped_bots=shipped)
    if path.suffix in (".json", ".jsonl") and path.parent.name not in ("trash", "quarantine") \
            and path.stem != "odd" and not (path.is_symlink() and not path.exists()):
        assert len(told) == 1 and place in told[0]


@pytest.mark.parametrize("changes", [
    {"created": None}, {"created": "yesterday"}, {"created": []}, {"created": True}, {"revision": None},
    {"name": None}, {"name": {}}, {"sampling": None}, {"sampling": {"stop": [None]}}, {"color": 5},
    {"sampling": {"temperature": None}}, {"sampling": {"logit_bias": {"1": None}}}, {"persona": []}])
def test_a_bot_with_an_odd_field_is_set_aside_and_the_others_are_there(folder, changes):
    (folder / "bots" / f"{KEY}.json").write_text(json.dumps(bot(id=KEY, **changes)))
    (told,) = problems_at_start(folder)
    assert f"bots/{KEY}.json is damaged" in told and "quarantine/" in told


@pytest.mark.parametrize("odd", [None, 5, [], {}, True])
@pytest.mark.parametrize("field", ["id", "parent", "author", "name", "text", "thinking", "created", "error",
                                   "sampling", "finish_reason", "model", "new_tokens", "continues"])
def test_a_session_and_a_journal_with_an_odd_field_are_read_or_set_aside(folder, field, odd):
    session = new_session([], "Odd")
    message = new_message(USER, "User", "Hello", None)
    changed = {**session, "messages": [{**message, field: odd}], "leaf": message["id"]}
    (folder / "chats" / f"{session['id']}.json").write_text(json.dumps(changed))
    target = new_session([], "For the reply")
    (folder / "chats" / f"{target['id']}.json").write_text(
        json.dumps(with_message(target, message, leaf=message["id"])))
    reply = {**new_message(BOT_ID, "Good", "", message["id"]), field: odd}
    records = [{"seq": 0, "kind": "begin", "session": target["id"], "message": reply},
               {"seq": 1, "kind": "text", "text": "one"}, {"seq": 2, "kind": "think", "text": "two"}]
    (folder / "journal" / f"{KEY}.jsonl").write_bytes(b"".join(map(encode_line, records)))
    (folder / "journal" / f"{BOT_ID}.jsonl").write_bytes(
        encode_line(records[0]) + encode_line({"seq": 1, "kind": "end", "message": reply}))
    told = problems_at_start(folder)
    assert len(told) <= 3
    assert not list((folder / "journal").iterdir())


@pytest.mark.parametrize("kind", ["text", "think"])
def test_a_journal_line_without_its_text_is_damage(folder, kind):
    session = new_session([], "For the reply")
    (folder / "chats" / f"{session['id']}.json").write_text(json.dumps(session))
    reply = new_message(BOT_ID, "Good", "", None)
    records = [{"seq": 0, "kind": "begin", "session": session["id"], "message": reply},
               {"seq": 1, "kind": "text", "text": "whole"}, {"seq": 2, "kind": kind, "text": None},
               {"seq": 3, "kind": "text", "text": "after"}]
    (folder / "journal" / f"{KEY}.jsonl").write_bytes(b"".join(map(encode_line, records)))
    (told,) = problems_at_start(folder)
    assert "damaged at line 3" in told


def test_thousands_of_damaged_files_cost_no_wait_for_the_disk_each(tmp_path):
    for number in range(300):
        (tmp_path / "chats").mkdir(exist_ok=True)
        (tmp_path / "journal").mkdir(exist_ok=True)
        (tmp_path / "chats" / f"{number:016x}.json").write_text("{")
        (tmp_path / "journal" / f"{number:016x}.jsonl").write_text("garbage")
    disk = FailingDisk()
    store = Store(tmp_path, disk=disk)
    fold_in_all(store)
    assert len(store.problems) == 600 and disk.operations.count("replace") == 601  # and the counter's
    assert disk.operations.count("fsync") < 10
    store.close()


def test_what_was_shipped_is_remembered_beside_garbage(tmp_path):
    """A deleted bot stays away although the note of it holds bytes that are no text."""
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / f"{BOT_ID}.json").write_text(json.dumps(bot()))
    folder = tmp_path / "sessions"
    store = Store(folder, shipped_bots=shipped, disk=FastDisk())
    store.bots.delete(BOT_ID)
    store.close()
    with (folder / "bots" / ".shipped").open("ab") as note:
        note.write(b"\xff\xfe\n")
    store = Store(folder, shipped_bots=shipped, disk=FastDisk())
    assert store.known_bots() == [] and not store.problems
    store.close()


def test_a_full_disk_does_not_stop_the_start(folder, tmp_path_factory):
    shipped = tmp_path_factory.mktemp("shipped")
    (shipped / "00000000000000c0.json").write_text(json.dumps(bot(id="00000000000000c0", name="Shipped")))
    disk = FailingDisk()
    disk.fails_always = "write"
    store = Store(folder, shipped_bots=shipped, disk=disk)
    assert [entry["title"] for entry in store.summaries()] == ["The good one"]
    assert "No space left" in store.problems[0]["message"]
    store.close()


def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    store = Store(tmp_path, disk=FastDisk())
    session = store.add_session(new_session([]))
    monkeypatch.setattr(store.sessions, "kind", replace(SESSION, max_bytes=2000))
    with pytest.raises(ValueError, match="at most"):
        store.change_session(session["id"], None, lambda old: {**old, "system_prompt": "x" * 2000})
    assert store.session(session["id"])["system_prompt"] == "" and BOT.max_bytes > 1 << 20
    store.close()
