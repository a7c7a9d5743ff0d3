"""The X-ray of the next token over HTTP: what is told of it, of whose, and how little it disturbs."""

from __future__ import annotations

import math

import pytest

from model import LOGPROBS
from tests.helpers.api import LIN, MARLOW, OTTO, Page
from tests.helpers.fake_next_token import END, VOCAB_SIZE


def look(page: Page, bot: str = MARLOW, expect: int = 200) -> dict:
    response = page.client.get(f"{page.url}/next-token?bot={bot}")
    assert response.status_code == expect, response.json
    return response.json if expect == 200 else response.json["error"]


def test_what_may_come_next_is_told_and_nothing_is_written(page, model):
    page.send("POST", "/messages", text="hello there", reply=False)
    page.set(sampling={"max_new_tokens": 77, "dry_sequence_breakers": ["!"]})
    told = look(page)
    likeliest, gamma = told["tokens"][0], told["tokens"][2]
    assert likeliest == {"text": " alpha", "id": 0, "logit": pytest.approx(8), "back": 1, "count": 0}
    assert gamma["repeats"] == [[3, 2]] and gamma["back"] == 2
    (end,) = (one for one in told["tokens"] if one["id"] == END)
    assert end["ends"] and end["control"] and "back" not in end
    assert any(one.get("bytes") == "F0 9F" and one["text"] == "" for one in told["tokens"])
    assert len(told["tokens"]) + sum(count for _, count in told["rest"]) == VOCAB_SIZE
    assert all(math.isfinite(logit) for logit, _ in told["rest"])
    assert (told["num_tokens"], told["reply_length"]) == (5, 0)
    asked = model.looked[-1]
    assert asked["messages"][-1].content == "hello there" and asked["reply_name"] == "Marlow"
    assert (asked["params"].max_new_tokens, asked["params"].dry_sequence_breakers) == (77, ("!",))
    before = page.session
    assert page.load()["session"] == before and not model.started


def test_each_bot_of_the_room_has_its_own_and_others_have_none(client, model):
    page = Page(client, MARLOW, OTTO)
    page.say("hello to both")
    look(page, OTTO)
    assert model.looked[-1]["reply_name"] == "Otto"
    assert model.looked[-1]["messages"][0].content.startswith("You are Otto")
    assert look(page, LIN, 400)["message"] == "This bot is not in the session."
    assert look(page, "f" * 16, 400)["message"] == "This bot is not in the session."
    assert look(page, "", 404)["message"] == "There is no such bot."


def test_within_a_reply_it_is_what_might_have_come_in_a_tokens_place(page, model):
    (reply,) = page.say("hello there")
    tokens = page.client.get(f"{page.url}/messages/{reply['id']}/tokens").json["tokens"]
    url = f"{page.url}/messages/{reply['id']}/tokens"
    told = page.client.get(f"{url}/3").json
    assert told["chosen"] == {"text": tokens[3]["text"]} and told["reply_length"] == 3
    asked = model.looked[-1]
    assert asked["reply_prefix"] == tokens[0]["text"]
    assert asked["reply_tokens"] == [one["text"].encode() for one in tokens[1:3]]
    assert asked["messages"][-1].content == "hello there"
    assert page.client.get(f"{url}/0").json["reply_length"] == 0
    wrong = page.client.get(f"{url}/9000")
    assert wrong.status_code == 400 and wrong.json["error"]["hint"] == "Look at the tokens again."


def test_a_thought_stands_before_the_replys_tokens_and_its_end_cannot_be_looked_into(page, model):
    (reply,) = page.say("think aloud")
    url = f"{page.url}/messages/{reply['id']}/tokens"
    assert page.client.get(url).status_code == page.client.get(f"{url}/1").status_code == 200
    assert model.looked[-1]["reply_thinking"] == reply["thinking"] != ""
    first = page.client.get(f"{url}/0")
    assert first.status_code == 400 and "after a thought" in first.json["error"]["message"]


def test_a_model_that_cannot_tell_says_why_in_a_sentence(page, model):
    model.cannot = {LOGPROBS: "This engine does not tell its tokens."}
    assert look(page, expect=400)["message"] == "This engine does not tell its tokens."


def test_nobody_waits_for_it_once_the_connection_is_closed(page, model):
    model.gate.clear()
    response = page.client.get(f"{page.url}/next-token?bot={MARLOW}",
                               environ_overrides={"waitress.client_disconnected": lambda: True})
    model.gate.set()
    assert response.status_code == 499
