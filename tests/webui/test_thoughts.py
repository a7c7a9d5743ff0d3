"""How long a reply thought, ending that, and how much it is told to think. With a scripted model."""

from __future__ import annotations

from model import thinking_variables
from tests.helpers.api import MARLOW, wait_until
from webui.routes.parlor import parlor


def test_a_reply_keeps_how_long_it_thought(page):
    body = page.send("POST", "/messages", text="think about it")
    events = page.events(body["reply"])
    (thought,) = [event.data for event in events if event.name == "thought"]
    kinds = [event.name for event in events]
    assert kinds.index("think") < kinds.index("thought") < kinds.index("text")
    page.load()
    message = page.session["messages"][-1]
    words = len(message["thinking"].split())
    assert message["thinking_tokens"] == thought["thinking_tokens"] >= words > 0
    assert message["thinking_seconds"] == thought["thinking_seconds"] >= 0
    assert message["thinking_tokens"] < message["new_tokens"]
    (plain,) = page.say("code please")
    assert "thinking_tokens" not in plain


def test_answer_now_ends_the_thought_and_the_answer_begins(app, client, page, model):
    model.gate.clear()
    reply = page.send("POST", "/messages", text="think about it")["reply"]
    job = parlor(app).chat.chains.job(reply["reply_id"])
    wait_until(lambda: job._reply is not None)
    answer = client.post(f"/api/replies/{reply['reply_id']}/answer")
    assert (answer.status_code, answer.json) == (200, {"answering": True})
    model.gate.set()
    (message,) = page.finish(reply)
    assert message["thinking"] == "" and message["text"] == "After thinking: yes."
    late = client.post(f"/api/replies/{reply['reply_id']}/answer")
    assert late.status_code == 400 and "is not thinking" in late.json["error"]["message"]
    assert client.post(f"/api/replies/{'0' * 16}/answer").status_code == 404


def test_effort_and_budget_are_settings_like_those_of_sampling(client, page, model):
    """What the session says counts before the preset and the bot; both are checked where they are set."""
    bot = client.get(f"/api/bots/{MARLOW}").json["bot"]
    client.patch(f"/api/bots/{MARLOW}", json={"revision": bot["revision"], "sampling": {
        "reasoning_effort": "low", "thinking_budget": 100}})
    (message,) = page.say("hello")
    assert model.started[-1]["params"].reasoning_effort == "low"
    assert model.started[-1]["params"].thinking_budget == 100
    page.set(sampling={"reasoning_effort": "none", "thinking_budget": None})
    (message,) = page.say("hello")
    assert (message["sampling"]["reasoning_effort"], message["sampling"]["thinking_budget"]) == ("none", None)
    for wrong, said in (({"reasoning_effort": "most"}, "reasoning_effort is 'most'; expected one of"),
                        ({"reasoning_effort": 3}, "reasoning_effort is 3; expected one of"),
                        ({"reasoning_effort": ["low"]}, "reasoning_effort is ['low']; expected one of"),
                        ({"thinking_budget": -1}, "thinking_budget is -1; expected a whole number from 0"),
                        ({"thinking_budget": "many"}, "thinking_budget is 'many'; expected a whole number")):
        assert said in page.send("PATCH", "", expect=400, sampling=wrong)["error"]["message"]


def test_whether_the_model_thinks_and_what_it_can_be_told_is_known(client, model):
    model.thinks, model.efforts = True, ("none",)
    told = client.get("/api/status").json["model"]
    assert told["thinks"] is True and told["efforts"] == ["none"]


def test_what_counts_the_context_is_told_the_effort_as_a_reply_is(model, page, monkeypatch):
    told, fit = [], model.fit

    def counted(*args, **more):
        told.append(more["variables"])
        return fit(*args, **more)

    monkeypatch.setattr(model, "fit", counted)
    for effort in ("low", "none", ""):
        page.set(sampling={"reasoning_effort": effort} if effort else {})
        page.load()
        assert told[-1] == thinking_variables(effort)
