"""Long sessions in parts: the texts near the end first, the others from the revision that the page knows."""

from __future__ import annotations

import random

import pytest

from webui.chat import parts
from webui.chat.parts import nearest, part, size
from webui.storage.revisions import KEPT_REVISIONS

BOT = "a0a0a0a0a0a0a001"


def message(number, parent, length=10):
    return {"id": f"{number:016x}", "parent": f"{parent:016x}" if parent else None,
            "author": BOT if number % 2 else "user", "name": "",
            "text": "x" * length, "thinking": "", "created": 1_700_000_000.0 + number}


def line(count, length):
    """A session in which one message follows the other."""
    return {"messages": [message(number, number - 1, length) for number in range(1, count + 1)],
            "leaf": f"{count:016x}"}


def test_the_last_of_the_path_have_their_texts_and_the_others_their_places():
    """Ten messages of 30,000 characters, and another fourth one: room for 65,536 ends in the second."""
    session = line(10, 30_000)
    session["messages"].append(message(11, 3, 30_000))
    session["leaf"] = session["messages"][-1]["id"]  # 1, 2, 3, 11
    shown = nearest(session)
    assert [one["id"] for one in shown if "far" not in one] == [f"{number:016x}" for number in (2, 3, 11)]
    assert shown[10] is session["messages"][10]
    assert shown[0] == {"id": f"{1:016x}", "parent": None, "author": BOT, "name": "", "text": "",
                        "created": 1_700_000_001.0, "far": True}
    assert [(one["id"], one["parent"]) for one in shown] == [
        (one["id"], one["parent"]) for one in session["messages"]]


def test_what_the_disk_refused_is_never_far_for_it_is_in_no_revision():
    session = line(20, 30_000)
    refused = {**message(21, 3), "error": "Not saved yet: the disk is full."}
    session["messages"].append(refused)
    assert nearest(session)[20] is refused


def test_a_short_session_comes_whole_and_one_without_anything_shown_too():
    session = line(20, 5_000)
    assert nearest(session) is session["messages"]
    assert nearest({"messages": [], "leaf": None}) == []
    long = {**line(20, 50_000), "leaf": None}
    assert all(one["far"] for one in nearest(long))


@pytest.mark.parametrize("seed", range(5))
def test_one_part_after_the_other_is_everything_once(seed):
    rng = random.Random(seed)
    messages = [message(number, number - 1, rng.choice((0, 10, 3_000, 400_000))) for number in range(1, 200)]
    before, found = len(messages) + 7, []
    while before:
        first, some = part(messages, before)
        assert some and (len(some) == 1 or sum(map(size, some)) <= parts.PART)
        assert not first or sum(map(size, some)) + size(messages[first - 1]) > parts.PART
        before, found = first, [*some, *found]
    assert found == messages
    assert part(messages, 0) == (0, []) and part([], 5) == (0, [])


@pytest.fixture
def long_page(page):
    """A session of 60 messages of 20,000 characters."""
    for number in range(60):
        page.send("POST", "/messages", text=f"{number} " + "word " * 4_000, reply=False)
    page.load()
    return page


def filled(client, page, body):
    """All messages, as a page puts them together from an answer with `texts=near`."""
    session = body["session"]
    headers = {"Known-Revision": session["revision"]}
    while far := [index for index, one in enumerate(session["messages"]) if one.get("far")]:
        answer = client.get(f"{page.url}/messages?before={far[-1] + 1}", headers=headers)
        assert answer.status_code == 200
        for index, one in enumerate(answer.json["messages"], answer.json["first"]):
            assert session["messages"][index]["id"] == one["id"]
            session["messages"][index] = one
    return session


def test_what_is_put_together_is_the_session(client, long_page):
    near = client.get(f"{long_page.url}?texts=near")
    assert len(near.data) < 120_000 < len(client.get(long_page.url).data) / 10
    assert "context" in near.json
    assert filled(client, long_page, near.json) == long_page.session


def test_parts_are_of_the_revision_that_is_known_whatever_was_changed_since(client, long_page):
    """An edit that is undone before the page hears of it leaves no trace in any delta, nor in a part."""
    near = client.get(f"{long_page.url}?texts=near").json
    second = long_page.session["messages"][1]
    long_page.send("PATCH", f"/messages/{second['id']}", text="Something else.")
    long_page.send("DELETE", f"/messages/{long_page.session['messages'][0]['id']}")
    session = filled(client, long_page, near)
    assert session["messages"][1] == second and len(session["messages"]) == 60
    headers = {"Known-Revision": session["revision"]}
    delta = client.get(f"{long_page.url}?texts=near", headers=headers).json["delta"]
    assert [one["text"] for _, one in delta["changed"]] == ["Something else."] and len(delta["removed"]) == 1


def test_a_revision_that_is_forgotten_is_told_and_near_texts_come_again(client, long_page):
    headers = {"Known-Revision": long_page.session["revision"]}
    for number in range(KEPT_REVISIONS + 1):
        long_page.set(title=f"Title {number}")
        client.get(long_page.url)  # which is what makes a revision known
    path = f"{long_page.url}/messages?before=5"
    refused = client.get(path, headers=headers)
    assert refused.status_code == 409 and refused.json["error"]["code"] == "stale"
    again = client.get(f"{long_page.url}?texts=near", headers=headers).json
    assert filled(client, long_page, again)["messages"] == long_page.session["messages"]


@pytest.mark.parametrize("headers, query", [
    ({}, "before=5"), ({"Known-Revision": "x"}, "before=5"), ({"Known-Revision": "1"}, ""),
    ({"Known-Revision": "1"}, "before=-1"), ({"Known-Revision": "1"}, "before=1.5")])
def test_what_is_no_part_is_refused(client, page, headers, query):
    assert client.get(f"{page.url}/messages?{query}", headers=headers).status_code == 400


def test_there_is_no_part_of_a_session_that_is_gone(client, page):
    headers = {"Known-Revision": "1"}
    assert client.get("/api/sessions/0000000000000000/messages?before=5", headers=headers).status_code == 404
    client.delete(page.url, json={})
    assert client.get(f"{page.url}/messages?before=5", headers=headers).status_code == 404
