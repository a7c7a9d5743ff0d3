"""Parlor's page in front of another Parlor's /v1: both ends of the protocol are ours, and meet."""

from __future__ import annotations

import pytest

from model import EngineAddress, Engines, ModelSlot
from tests.helpers.api import MARLOW, OTTO, Page, read_some, wait_until
from tests.helpers.cancelling import running, wait_for_running
from tests.helpers.fake_model import FakeModel
from webui import create_app
from webui.routes.parlor import parlor


@pytest.fixture
def page_before(store):
    """A function: a page whose loaded model is that of this server."""
    apps = []

    def make(server, *bots):
        engines = Engines([EngineAddress(server.url, "Other Parlor")])
        app = create_app(ModelSlot.holding(FakeModel(), engines), store)
        apps.append(app)
        slot = parlor(app).slot
        state, = engines.look()
        slot.load(engines.offers(state)[0].id)
        assert slot.wait().problem == ""
        return Page(app.test_client(), *bots)

    yield make
    for app in apps:
        parlor(app).close("the test is over", 1.0)
        parlor(app).slot.close()


def test_the_starter_answers_goes_on_and_is_counted_behind_another_page(starter, page_before):
    page = page_before(starter, MARLOW)
    page.set(sampling={"seed": 5, "max_new_tokens": 12})
    first = page.say("Hello, who are you?")[0]
    assert first["text"] and first["model"].endswith("(Other Parlor)") and first["seed"] == 5
    assert first["prompt_tokens"] > 10 and first["new_tokens"] <= 12
    assert page.reply("regenerate")[0]["text"] == first["text"]  # the same seed
    page.set(sampling={"seed": 5, "max_new_tokens": 4})
    cut = page.reply("regenerate")[0]
    assert cut["finish_reason"] == "length" and first["text"].startswith(cut["text"])
    page.set(sampling={"seed": 5, "max_new_tokens": 8, "temperature": 0})
    more = page.reply("continue")[0]
    assert more["text"].startswith(cut["text"]) and len(more["text"]) > len(cut["text"])
    listed = starter.client().get("/v1/models").json["data"][0]
    assert page.load()["context"]["max_seq_len"] == listed["max_model_len"]


def test_it_tells_who_speaks_next_as_a_model_of_ones_own_would(starter, page_before):
    page = page_before(starter)
    model = parlor(page.client.application).slot.model
    assert "rank" not in model.info()["cannot"]
    scores = model.rank_speakers([("Ann", "Hello, Marlow, how are you?")], ["Marlow", "Qzxv"])
    assert scores[1] < scores[0] < 0


def test_two_bots_talk_behind_another_page(starter, page_before):
    page = page_before(starter, MARLOW, OTTO)
    page.set(sampling={"max_new_tokens": 8}, turn_order="all")
    assert [one["name"] for one in page.say("Hello you two.")] == ["Marlow", "Otto"]


def test_stop_reaches_the_other_engine_within_a_step(slow, page_before):
    page = page_before(slow, MARLOW)
    reply = page.send("POST", "/messages", text="something long")["reply"]
    wait_for_running(slow, 1)
    read_some(page.client, reply)
    page.client.post(f"/api/replies/{reply['reply_id']}/stop", json={})
    message = page.finish(reply)[0]
    assert message["finish_reason"] == "cancelled" and message["text"]
    wait_until(lambda: running(slow) == 0)


def test_a_failure_of_the_other_engine_arrives_with_the_text_before_it(slow, page_before):
    message = page_before(slow, MARLOW).say("please fail")[0]
    assert message["text"] and "ran out of pages" in message["error"]
