"""A reply over HTTP: what is asked, kept, failed, written again and gone on with. With a scripted model."""

from __future__ import annotations

import threading

from tests.helpers.api import MARLOW, Page, wait_until
from tests.helpers.fake_model import CODE
from webui.routes.parlor import parlor


def test_a_message_is_answered_and_both_are_kept(page, store):
    (reply,) = page.say("code please")
    assert page.shown() == ["code please", CODE]
    assert page.session["title"] == "code please"
    assert reply["model"] == "fake-1M" and reply["seed"] == 4711 and reply["finish_reason"] == "eos"
    assert reply["new_tokens"] > 10 and reply["sampling"]["temperature"] == 0.8 and reply["error"] == ""
    assert (reply["drafted_tokens"], reply["accepted_tokens"]) == (0, 0)
    assert page.load()["session"]["messages"][-1] == reply
    assert not list(store.journal_folder.iterdir())


def test_the_user_message_is_on_disk_before_the_reply_begins(page, model, store):
    model.prompt_delay = 0.2
    body = page.send("POST", "/messages", text="hello")
    (path,) = (store.folder / "chats").glob("*.json")
    assert "hello" in path.read_text(encoding="utf-8")
    page.finish(body["reply"])


def test_partial_text_survives_a_failure_of_the_engine(page):
    reply = page.send("POST", "/messages", text="fail please")["reply"]
    last = page.events(reply)[-1]
    assert last.name == "error" and "out of pages" in last.data["message"]
    assert last.data["partial"]["text"].startswith("You said:")
    message = page.load()["session"]["messages"][-1]
    assert message["finish_reason"] == "error" and "out of pages" in message["error"]
    assert message["text"] == last.data["partial"]["text"]
    assert last.data["revision"] == page.session["revision"]


def test_a_failure_before_any_text_is_a_message_with_its_error(page):
    (message,) = page.say("fail at once")
    assert message["text"] == "" and message["finish_reason"] == "error"
    assert page.say("and now?")[0]["finish_reason"] == "eos"


def test_a_crash_inside_shows_an_id_and_no_path(page, caplog):
    (message,) = page.say("crash please")
    assert message["finish_reason"] == "error" and message["text"].startswith("You said:")
    assert "secret" not in message["error"] and "/home" not in message["error"]
    error_id = message["error"].split()[-1].rstrip(".")
    assert error_id in caplog.text and "secret path" in caplog.text


def test_a_bot_is_answered_for_with_its_adapter(client, page, model):
    model.adapters = ["tales", "verse"]
    bot = client.get(f"/api/bots/{MARLOW}").json["bot"]
    page.say("hello")
    client.patch(f"/api/bots/{MARLOW}", json={"revision": bot["revision"], "adapter": "verse"})
    page.say("hello again")
    assert [started["adapter"] for started in model.started] == [None, "verse"]


def test_a_bot_whose_adapter_is_not_loaded_says_so_in_place_of_its_reply(client, page):
    bot = client.get(f"/api/bots/{MARLOW}").json["bot"]
    client.patch(f"/api/bots/{MARLOW}", json={"revision": bot["revision"], "adapter": "gone"})
    (message,) = page.say("hello")
    assert message["text"] == "" and message["finish_reason"] == "error"
    assert "There is no adapter 'gone'" in message["error"]


def test_what_the_model_says_of_the_request_is_shown(page):
    (message,) = page.say("refuse this")
    assert "9,000 tokens" in message["error"]


def test_the_name_in_front_is_taken_off(page):
    (message,) = page.say("what is your name")
    assert message["text"] == "My name is Marlow."
    assert page.say("spaces around")[0]["text"] == "surrounded by space"


def test_settings_reach_the_model_and_beat_the_bots_own(client, page, model):
    bot = client.get(f"/api/bots/{MARLOW}").json["bot"]
    own = {"temperature": 0.1, "top_k": 3, "top_p": 0.4, "min_p": 0.2}
    client.patch(f"/api/bots/{MARLOW}", json={"revision": bot["revision"], "sampling": own})
    page.say("hi")
    params = model.started[-1]["params"]
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.1, 3, 0.4, 0.2)
    page.set(sampling={"temperature": 0.5, "top_k": 7}, preset="creative")
    page.say("hi")
    params = model.started[-1]["params"]
    assert (params.temperature, params.top_k, params.repetition_penalty) == (0.5, 7, 1.05)
    assert (params.top_p, params.min_p) == (1.0, 0.08)


def test_temperature_0_twice_is_equal_and_otherwise_not(page):
    page.set(sampling={"temperature": 0})
    first = page.say("tell me many different words about the old sea")[0]["text"]
    assert page.reply("regenerate")[0]["text"] == first
    page.set(sampling={"temperature": 1})
    assert len({page.reply("regenerate")[0]["text"] for _ in range(4)}) > 1


def test_regenerating_adds_a_version_beside_the_old_one(page):
    page.say("hello")
    old = page.session["messages"][-1]
    (new,) = page.reply("regenerate")
    assert new["parent"] == old["parent"] and new["id"] != old["id"]
    assert page.session["leaf"] == new["id"] and len(page.session["messages"]) == 3


def test_any_message_can_be_regenerated_not_only_the_last(page):
    page.say("one")
    first = page.session["messages"][1]
    page.say("two")
    (new,) = page.reply("regenerate", message=first["id"])
    assert page.shown() == ["one", new["text"]]
    page.set(leaf=first["id"])
    assert len(page.shown()) == 4  # the old way is still whole, down to its newest message


def test_moving_to_another_version_while_one_is_written_stays_there(page, model):
    page.say("one")
    old = page.session["messages"][1]
    model.gate.clear()
    reply = page.send("POST", "/replies", kind="regenerate")["reply"]
    page.set(leaf=old["id"])
    model.gate.set()
    page.finish(reply)
    assert page.session["leaf"] == old["id"] and len(page.session["messages"]) == 3


def test_continue_appends_to_the_reply(page, model):
    page.set(sampling={"max_new_tokens": 5})
    (before,) = page.say("tell me something")
    assert before["finish_reason"] == "length"
    page.set(sampling={})
    reply = page.send("POST", "/replies", kind="continue")["reply"]
    assert reply["message_id"] == before["id"]
    events = page.events(reply)
    added = "".join(event.data["text"] for event in events if event.name == "text")
    after = page.finish(reply)[0]
    assert events[0].data["continues"] and events[0].data["text"] == before["text"]
    assert after["text"] == before["text"] + added == before["text"] + " And so it goes on, a little further."
    assert model.started[-1]["prefix"] == before["text"]
    assert after["new_tokens"] > before["new_tokens"] and len(page.session["messages"]) == 2


def test_a_reply_cut_in_its_thought_is_continued_in_its_thought(page, model):
    page.set(sampling={"max_new_tokens": 3})
    (before,) = page.say("think of something")
    assert before["thinking"] and not before["text"]
    page.finish(page.send("POST", "/replies", kind="continue")["reply"])
    assert model.started[-1]["thinking"] == before["thinking"] and model.started[-1]["prefix"] == ""


def test_the_model_is_told_what_it_thought_before(page, model):
    (before,) = page.say("think of something")
    page.say("and now?")
    assert before["thinking"]
    thoughts = [m.thinking for m in model.started[-1]["messages"] if m.role == "assistant"]
    assert thoughts == [before["thinking"]]


def test_only_replies_can_be_continued_or_written_again(page):
    page.send("POST", "/messages", text="hello", reply=False)
    for kind in ("continue", "regenerate"):
        assert page.send("POST", "/replies", 400, kind=kind)["error"]["message"].startswith("Only a bot")


def test_the_list_shows_which_session_is_being_written(client, page, model):
    model.gate.clear()
    reply = page.send("POST", "/messages", text="long")["reply"]
    (entry,) = client.get("/api/sessions").json["sessions"]
    assert entry["writing"]["reply_id"] == reply["reply_id"] and entry["writing"]["bot"] == MARLOW
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    page.finish(reply)
    assert client.get("/api/sessions").json["sessions"][0]["writing"] is None


def test_deleting_a_session_stops_its_reply_and_undo_brings_both_back(client, page, model):
    model.gate.clear()
    page.send("POST", "/messages", text="long")
    wait_until(lambda: model.running)
    undo = client.delete(page.url).json["undo"]
    assert client.get(page.url).status_code == 404 and not model.running
    session = client.post("/api/sessions/restore", json={"undo": undo}).json["session"]
    assert session["messages"][0]["text"] == "long" and len(session["messages"]) == 2


def test_many_quick_replies_at_once_leave_nothing_behind(app, client, model, store):
    pages = [Page(client) for _ in range(8)]
    threads = [threading.Thread(target=lambda p=p: [p.say("hi") for _ in range(5)]) for p in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(page.shown()) == 10 for page in pages)
    assert not list(store.journal_folder.iterdir()) and model.running == 0 and len(parlor(app).streams) == 0
