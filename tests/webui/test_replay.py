"""A stored reply generated once more: the same tokens, or the first that differs and why."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from model import LOGPROBS
from tests.helpers.api import LIN, MARLOW, Page, parse_events, wait_until

ROOT = Path(__file__).resolve().parents[2]
SEED = 7


def events_of(page: Page, message: dict) -> list:
    response = page.client.get(f"{page.url}/messages/{message['id']}/replay")
    assert response.status_code == 200, response.json
    return parse_events(response.data)


def replayed(page: Page, message: dict) -> dict:
    last = events_of(page, message)[-1]
    assert last.name == "done", last
    return last.data


def refusal(page: Page, message_id: str) -> str:
    response = page.client.get(f"{page.url}/messages/{message_id}/replay")
    assert response.status_code == 400, response.data
    return response.json["error"]["message"]


def facts(told: dict) -> dict[str, bool | None]:
    return {fact["what"]: fact["same"] for fact in told["facts"]}


def fact(told: dict, what: str) -> dict:
    return next(one for one in told["facts"] if one["what"] == what)


@pytest.fixture
def seeded(page):
    page.set(sampling={"seed": SEED})
    return page


def change(store, session_id: str, message_id: str, **fields) -> None:
    """Fields of a message as an older Parlor, or another machine, had them; None takes one away."""
    def edit(session):
        return {**session, "messages": [
            {name: value for name, value in {**one, **fields}.items()
             if value is not None or name == "parent"}
            if one["id"] == message_id else one for one in session["messages"]]}

    store.change_session(session_id, None, edit)


def test_a_reply_keeps_what_it_was_generated_from(seeded):
    (reply,) = seeded.say("hello there")
    record = reply["record"]
    assert record["model"] == "f1a7" * 4 and record["on"]["isa"] == "avx2"
    assert record["count"] == reply["new_tokens"] and len(record["tokens"]) == len(record["prompt"]) == 16
    assert "begun" not in record and "host" not in record


def test_a_reply_that_comes_again_is_identical_and_nothing_is_written(seeded, model):
    (reply,) = seeded.say("hello there")
    before = seeded.load()["session"]
    told = replayed(seeded, reply)
    assert told["identical"] and told["by"] == "tokens" and told["tokens"] == reply["new_tokens"]
    assert told["difference"] is None and set(facts(told).values()) == {True}
    again, first = model.started[-1], model.started[0]
    assert again["params"] == first["params"] and again["messages"] == first["messages"]
    assert seeded.load()["session"] == before


def test_the_progress_of_prompt_and_reply_is_told(seeded, model):
    (reply,) = seeded.say("tell me something long")
    events = events_of(seeded, reply)
    assert {event.name for event in events} == {"progress", "stats", "done"}
    assert events[0].data["total"] == reply["prompt_tokens"]
    assert next(event for event in events if event.name == "stats").data["of"] == reply["new_tokens"]


def test_the_first_token_that_differs_is_told_with_its_shares_and_what_stands_around_it(seeded, model):
    model.scripts.append("The sea is alpha today and for ever.")
    (reply,) = seeded.say("hello there")
    model.scripts.append("The sea is grey today and for ever.")
    told = replayed(seeded, reply)
    assert not told["identical"]
    differs = told["difference"]
    assert (differs["channel"], differs["index"], differs["before"]) == ("text", 3, "The sea is")
    then, now = differs["then"], differs["now"]
    assert then["token"] == {"text": " alpha"} and then["rest"] == " alpha today and for ever."
    assert now["token"] == {"text": " grey"} and now["rest"] == " grey today and for ever."
    assert math.exp(then["was"]) == pytest.approx(0.5, abs=0.01)
    assert math.exp(then["is"]) == pytest.approx(0.25) and math.exp(now["is"]) == pytest.approx(0.5)
    assert now["was"] is None and math.exp(now["below"]) == pytest.approx(1 / 16, abs=0.01)
    assert set(facts(told).values()) == {True}  # nothing that is known explains it


def test_a_reply_that_ends_earlier_or_later_is_told_so(seeded, model):
    model.scripts += ["One two three.", "One two three. And four.", "One two"]
    (reply,) = seeded.say("hello there")
    later = replayed(seeded, reply)["difference"]
    assert later["then"]["ended"] and not later["now"]["ended"] and later["now"]["token"] == {"text": " And"}
    assert math.exp(later["then"]["is"]) == pytest.approx(1 / 16)  # of the reply's end
    earlier = replayed(seeded, reply)["difference"]
    assert earlier["now"]["ended"] and earlier["then"]["token"] == {"text": " three."}


def test_a_thought_that_differs_is_found_in_the_thought(seeded, model, monkeypatch):
    (reply,) = seeded.say("think aloud")
    monkeypatch.setattr("tests.helpers.fake_model.THINK", "The user asks.\nI should be wordy.")
    told = replayed(seeded, reply)
    assert told["difference"]["channel"] == "thinking"
    assert told["difference"]["then"]["rest"].startswith(" brief.")
    assert told["difference"]["now"]["token"] == {"text": " wordy."}


@pytest.mark.parametrize(("changed", "what"), [
    ({"fingerprint": "0" * 16}, "files"),
    ({"numerics": {"isa": "avx512", "kernels": "kernels-1", "cache": "fp16"}}, "isa"),
    ({"numerics": {"isa": "avx2", "kernels": "kernels-2", "cache": "fp16"}}, "kernels"),
    ({"numerics": {"isa": "avx2", "kernels": "kernels-1", "cache": "q8"}}, "cache"),
    ({"numerics": {"isa": "avx2", "kernels": "kernels-1", "cache": "fp16", "exact": "yes"}}, "exact")])
def test_what_computes_it_now_is_told_apart_from_what_did(seeded, model, changed, what):
    (reply,) = seeded.say("hello there")
    for name, value in changed.items():
        setattr(model, name, value)
    told = replayed(seeded, reply)
    assert [name for name, same in facts(told).items() if same is False] == [what]
    assert fact(told, what)["then"] != fact(told, what)["now"]


def test_a_prompt_that_was_changed_since_is_found_out(seeded, store):
    (first,) = seeded.say("hello there")
    (reply,) = seeded.say("and now something else")
    assert facts(replayed(seeded, reply))["prompt"]
    seeded.send("PATCH", f"/messages/{first['id']}", text="Something else, of another length altogether.")
    told = replayed(seeded, reply)
    assert facts(told)["prompt"] is False
    assert fact(told, "prompt")["then"] == reply["prompt_tokens"] != fact(told, "prompt")["now"]
    seeded.set(system_prompt="Speak in riddles.")
    assert facts(replayed(seeded, reply))["prompt"] is False


def test_settings_of_now_do_not_count(seeded, model):
    (reply,) = seeded.say("what temperature do you have")
    seeded.set(sampling={"temperature": 0.1, "seed": 99}, preset="greedy")
    assert replayed(seeded, reply)["identical"]
    assert model.started[-1]["params"].seed == SEED and model.started[-1]["params"].temperature == 0.8


def test_a_reply_of_before_there_were_records_says_what_cannot_be_known(seeded, store):
    (reply,) = seeded.say("hello there")
    change(store, seeded.session["id"], reply["id"], record=None)
    told = replayed(seeded, reply)
    assert told["identical"] and told["by"] == "text"
    assert {what for what, same in facts(told).items() if same is None} == {
        "files", "isa", "kernels", "cache", "prompt"}
    assert facts(told)["model"] is True
    change(store, seeded.session["id"], reply["id"], model="another-7B")
    assert facts(replayed(seeded, reply))["model"] is False


def test_sampling_that_is_not_known_any_more_is_named(seeded, store):
    (reply,) = seeded.say("hello there")
    change(store, seeded.session["id"], reply["id"], sampling={**reply["sampling"], "warmth": 3})
    assert fact(replayed(seeded, reply), "sampling") == {
        "what": "sampling", "then": "", "now": "warmth", "same": None}


def test_a_reply_that_was_stopped_is_compared_as_far_as_it_went(seeded, model):
    model.delay = 0.005
    body = seeded.send("POST", "/messages", text="tell me something long")
    log = seeded.client.application.extensions["parlor"].chat.chains.job(body["reply"]["reply_id"]).log
    wait_until(lambda: any(event.name == "text" for event in log.read(0)[0]))
    seeded.client.post(f"/api/replies/{body['reply']['reply_id']}/stop", json={})
    (reply,) = seeded.finish(body["reply"])
    model.delay = 0.0
    assert reply["finish_reason"] == "cancelled"
    told = replayed(seeded, reply)
    assert told["identical"] and told["cut"] and told["tokens"] == reply["record"]["count"] < 400
    wait_until(lambda: model.running == 0)


def test_an_edited_reply_is_compared_with_what_the_model_wrote(seeded, store):
    (reply,) = seeded.say("hello there")
    seeded.send("PATCH", f"/messages/{reply['id']}", text="Something else entirely.")
    told = replayed(seeded, reply)
    assert told["identical"] and told["edited"]
    change(store, seeded.session["id"], reply["id"], seed=SEED + 1)
    told = replayed(seeded, reply)
    assert not told["identical"] and told["difference"] is None
    change(store, seeded.session["id"], reply["id"], record=None)
    assert refusal(seeded, reply["id"]).startswith("This text was edited")


def test_that_a_thought_was_ended_by_hand_is_told(seeded, store):
    (reply,) = seeded.say("think aloud")
    assert "told_to_answer" not in reply["record"]
    change(store, seeded.session["id"], reply["id"], record={**reply["record"], "told_to_answer": True})
    assert fact(replayed(seeded, reply), "answer")["same"] is False


def test_of_a_reply_that_was_gone_on_with_the_last_part_is_replayed(seeded, model):
    seeded.set(sampling={"seed": SEED, "max_new_tokens": 5})
    (first,) = seeded.say("tell me something")
    (whole,) = seeded.reply("continue")
    assert whole["record"]["begun"] == len(first["text"])
    told = replayed(seeded, whole)
    assert told["identical"] and told["tokens"] == whole["record"]["count"] < whole["new_tokens"]
    assert model.started[-1]["prefix"] == first["text"]


def test_a_fork_is_replayed_from_the_tokens_that_it_goes_on_from(seeded, model, store):
    (reply,) = seeded.say("hello there")
    fork = {"message": reply["id"], "token": 2, "choice": b" beta".hex()}
    (version,) = seeded.reply("fork", **fork)
    begun = model.started[-1]
    told = replayed(seeded, version)
    assert told["identical"] and facts(told)["prompt"]
    assert model.started[-1]["reply_tokens"] == begun["reply_tokens"]
    seeded.client.application.extensions["parlor"].chat.lens.forget(seeded.session["id"], version["id"])
    assert "not kept any more" in refusal(seeded, version["id"])


def test_the_adapter_of_then_is_used_and_its_files_are_compared(seeded, store, model):
    model.adapters = ["noir", "plain"]
    store.bots.change(MARLOW, None, lambda bot: {**bot, "adapter": "noir"})
    (reply,) = seeded.say("hello there")
    store.bots.change(MARLOW, None, lambda bot: {**bot, "adapter": "plain"})
    told = replayed(seeded, reply)
    assert model.started[-1]["adapter"] == "noir" and fact(told, "adapter")["same"]
    change(store, seeded.session["id"], reply["id"], record={**reply["record"], "adapter_files": "others"})
    assert fact(replayed(seeded, reply), "adapter")["same"] is False
    model.adapters = []
    last = events_of(seeded, reply)[-1]
    assert last.name == "error" and "There is no adapter 'noir'" in last.data["message"]


def test_what_was_in_the_cache_counts_where_prompts_are_computed_another_way(seeded, store, model):
    model.numerics = {"isa": "amx", "kernels": "kernels-1", "cache": "fp16"}
    (reply,) = seeded.say("hello there")
    assert facts(replayed(seeded, reply))["cached"] is True
    change(store, seeded.session["id"], reply["id"], cached_tokens=3)
    assert fact(replayed(seeded, reply), "cached") == {
        "what": "cached", "then": 3, "now": reply["cached_tokens"], "same": False}


def test_what_no_model_wrote_here_is_refused(client, store):
    page = Page(client, LIN)
    greeting = page.session["messages"][0]
    assert "nothing from which it could be generated" in refusal(page, greeting["id"])
    (reply,) = page.say("hello there")
    assert refusal(page, reply["parent"]) == "Only what a bot wrote can be generated again."
    change(store, page.session["id"], reply["id"], record={"host": "engine.example"})
    assert "engine.example" in refusal(page, reply["id"])
    missing = page.client.get(f"{page.url}/messages/{'f' * 16}/replay")
    assert missing.status_code == 404


def test_a_bot_of_another_engine_is_not_replayed_by_guess(seeded, store):
    (reply,) = seeded.say("hello there")
    change(store, seeded.session["id"], reply["id"], record=None)
    store.bots.change(MARLOW, None, lambda bot: {**bot, "engine": {"id": "e" * 16, "model": "far"}})
    assert "another engine" in refusal(seeded, reply["id"])


def test_what_the_model_refuses_or_breaks_in_is_the_last_event(seeded, model, store):
    (reply,) = seeded.say("hello there")
    change(store, seeded.session["id"], reply["parent"], text="refuse this")
    assert "9,000 tokens" in events_of(seeded, reply)[-1].data["message"]
    change(store, seeded.session["id"], reply["parent"], text="fail")
    assert events_of(seeded, reply)[-1].data["message"] == "The engine ran out of pages."
    change(store, seeded.session["id"], reply["parent"], text="crash")
    said = events_of(seeded, reply)[-1].data["message"]
    assert said.startswith("Something broke inside Parlor") and "secret" not in said


def test_closing_the_connection_ends_it(seeded, model):
    (reply,) = seeded.say("tell me something long")
    model.gate.clear()
    response = seeded.client.get(f"{seeded.url}/messages/{reply['id']}/replay")
    next(response.response)
    response.close()
    wait_until(lambda: model.running == 0)
    model.gate.set()


def test_a_model_that_does_not_tell_its_tokens_leaves_no_digest_of_them(seeded, model):
    model.cannot[LOGPROBS] = "It does not tell."
    (reply,) = seeded.say("hello there")
    assert "tokens" not in reply["record"] and reply["record"]["prompt"]
    told = replayed(seeded, reply)
    assert told["by"] == "text" and told["identical"]


@pytest.mark.parametrize(("record", "problem"), [
    ([], "record is not an object"),
    ({"on": {str(number): "x" for number in range(21)}}, "at most 20 texts"),
    ({"count": -1}, "record.count"),
    ({"told_to_answer": 1}, "told_to_answer is not true or false"),
    ({"prompt": 5}, "record.prompt is not a text")])
def test_a_record_that_is_none_is_refused_at_the_import(client, record, problem):
    session = Page(client, LIN).session
    session["messages"][0]["record"] = record
    refused = client.post("/api/sessions/import", json={"data": session})
    assert refused.status_code == 400 and problem in refused.json["error"]["message"]


def test_the_model_that_ships_writes_its_replies_again_token_by_token(store):
    """Sampled, with what it had read in its cache and without, and by another number of threads."""
    from model import ModelSlot, load_model
    from webui import create_app
    from webui.routes.parlor import parlor

    def with_model(threads: int, act) -> list[dict]:
        with load_model(ROOT / "starter", threads=threads, max_seq_len=512) as model:
            app = create_app(ModelSlot.holding(model), store)
            try:
                return act(app.test_client())
            finally:
                parlor(app).close("the test is over", 1.0)

    def talk(client) -> list[dict]:
        page.append(Page(client, MARLOW))
        page[0].set(sampling={"max_new_tokens": 24, "min_new_tokens": 24, "temperature": 1.2})
        said = [page[0].say(text)[0] for text in ("Tell me of the sea.", "And of the night?")]
        told.extend(replayed(page[0], reply) for reply in said)
        return said

    def again(client) -> list[dict]:
        page[0].client = client
        return [replayed(page[0], reply) for reply in replies]

    page: list[Page] = []
    told: list[dict] = []
    replies = with_model(1, talk)
    told += with_model(2, again)
    assert [one["tokens"] for one in told if one["identical"]] == [24] * 4
    assert {same for one in told for same in facts(one).values()} == {True}
