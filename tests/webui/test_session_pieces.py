"""The small parts of a session: tree, title, text of a reply, event log, sampling, schema, strict JSON."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import PARAMETER_SPECS, SamplingParams
from webui import strict_json
from webui.chat.event_log import EventLog
from webui.chat.own_name import OwnNameFilter
from webui.chat.title import title_from
from webui.errors import NotFound
from webui.sampling import BUILT_IN_PRESETS, as_json, check_changes, effective
from webui.storage import tree
from webui.storage.schema import BOT, PRESET, SESSION, USER, Kind, new_message, new_session

GOLDEN = Path(__file__).parents[1] / "data" / "sessions"


def branching():
    """a - b - c, and beside b another reply d with the child e."""
    session = new_session([])
    ids = {}
    for name, parent in (("a", None), ("b", "a"), ("c", "b"), ("d", "a"), ("e", "d")):
        message = new_message(USER, "User", name, ids.get(parent))
        ids[name] = message["id"]
        session = tree.with_message(session, message, leaf=message["id"])
    return session, ids


def shown(session):
    return "".join(message["text"] for message in tree.path(session, session["leaf"]))


def test_the_path_leads_from_the_first_message_to_the_leaf():
    session, ids = branching()
    assert shown(session) == "ade"
    assert shown({**session, "leaf": ids["c"]}) == "abc"
    assert tree.path(session, None) == []


def test_choosing_a_version_walks_to_its_newest_descendant():
    session, ids = branching()
    assert tree.newest_descendant(session, ids["b"]) == ids["c"]
    assert tree.newest_descendant(session, ids["a"]) == ids["e"]
    assert tree.newest_descendant(session, None) == ids["e"]


def test_children_of_a_deleted_message_move_up():
    session, ids = branching()
    without, _ = tree.without_message(session, ids["d"])
    assert shown(without) == "ae" and shown(session) == "ade"
    SESSION.check(without)


def test_deleting_the_last_message_shows_the_version_that_is_left():
    session, ids = branching()
    without, _ = tree.without_message(tree.without_message(session, ids["e"])[0], ids["d"])
    assert shown(without) == "abc"
    with pytest.raises(NotFound):
        tree.without_message(without, ids["d"])


@given(st.lists(st.integers(0, 30), max_size=25), st.lists(st.integers(0, 24), max_size=25))
def test_a_tree_stays_whole_whatever_is_deleted_and_undo_in_turn_brings_all_of_it_back(parents, deleted):
    session = new_session([])
    for number, parent in enumerate(parents):
        above = session["messages"][parent % number]["id"] if number and parent else None
        message = new_message(USER, "User", str(number), above)
        session = tree.with_message(session, message, leaf=message["id"])
    before = []
    for index in deleted:
        if index < len(session["messages"]):
            whole = session
            session, removed = tree.without_message(session, session["messages"][index]["id"])
            SESSION.check(session)
            tree.path(session, session["leaf"])
            before.append((whole, removed))
    for whole, removed in reversed(before):
        session = tree.with_restored(session, removed)
        assert session == whole


@given(st.permutations("abcde"), st.permutations("abcde"))
def test_deleted_messages_can_come_back_in_any_order(away, back):
    session, ids = branching()
    removed = {}
    for name in away:
        session, removed[name] = tree.without_message(session, ids[name])
    for name in back:
        session = tree.with_restored(session, removed[name])
        SESSION.check(session)
        assert tree.with_restored(session, removed[name]) is session
    assert {message["text"] for message in session["messages"]} == set("abcde")


@pytest.mark.parametrize(("text", "title"), [
    ("Hello there", "Hello there"), ("\n\n# **Big** plans\nand more", "Big plans"), ("   ", ""), ("```", ""),
    ("> quoted", "quoted"), ("为什么天空是蓝色的?", "为什么天空是蓝色的?"), ("a\u202eb\x07c", "abc"),
    ("word " * 30, "word word word word word word word word word…"), ("x" * 100, "x" * 48 + "…")])
def test_titles_come_from_the_first_line_that_says_something(text, title):
    assert title_from(text) == title


@pytest.mark.parametrize(("said", "visible"), [
    ("Marlow: Ahoy", "Ahoy"), (" \nMarlow: Ahoy \n", "Ahoy"), ("Marlowe went", "Marlowe went"),
    ("Marl", "Marl"),
    ("Marlow:", ""), ("Ahoy\n\nMarlow: no", "Ahoy\n\nMarlow: no"), ("", ""), ("  ", ""), ("Mar", "Mar"),
    ("Marlow: Marlow: twice", "Marlow: twice"), ("a  b \n c", "a  b \n c")])
def test_a_name_in_front_and_space_around_are_taken_off_however_the_text_is_cut(said, visible):
    for size in (1, 2, 3, 5, 100):
        text = OwnNameFilter("Marlow")
        pieces = [text.feed(said[at:at + size]) for at in range(0, len(said), size)]
        assert "".join(pieces) + text.finish() == visible


@given(st.text("Marlow: \nx", max_size=30), st.lists(st.integers(1, 5), max_size=30))
def test_the_visible_text_does_not_depend_on_the_cuts(said, cuts):
    whole = OwnNameFilter("Marlow")
    expected = whole.feed(said) + whole.finish()
    text, got, at = OwnNameFilter("Marlow"), "", 0
    for size in [*cuts, len(said)]:
        got += text.feed(said[at:at + size])
        at += size
    assert got + text.finish() == expected


def test_a_continued_reply_keeps_the_space_it_begins_with():
    text = OwnNameFilter("Marlow", continues=True)
    assert text.feed(" and so ") + text.finish() == " and so"


def test_readers_at_any_cursor_see_the_same_text():
    log = EventLog()
    for word in ("a", "b", "c"):
        log.append("text", {"text": word})
    log.append("progress", {"done": 1})
    log.append("progress", {"done": 2})
    log.end("done", {})
    events, ended = log.read(0)
    assert [(event.index, event.name, event.data) for event in events] == [
        (2, "text", {"text": "abc"}), (4, "progress", {"done": 2}), (5, "done", {})] and ended
    assert log.read(1)[0][0].data == {"text": "bc"}
    assert log.read(6) == ([], True) and log.read(99) == ([], True)
    log.append("text", {"text": "too late"})
    assert log.read(6) == ([], True)


def test_a_reader_is_woken_by_each_event_until_it_wants_no_more():
    log, news = EventLog(), threading.Event()
    assert log.read(0) == ([], False)
    log.wake(news)
    for add in (log.append, log.end):
        news.clear()
        add("text", {"text": "x"})
        assert news.is_set()
    log.let_sleep(news)
    news.clear()
    log.end("done", {})
    assert not news.is_set() and log.read(0)[0][0].data == {"text": "xx"}


def test_texts_of_different_channels_are_not_mixed():
    log = EventLog()
    for name, text in (("think", "a"), ("text", "b"), ("text", "c"), ("think", "d")):
        log.append(name, {"text": text})
    events, ended = log.read(0)
    assert [(event.name, event.data["text"]) for event in events] == [
        ("think", "a"), ("text", "bc"), ("think", "d")]
    assert [event.index for event in events] == [0, 2, 3] and not ended


def merged_slowly(entries, cursor):
    """What a reader gets from `cursor` on, by the plainest way."""
    found = []
    for index, (name, data) in list(enumerate(entries))[cursor:]:
        if found and found[-1][1] == name and name in ("text", "think"):
            data = {"text": found.pop()[2]["text"] + data["text"]}
        elif found and found[-1][1] == name and name in ("stats", "progress"):
            found.pop()
        found.append((index, name, data))
    return found


@given(st.lists(st.tuples(st.sampled_from(("text", "think", "stats", "progress", "held")),
                          st.text(max_size=3)), max_size=40))
def test_a_reader_from_anywhere_gets_what_plain_merging_gives(said):
    log, entries = EventLog(), []
    for name, text in [*said, ("done", "x")]:
        entries.append((name, {"text": text}))
        (log.end if name == "done" else log.append)(*entries[-1])
        for cursor in range(len(entries) + 1):
            events, ended = log.read(cursor)
            assert [(e.index, e.name, e.data) for e in events] == merged_slowly(entries, cursor)
            assert ended == (name == "done")


def test_a_late_reader_of_a_long_reply_gets_one_text():
    """64,000 tokens: joining them again for each would copy 20 billion characters, and take a minute."""
    log = EventLog()
    for number in range(64_000):
        log.append("text", {"text": f"{number:>9} "})
    (event,), _ended = log.read(0)
    assert event.index == 63_999 and len(event.data["text"]) == 640_000
    log.append("stats", {})
    for cursor in (0, 1, 63_999):
        assert log.read(cursor)[0][0].data["text"] == event.data["text"][10 * cursor:]


def test_the_session_beats_the_preset_beats_the_bot_beats_the_default():
    preset, session = {"temperature": 0.1, "top_k": 1}, {"temperature": 0.2}
    params = effective(preset, session, {"temperature": 0.3, "top_k": 3, "top_p": 0.3})
    assert (params.temperature, params.top_k, params.top_p) == (0.2, 1, 0.3)
    assert params.min_p == SamplingParams().min_p
    assert effective({}, {}, {}) == SamplingParams()


def test_stop_strings_of_the_room_fill_only_the_places_that_are_left():
    most = PARAMETER_SPECS["stop"]["max_items"]
    own = [f"s{number}" for number in range(most - 1)]
    params = effective({}, {"stop": own}, {}, ("\nOtto:", "\nLin:"))
    assert params.stop == (*own, "\nOtto:")


def test_sampling_goes_through_json_and_back():
    params = SamplingParams(stop=("a",), logit_bias={5: -1.5}, banned_tokens=(7,), seed=3)
    changes = json.loads(json.dumps(as_json(params)))
    assert effective({}, check_changes(changes), {}) == params


@pytest.mark.parametrize("changes", [
    [], None, "x", {"temprature": 1}, {"temperature": "hot"}, {"temperature": True}, {"temperature": -1},
    {"temperature": float("nan")}, {"top_k": 1.5}, {"top_k": 10**400}, {"stop": "x"}, {"stop": [1]},
    {"stop": [""]},
    {"stop": ["x"] * 99}, {"logit_bias": {"x": 1}}, {"logit_bias": [1]},
    {"logit_bias": {"1": "a"}},
    {"banned_tokens": [-1]}, {"banned_tokens": 5}, {"seed": -1}, {"max_new_tokens": 0}, {"temperature": None},
    {"temperature": []}, {"top_p": {}}])
def test_sampling_out_of_range_is_refused(changes):
    with pytest.raises(ValueError, match=r"."):
        check_changes(changes)


def test_the_built_in_presets_are_in_range():
    for preset in BUILT_IN_PRESETS:
        check_changes(preset["sampling"])


@pytest.mark.parametrize("kind", [SESSION, BOT, PRESET])
def test_a_golden_file_of_every_version_can_be_read(kind):
    """A file once written must open for ever: each new version adds a golden file, and none is changed."""
    for version in range(1, kind.version + 1):
        document = strict_json.loads((GOLDEN / f"{kind.name}-v{version}.json").read_bytes())
        assert document["schema_version"] == version
        kind.check(kind.upgrade(document))


def test_migrations_run_one_version_at_a_time_and_leave_the_old_document_alone():
    kind = Kind("thing", 3, lambda document: None, {
        1: lambda old: {**old, "b": old["a"] + 1}, 2: lambda old: {**old, "c": old["b"] + 1}})
    old = {"schema_version": 1, "a": 1}
    assert kind.upgrade(old) == {"schema_version": 3, "a": 1, "b": 2, "c": 3}
    assert old == {"schema_version": 1, "a": 1}
    with pytest.raises(ValueError, match="knows no way"):
        kind.upgrade({"schema_version": 0})


@pytest.mark.parametrize("data", [b"[" * 100_000, b"[NaN]", b"[1e999]", b"[9223372036854775808]",
                                  b"[" * 101 + b"]" * 101, b"\xff\xfe[\0]\0",
                                  b"\xff", b"", b"{", b"[-Infinity]", b"[" + b"1" * 5000 + b"]"])
def test_json_that_is_not_clean_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        strict_json.loads(data)


@pytest.mark.parametrize(("data", "value"), [
    (b'\xef\xbb\xbf{"a": 1}', {"a": 1}), (b'["half \\ud83d here"]', ["half \ufffd here"]),
    (b'{"\\udfff": ["\\ud83d\\ud83c\\udf89", 1.5]}', {"\ufffd": ["\ufffd🎉", 1.5]})])
def test_what_editors_and_broken_texts_leave_behind_is_read(data, value):
    """A byte order mark, as Notepad writes it, and half a surrogate pair."""
    assert strict_json.loads(data) == value


def test_clean_json_goes_through():
    assert strict_json.loads(b'{"a": [1, 2.5, "\\ud83c\\udf89", null, true]}') == {
        "a": [1, 2.5, "🎉", None, True]}
    document = {"a": 1, "list": [{"b": "ü"}, {"c": None}], "empty": [], "text": "\u2028\x00"}
    assert strict_json.loads(strict_json.pretty(document)) == document
