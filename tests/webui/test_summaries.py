"""Summaries: written by the model, kept, used for what they cover, taken away; the messages stay."""

from __future__ import annotations

from tests.helpers.api import Page


def texts(page: Page) -> str:
    """What the bot that spoke last would be sent."""
    return "".join(part["text"] for part in page.client.get(f"{page.url}/prompt").json["parts"])


def test_the_model_writes_one_and_a_person_keeps_it(room, model):
    room.say("Otto, one lamp is out.")
    room.say("Otto, and the other?")
    messages, middle = room.session["messages"], room.session["messages"][1]
    revision = room.session["revision"]
    model.scripts.append("One lamp is out.")
    draft = room.client.post(f"{room.url}/summaries/draft", json={"until": middle["id"]})
    assert draft.json == {"text": "One lamp is out.", "left_out": 0}
    asked = model.started[-1]
    assert asked["messages"][0].role == "system" and asked["messages"][1].content == "\n".join([
        "User: Otto, one lamp is out.", f"Otto: {middle['text']}",
        "(Now write the summary of this conversation.)"])
    assert room.load()["session"]["revision"] == revision, "nothing is kept yet"
    room.send("POST", "/summaries", 201, until=middle["id"], text="  One lamp is out!  ")
    (summary,) = room.session["summaries"]
    assert (summary["text"], summary["until"]) == ("One lamp is out!", middle["id"])
    assert room.session["messages"] == messages
    sent = texts(room)
    assert "in short: One lamp is out!" in sent and "User: Otto, one lamp" not in sent and "other?" in sent
    context = room.load()["context"]
    assert context["first_message"] == messages[2]["id"]
    room.say("Otto, so?")
    assert "in short: One lamp is out!" in model.started[-1]["messages"][0].content
    model.scripts.append("Both.")
    room.client.post(f"{room.url}/summaries/draft", json={"until": room.session["messages"][3]["id"]})
    lines = model.started[-1]["messages"][1].content.split("\n")
    assert lines[0] == "What was said before, in short: One lamp is out!" and len(lines) == 4


def test_what_it_covers_comes_back_when_it_is_taken_away_and_a_branch_above_it_never_knew_it(page):
    first, _ = page.say("one")[0], page.say("two")
    page.send("POST", "/summaries", 201, until=first["id"], text="Sum.")
    page.send("POST", "/summaries", 201, until=first["id"], text="Other.")
    (summary,) = page.session["summaries"]  # in place of the one that was there
    again = page.reply("regenerate", message=first["id"])[0]
    assert "Other." not in texts(page)
    page.set(leaf=page.session["messages"][3]["id"])
    assert "Other." in texts(page)
    page.send("DELETE", f"/messages/{first['id']}")
    assert page.session["summaries"][0]["until"] == first["parent"] and "Other." in texts(page)
    stale = page.client.delete(f"{page.url}/summaries/{summary['id']}", json={"revision": 1})
    assert stale.status_code == 409 and stale.json["error"]["code"] == "stale"
    data = page.client.get(f"{page.url}/export?format=json").json
    copy = page.client.post("/api/sessions/import", json={"data": data}).json["session"]
    assert copy["summaries"] == page.session["summaries"] and again["id"] in str(copy["messages"])
    page.send("DELETE", f"/summaries/{summary['id']}")
    assert page.session["summaries"] == [] and "Other." not in texts(page)
    page.send("DELETE", f"/summaries/{summary['id']}", 404)


def test_what_cannot_be_summarized_is_told(page, model):
    (reply,) = page.say("one")
    for until, status in (("f" * 16, 404), ("x", 404)):
        page.send("POST", "/summaries", status, until=until, text="Sum.")
        assert page.client.post(f"{page.url}/summaries/draft", json={"until": until}).status_code == status
    page.send("POST", "/summaries", 400, until=reply["id"], text="  ")
    model.scripts.append("")
    answer = page.client.post(f"{page.url}/summaries/draft", json={"until": reply["id"]})
    assert answer.status_code == 400 and "wrote nothing" in answer.json["error"]["message"]
    model.max_seq_len = 300
    for number in range(6):
        page.say(f"{number} " + "word " * 40)
    last = page.session["messages"][-1]["id"]
    model.scripts.append("Short.")
    answer = page.client.post(f"{page.url}/summaries/draft", json={"until": last})
    assert answer.json["left_out"] > 0 and answer.json["text"] == "Short."
