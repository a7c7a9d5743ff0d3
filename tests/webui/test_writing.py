"""What helps to write: the user's message by the model, a reply whose beginning is given, who the user is."""

from __future__ import annotations

import threading

from tests.helpers.api import LIN, MARLOW, wait_until


def drafted(page, **body):
    """(its text, the events after that) of a message that the model writes for the user."""
    answer = page.client.post(f"{page.url}/messages/draft", json=body)
    assert answer.status_code == 200, answer.json
    blocks = [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
              for block in answer.text.split("\n\n")]
    events = [(one["event"], answer.json_module.loads(one["data"])) for one in blocks if one]
    return ("".join(data["text"] for name, data in events if name == "text"),
            [one for one in events if one[0] != "text"])


def test_the_model_writes_the_users_message_from_the_users_side(room, model):
    room.set(user_name="Ann", user_persona="A nurse.", system_prompt="It rains on {{user}}.")
    room.say("Otto, one lamp is out.")
    reply = room.session["messages"][-1]
    before = room.load()["session"]
    model.scripts.append("Ann: And the other one?\n\n")
    assert drafted(room) == ("And the other one?", [("done", {})])
    asked = model.started[-1]
    system, own, said = asked["messages"]
    assert [one.role for one in asked["messages"]] == ["system", "assistant", "user"]
    assert system.content.startswith("About Ann: A nurse.\nIt rains on Ann.\nYou are Ann.")
    assert (own.content, said.content) == ("Otto, one lamp is out.", f"Otto: {reply['text']}")
    assert asked["name"] == "Ann" and asked["params"].stop == ("\nOtto:",)
    assert asked["params"].thinking_budget == 0 and asked["params"].max_new_tokens == 400
    assert room.load()["session"] == before, "nothing is kept"


def test_a_draft_goes_on_from_what_is_typed_and_begins_where_nobody_spoke(page, model):
    assert drafted(page, begun="Dear Marlow,")[0] == " And so it goes on, a little further."
    assert model.started[-1]["prefix"] == "Dear Marlow,"
    assert model.started[-1]["messages"][-1].content == "(Nobody has said anything yet.)"
    model.cannot = {"continue": "It cannot go on with a text."}
    assert drafted(page, begun="Dear")[1] == [
        ("error", {"message": "It cannot go on with a text.", "hint": "Empty the box first."})]


def test_a_draft_that_fails_says_why_and_one_that_nobody_waits_for_ends(page, model):
    page.say("please fail")
    text, events = drafted(page)
    assert text.startswith("You said:")
    assert events[0][0] == "error" and "out of pages" in events[0][1]["message"]
    model.gate.clear()
    answer = page.client.post(f"{page.url}/messages/draft", json={})
    pieces = iter(answer.response)
    reading = threading.Thread(target=lambda: [*pieces], daemon=True)
    reading.start()
    wait_until(lambda: model.running == 1)
    model.gate.set()
    reading.join(10)
    answer.close()
    wait_until(lambda: model.running == 0)
    unknown = page.client.post(f"{page.url}/messages/draft", json={"text": "x"})
    assert unknown.status_code == 400 and "'text' is not known here" in unknown.json["error"]["message"]


def test_a_reply_goes_on_from_the_beginning_that_is_given(page, model):
    (reply,) = page.finish(page.send("POST", "/messages", text="hello", begin="Well, ")["reply"])
    assert model.started[-1]["prefix"] == "Well,"
    assert reply["text"] == "Well, And so it goes on, a little further."
    (other,) = page.reply("regenerate", begin="No.")
    assert other["text"] == "No. And so it goes on, a little further." and other["parent"] == reply["parent"]
    (third,) = page.reply("next", bot=MARLOW, begin="Yes")
    assert third["text"].startswith("Yes And so") and third["author"] == MARLOW
    assert "continues" not in third
    (plain,) = page.reply("regenerate")
    assert plain["text"].startswith("You said:")
    refused = page.send("POST", "/replies", 400, kind="continue", begin="x")
    assert "'begin' is not known here" in refused["error"]["message"]


def test_where_the_model_decides_who_speaks_that_one_begins_so(room):
    room.set(turn_order="model")
    (reply,) = room.say("Lin, are you there?", begin="Here")
    assert reply["author"] == LIN and reply["text"].startswith("Here And so")


def test_a_model_that_cannot_go_on_with_a_text_is_given_no_beginning(page, model):
    page.say("hello")
    model.cannot = {"continue": "It cannot go on with a text."}
    refused = page.send("POST", "/replies", 400, kind="next", begin="Well")
    assert refused["error"] == {"message": "It cannot go on with a text.", "code": "bad_request",
                                "hint": "Let it begin by itself."}


def test_who_the_user_is_goes_into_the_prompt_and_is_shown_there(page, model):
    page.set(user_name="Ann", user_persona="  A nurse who fears the sea. ")
    page.say("hello")
    assert "About Ann: A nurse who fears the sea." in model.started[-1]["messages"][0].content
    parts = page.client.get(f"{page.url}/prompt").json["parts"]
    you = [part["text"] for part in parts if part["kind"] == "you"]
    assert you == ["About Ann: A nurse who fears the sea."]
    data = page.client.get(f"{page.url}/export?format=json").json
    copy = page.client.post("/api/sessions/import", json={"data": data}).json["session"]
    assert copy["user_persona"] == "  A nurse who fears the sea. "
    for wrong in ("x" * 50_001, None, 5):
        assert "the user's persona" in page.send("PATCH", "", 400, user_persona=wrong)["error"]["message"]
