"""The prompt inspector over HTTP: what a bot would be sent, part by part, and why where that is not known."""

from __future__ import annotations

from tests.helpers.api import LIN, MARLOW, Page


def prompt_of(page: Page, **which: str) -> dict:
    response = page.client.get(f"{page.url}/prompt", query_string=which)
    assert response.status_code == 200, response.json
    return response.json


def test_the_prompt_of_the_next_reply_comes_in_parts_that_say_what_they_are(room):
    room.set(system_prompt="It rains.", user_name="Ann")
    room.say("<b>Hi</b> Otto")
    seen = prompt_of(room, bot=MARLOW)
    kinds = [(part["kind"], part.get("name", "")) for part in seen["parts"] if part["kind"] != "template"]
    assert kinds[:3] == [("persona", ""), ("system", ""), ("room", "")]
    assert kinds[3:] == [("turn", "Ann"), ("turn", "Otto"), ("answer", "")]
    said = [part for part in seen["parts"] if part["kind"] == "turn"]
    assert [part["message"] for part in said] == [message["id"] for message in room.session["messages"]]
    assert said[0]["text"] == "Ann: <b>Hi</b> Otto" and said[0]["tokens"] == 3
    assert sum(part["tokens"] for part in seen["parts"]) == seen["prompt_tokens"]
    assert (seen["name"], seen["model"], seen["problem"]) == ("Marlow", "fake-1M", "")
    assert seen["first_message"] == said[0]["message"] and seen["left_out"] == 0
    text = "".join(part["text"] for part in seen["parts"])
    cut = seen["read_from"]
    assert len("".join(one["text"] for one in seen["parts"][:cut["part"]])) + cut["chars"] == len(text) // 2
    assert seen["cached_tokens"] == seen["prompt_tokens"] // 2
    assert prompt_of(room)["name"] == "Otto", "who spoke last"
    assert prompt_of(room, bot=LIN)["parts"][1]["text"] != seen["parts"][1]["text"]


def test_the_prompt_of_a_reply_is_that_of_what_was_said_before_it(page):
    (first,) = page.say("one")
    page.say("two")
    seen = prompt_of(page, message=first["id"])
    assert [part["text"] for part in seen["parts"] if part["kind"] == "turn"][-1] == "one"
    for wrong, status in (({"message": first["parent"]}, 400), ({"message": "f" * 16}, 404),
                          ({"bot": "f" * 16}, 400), ({"bot": "x"}, 404)):
        answer = page.client.get(f"{page.url}/prompt", query_string=wrong)
        assert answer.status_code == status and answer.json["error"]["message"]


def test_what_is_left_out_is_counted_and_the_first_that_is_in_is_named(page, model):
    model.max_seq_len = 400
    for number in range(8):
        page.say(f"{number} " + "word " * 30)
    seen = prompt_of(page)
    context = page.load()["context"]
    assert seen["first_message"] == context["first_message"] and seen["left_out"] > 2
    ids = [message["id"] for message in page.session["messages"]]
    assert seen["left_out"] == ids.index(seen["first_message"])
    said = [part["message"] for part in seen["parts"] if part["kind"] == "turn"]
    assert said == ids[seen["left_out"]:]


def test_a_pinned_message_stays_in_and_takes_a_revision_as_every_change_does(page, model):
    model.max_seq_len = 400
    for number in range(8):
        page.say(f"{number} " + "word " * 30)
    first = page.session["messages"][1]
    left_out = prompt_of(page)["left_out"]
    page.send("PATCH", f"/messages/{first['id']}", pinned=True)
    assert page.session["messages"][1]["pinned"] is True
    seen = prompt_of(page)
    said = [part for part in seen["parts"] if part["kind"] == "turn"]
    assert [part["pinned"] for part in said] == [True] + [False] * (len(said) - 1)
    assert said[0]["text"] == first["text"] and seen["left_out"] >= left_out - 1
    copy = page.client.post("/api/sessions/import", json={
        "data": page.client.get(f"{page.url}/export?format=json").json}).json["session"]
    assert [message.get("pinned") for message in copy["messages"]][:3] == [None, True, None]
    stale = page.client.patch(f"{page.url}/messages/{first['id']}", json={"revision": 1, "pinned": False})
    assert stale.status_code == 409 and stale.json["error"]["code"] == "stale"
    page.send("PATCH", f"/messages/{first['id']}", 400, pinned="yes")
    page.send("PATCH", f"/messages/{first['id']}", 400, pinned=True, text="both")
    page.send("PATCH", f"/messages/{first['id']}", pinned=False)
    assert prompt_of(page)["left_out"] == left_out


def test_where_the_prompt_is_not_known_a_sentence_says_why(page, model, client):
    def refuse(*_arguments, **_options):
        raise ValueError("The chat template refuses this.")

    page.say("hello")
    model.inspect, inspect = refuse, model.inspect
    assert prompt_of(page)["problem"] == "The chat template refuses this." and "parts" not in prompt_of(page)
    model.inspect = lambda *_arguments, **_options: 1 / 0
    assert "log says more" in prompt_of(page)["problem"]
    model.inspect = inspect
    client.post("/api/models/unload", json={})
    page.client.application.extensions["parlor"].slot.wait()
    problem = prompt_of(page, bot=MARLOW)["problem"]
    assert problem.startswith("What Marlow would be sent cannot be told now: No model is loaded"), problem
