"""Guidance in a chat: what is set, what the model is asked for, and what is kept of it."""

from __future__ import annotations

from model import ChatMessage
from tests.helpers.api import MARLOW, parse_events

RUDE = {"guidance_scale": 1.5, "negative_prompt": "{{char}} is rude to {{user}}."}
SYSTEM = [ChatMessage("system", "Marlow is rude to User.")]


def test_a_reply_is_guided_away_from_the_negative_prompt_and_keeps_both(page, model):
    page.set(sampling=RUDE, system_prompt="Be kind.")
    page.say("Hello")
    started = model.started[-1]
    assert (started["params"].guidance_scale, started["against"]) == (1.5, SYSTEM)
    kept = page.load()["session"]["messages"][-1]
    assert {name: kept["sampling"][name] for name in RUDE} == RUDE
    page.set(sampling={})
    page.say("Hello again")
    assert model.started[-1]["params"].guidance_scale == 1 and model.started[-1]["against"] == []


def test_the_next_token_and_a_replay_are_guided_as_well(page, model):
    page.set(sampling=RUDE | {"seed": 7})
    page.say("Hello")
    page.client.get(f"{page.url}/next-token?bot={MARLOW}")
    assert (model.looked[-1]["params"].guidance_scale, model.looked[-1]["against"]) == (1.5, SYSTEM)
    reply = page.load()["session"]["messages"][-1]
    page.set(sampling={})
    last = parse_events(page.client.get(f"{page.url}/messages/{reply['id']}/replay").data)[-1]
    assert last.name == "done" and last.data["identical"]
    assert (model.started[-1]["params"].guidance_scale, model.started[-1]["against"]) == (1.5, SYSTEM)


def test_what_cannot_be_is_refused_with_a_sentence(page):
    revision = page.session["revision"]
    for sampling, said in (
            ({"guidance_scale": -1}, "guidance_scale is -1; expected a number from 0.0 to 10.0"),
            ({"negative_prompt": None}, "negative_prompt is None; expected a text of at most 8,000"),
            ({"negative_prompt": "x" * 8001}, "expected a text of at most 8,000 characters")):
        response = page.client.patch(page.url, json={"revision": revision, "sampling": sampling})
        assert response.status_code == 400 and said in response.json["error"]["message"]


def test_the_memory_in_use_and_the_prompt_show_what_guidance_leads_away_from(page):
    page.set(system_prompt="Be kind.")
    page.say("Hello")
    plain = page.load()["context"]
    assert plain["guide_tokens"] is None and page.client.get(f"{page.url}/prompt").json["guide"] is None
    context = page.send("PATCH", "", sampling=RUDE)["context"]
    prompt = page.client.get(f"{page.url}/prompt").json
    texts = [part["text"] for part in prompt["guide"]["parts"]]
    assert "Marlow is rude to User." in texts and "Hello" in texts and "Be kind." not in texts
    assert prompt["guide"]["prompt_tokens"] == sum(part["tokens"] for part in prompt["guide"]["parts"])
    assert context["guide_tokens"] and context["prompt_tokens"] == plain["prompt_tokens"]
