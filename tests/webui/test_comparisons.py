"""Several replies to one message, written side by side, and the vote for one of them."""

from __future__ import annotations

import json

import pytest

from tests.helpers.api import LIN, MARLOW, OTTO, Page, read_some, wait_until
from webui.chat.comparing import Column, in_order
from webui.storage.store import Store


def compare(page: Page, *columns: dict, text: str = "hello there", expect: int = 202, **more) -> dict:
    return page.send("POST", "/comparisons", expect, text=text, columns=list(columns), **more)


def finished(page: Page, body: dict) -> list[dict]:
    """The columns' messages, in their order."""
    for reply in body["replies"]:
        page.finish(reply)
    by_id = {message["id"]: message for message in page.load()["session"]["messages"]}
    return [by_id[column["message"]] for column in page.session["comparisons"][-1]["columns"]]


def test_columns_answer_one_message_as_versions_of_its_reply(page):
    page.say("what was before")
    above = page.session["leaf"]
    body = compare(page, {"bot": MARLOW, "preset": "greedy"}, {"bot": OTTO, "seed": 5})
    first, second = finished(page, body)
    assert body["message"]["parent"] == above
    assert first["parent"] == second["parent"] == body["message"]["id"]
    assert (first["name"], second["name"]) == ("Marlow", "Otto")
    assert first["sampling"]["temperature"] == 0.0 and second["seed"] == 5
    (kept,) = page.session["comparisons"]
    assert kept["id"] == body["comparison"] and kept["question"] == body["message"]["id"]
    assert kept["columns"] == [
        {"message": first["id"], "bot": MARLOW, "preset": "greedy", "seed": None},
        {"message": second["id"], "bot": OTTO, "preset": None, "seed": 5}]
    assert kept["winner"] is None and page.session["leaf"] in (first["id"], second["id"])


def test_all_of_them_are_written_at_the_same_time(page, model):
    model.gate.clear()
    body = compare(page, *({"bot": MARLOW, "seed": seed} for seed in range(4)))
    wait_until(lambda: model.running == 4)
    assert [one["message_id"] for one in body["replies"]] == [
        one["message_id"] for one in page.load()["session"]["replies"]]
    refused = page.send("POST", "/messages", 409, text="and this?")
    assert refused["error"]["code"] == "busy"
    model.gate.set()
    assert [message["seed"] for message in finished(page, body)] == [0, 1, 2, 3]
    assert page.session["replies"] == []
    page.say("and this?")


def test_what_the_session_samples_is_left_out_by_a_preset_but_for_lengths(page):
    page.set(sampling={"temperature": 0.9, "max_new_tokens": 7, "seed": 3})
    named, own = finished(page, compare(page, {"bot": MARLOW, "preset": "precise"}, {"bot": MARLOW}))
    assert (named["sampling"]["temperature"], named["sampling"]["max_new_tokens"]) == (0.3, 7)
    assert own["sampling"]["temperature"] == 0.9 and named["seed"] == own["seed"] == 3


def test_a_vote_makes_the_winner_the_chat_and_may_be_changed(page):
    body = compare(page, {"bot": MARLOW, "seed": 1}, {"bot": MARLOW, "seed": 2})
    first, second = finished(page, body)
    vote = f"/comparisons/{body['comparison']}/vote"
    for winner in (second, first):
        page.send("POST", vote, winner=winner["id"])
        assert page.session["comparisons"][0]["winner"] == page.session["leaf"] == winner["id"]
    (more,) = page.say("go on")
    page.send("POST", vote, winner=second["id"])
    page.send("POST", vote, winner=first["id"])
    assert page.session["leaf"] == more["id"]  # with what followed it


def test_votes_for_what_was_not_compared_are_refused(page):
    body = compare(page, {"bot": MARLOW}, {"bot": MARLOW})
    first, _second = finished(page, body)
    vote = f"/comparisons/{body['comparison']}/vote"
    page.send("POST", vote, 404, winner=body["message"]["id"])
    page.send("POST", f"/comparisons/{'0' * 16}/vote", 404, winner=first["id"])
    page.send("DELETE", f"/messages/{first['id']}")
    gone = page.send("POST", vote, 404, winner=first["id"])
    assert "no such message" in gone["error"]["message"]


def test_an_error_in_one_column_leaves_the_others_alone(page, store, model):
    store.bots.change(OTTO, None, lambda bot: {**bot, "adapter": "gone"})
    body = compare(page, {"bot": MARLOW}, {"bot": OTTO}, {"bot": LIN})
    marlow, otto, lin = finished(page, body)
    assert marlow["finish_reason"] == lin["finish_reason"] == "eos"
    assert otto["finish_reason"] == "error" and "There is no adapter" in otto["error"]
    page.say("and now?")


def test_stopping_one_stops_them_all_and_keeps_what_was_written(page, model):
    model.gate.clear()
    body = compare(page, {"bot": MARLOW}, {"bot": OTTO})
    wait_until(lambda: model.running == 2)
    assert page.client.post(f"/api/replies/{body['replies'][1]['reply_id']}/stop", json={}).status_code == 200
    assert [message["finish_reason"] for message in finished(page, body)] == ["cancelled"] * 2
    model.gate.set()
    assert page.load()["session"]["replies"] == []


def test_the_columns_of_a_server_that_ends_are_all_kept(page, model, store):
    from webui.routes.parlor import parlor

    model.delay = 0.003
    body = compare(page, {"bot": MARLOW}, {"bot": OTTO}, text="tell me something long")
    wait_until(lambda: model.running == 2)
    parlor(page.client.application).close("Parlor was stopped.", 2.0)
    session = store.session(page.session["id"])
    ends = [message["finish_reason"] for message in session["messages"] if message["parent"] ==
            body["message"]["id"]]
    assert ends == ["interrupted"] * 2 and len(session["comparisons"]) == 1


def test_a_column_may_speak_by_another_model_than_its_bot(page, store):
    store.bots.change(OTTO, None, lambda bot: {**bot, "engine": {"id": "e" * 16, "model": "far"}})
    elsewhere = {"bot": MARLOW, "engine": {"id": "e" * 16, "model": "far"}}
    here, own, far = finished(page, compare(page, {"bot": OTTO, "engine": None}, {"bot": OTTO}, elsewhere))
    assert here["finish_reason"] == "eos" and here["model"] == "fake-1M"
    assert own["finish_reason"] == far["finish_reason"] == "error"
    assert [column.get("engine", "its own") for column in page.session["comparisons"][0]["columns"]] == [
        None, "its own", elsewhere["engine"]]


def test_blind_columns_come_in_an_order_of_chance():
    columns = [Column(MARLOW, seed=seed) for seed in range(4)]
    assert in_order(columns, blind=False) == columns
    orders = {tuple(one.seed for one in in_order(columns, blind=True)) for _ in range(200)}
    assert len(orders) > 10 and all(sorted(order) == [0, 1, 2, 3] for order in orders)


@pytest.mark.parametrize(("columns", "said"), [
    ([{"bot": MARLOW}], "columns has 1 entries; expected 2 to 4."),
    ([{"bot": MARLOW}] * 5, "columns is not a list of at most 4 objects."),
    (["x", "y"], "columns is not a list of at most 4 objects."),
    ([{"bot": MARLOW}, {"seed": 1}], "A column has no bot."),
    ([{"bot": MARLOW}, {"bot": MARLOW, "seed": -1}], "seed is not a whole number"),
    ([{"bot": MARLOW}, {"bot": MARLOW, "preset": "none"}], "is not the id of a preset"),
    ([{"bot": MARLOW}, {"bot": MARLOW, "engine": 5}], "engine is neither null nor {id, model}"),
    ([{"bot": MARLOW}, {"bot": MARLOW, "tempo": 5}], "'tempo' is not known here")])
def test_columns_that_are_none_are_refused_before_anything_is_said(page, columns, said):
    body = page.send("POST", "/comparisons", 400, text="hello", columns=columns)
    assert said in body["error"]["message"]
    assert page.load()["session"]["messages"] == []


def test_an_empty_message_a_bot_that_is_gone_and_a_stale_revision_are_refused(page):
    two = [{"bot": MARLOW}, {"bot": MARLOW}]
    assert "is empty" in compare(page, *two, text=" ", expect=400)["error"]["message"]
    gone = compare(page, {"bot": MARLOW}, {"bot": "f" * 16}, expect=404)
    assert "does not exist" in gone["error"]["message"]
    page.set(title="changed")
    stale = page.client.post(f"{page.url}/comparisons", json={"revision": 1, "text": "x", "columns": two})
    assert stale.status_code == 409 and page.load()["session"]["messages"] == []


def test_what_a_session_keeps_of_comparisons_is_checked_and_outlives_export_and_restart(client, page, store):
    finished(page, compare(page, {"bot": MARLOW}, {"bot": MARLOW}, blind=True))
    exported = client.get(f"{page.url}/export?format=json").json
    again = client.post("/api/sessions/import", json={"data": exported}).json["session"]
    assert again["comparisons"] == page.session["comparisons"] and again["comparisons"][0]["blind"]
    bare = {key: value for key, value in page.session.items() if key not in ("replies", "next", "read_only")}
    for wrong, said in (("x", "comparisons is not a list"), ([{}], "comparisons[0] is not"),
                        ([{**bare["comparisons"][0], "winner": "0" * 16}], "winner is none of its columns"),
                        ([{**bare["comparisons"][0], "columns": []}], "columns is not a list of 1 to 4")):
        refused = client.post("/api/sessions/import", json={"data": {**bare, "comparisons": wrong}})
        assert refused.status_code == 400 and said in refused.json["error"]["message"]
    store.close()
    reopened = Store(store.folder)
    assert reopened.session(page.session["id"])["comparisons"] == page.session["comparisons"]
    reopened.close()


# Several in one stream


def several(client, replies, start=0):
    of = ",".join(f"{reply['reply_id']}:{start}" for reply in replies)
    response = client.get(f"/api/replies/events?of={of}")
    assert response.status_code == 200, response.json
    found = {}
    for block in response.data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            reply, index = fields["id"].split(":")
            found.setdefault(reply, []).append((int(index), fields["event"], json.loads(fields["data"])))
    return found


def said_in(events):
    return "".join(data["text"] for _, name, data in events if name == "text")


def test_one_stream_carries_all_replies_as_streams_of_their_own_do(page, model):
    model.scripts += ["The first says this.", "The second says that, and a little more."]
    replies = compare(page, {"bot": MARLOW}, {"bot": OTTO})["replies"]
    together = several(page.client, replies)
    for reply in replies:
        alone = page.events(reply)
        events = together[reply["reply_id"]]
        assert said_in(events) == "".join(event.data["text"] for event in alone if event.name == "text")
        assert events[-1] == (alone[-1].index, "done", alone[-1].data)
        assert [index for index, _, _ in events] == sorted({index for index, _, _ in events})
        last = alone[-1].index
        again = several(page.client, [reply], last)
        assert again == {reply["reply_id"]: [events[-1]]}, "from its number on"


def test_a_reply_that_is_not_known_is_told_in_the_stream_and_the_others_go_on(page):
    replies = compare(page, {"bot": MARLOW}, {"bot": OTTO})["replies"]
    found = several(page.client, [{"reply_id": "f" * 16}, replies[0]])
    assert found["f" * 16] == [(0, "gone", {})]
    assert found[replies[0]["reply_id"]][-1][1] == "done"


@pytest.mark.parametrize("of", ["", "x", "f" * 16, "f" * 16 + ":-1", "f" * 16 + ":x", ",",
                                ",".join(f"{number:016x}:0" for number in range(17))])
def test_a_stream_of_several_says_what_it_expects(client, of):
    error = client.get(f"/api/replies/events?of={of}")
    assert error.status_code in (400, 404) and error.json["error"]["message"]


def test_one_column_is_stopped_alone_and_the_other_is_written_to_its_end(page, model):
    model.scripts += ["word " * 200] * 2
    model.delay = 0.005
    stopped, other = compare(page, {"bot": MARLOW}, {"bot": OTTO})["replies"]
    read_some(page.client, stopped)
    answer = page.client.post(f"/api/replies/{stopped['reply_id']}/stop", json={"alone": True})
    assert answer.json == {"stopped": True}
    ends = {reply["message_id"]: page.events(reply)[-1].data["message"]["finish_reason"]
            for reply in (stopped, other)}
    assert ends[stopped["message_id"]] == "cancelled" and ends[other["message_id"]] != "cancelled"
