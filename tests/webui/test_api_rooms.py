"""Several bots in a session over HTTP: who speaks, chains of replies, what interrupts them."""

from __future__ import annotations

import threading

from tests.helpers.api import LIN, MARLOW, OTTO, Page, parse_events, wait_until
from webui.routes.parlor import parlor


def test_a_message_during_a_reply_is_refused_with_a_hint_and_ends_the_chain(room, model):
    room.set(turn_order="all")
    model.gate.clear()
    reply = room.send("POST", "/messages", text="hello everybody in the room")["reply"]
    refused = room.send("POST", "/messages", 409, text="wait!")
    assert refused["error"]["code"] == "busy" and "Marlow is still writing" in refused["error"]["message"]
    assert refused["session"]["replies"] == [reply]
    model.gate.set()
    messages = room.finish(reply)
    assert len(messages) == 1 and messages[0]["finish_reason"] == "eos"  # the others do not speak any more
    assert len(room.say("now then")) == 3


def test_a_message_that_interrupts_stops_the_reply_and_comes_after_it(room, model):
    room.set(turn_order="all")
    model.gate.clear()
    room.send("POST", "/messages", text="long story")
    wait_until(lambda: model.running)
    body = room.send("POST", "/messages", text="stop, please", interrupt=True)
    model.gate.set()
    answers = room.finish(body["reply"])
    assert len(answers) == 3
    texts = room.shown()
    assert texts[0] == "long story" and texts[2] == "stop, please"
    cut = room.session["messages"][1]
    assert cut["text"] == texts[1] and cut["finish_reason"] == "cancelled"


def test_a_message_that_interrupts_comes_after_a_reply_that_ended_just_before(room, client):
    before = room.session
    room.say("one")
    room.session = before  # the tab has not heard of the message and its reply
    room.send("POST", "/messages", 409, text="two")
    room.load()
    reply = room.send("POST", "/messages", text="two")["reply"]
    during = room.session
    room.finish(reply)
    room.session = during  # nor of this reply's end
    room.send("POST", "/messages", 409, text="three")
    room.say("three", interrupt=True)
    assert room.names() == ["User", "Marlow", "User", "Otto", "User", "Lin"]
    during = room.session
    room.set(title="another tab was faster")
    room.session = during
    room.send("POST", "/messages", 409, text="four", interrupt=True)


def test_what_a_running_reply_hangs_on_cannot_be_changed(page, model):
    model.gate.clear()
    body = page.send("POST", "/messages", text="long")
    assert page.send("DELETE", f"/messages/{body['message']['id']}", 409)["error"]["code"] == "busy"
    assert page.send("PATCH", f"/messages/{body['message']['id']}", 409, text="x")["error"]["code"] == "busy"
    assert page.send("POST", "/replies", 409, kind="next")["error"]["code"] == "busy"
    page.client.post(f"/api/replies/{body['reply']['reply_id']}/stop")
    page.finish(body["reply"])


def test_everyone_answers_once(room):
    room.set(turn_order="all")
    room.say("hello")
    assert room.names() == ["User", "Marlow", "Otto", "Lin"]


def test_in_turn_the_next_one_answers(room):
    for _ in range(4):
        room.say("hello")
    assert room.names()[1::2] == ["Marlow", "Otto", "Lin", "Marlow"]


def test_who_is_named_answers_and_muted_ones_do_not(room):
    room.set(turn_order="mention")
    room.say("Lin and Otto, what do you say?")
    assert room.names()[1:] == ["Lin", "Otto"]
    room.set(turn_order="all", bots=[{"id": MARLOW, "muted": False}, {"id": OTTO, "muted": True},
                                     {"id": LIN, "muted": False}])
    room.say("all of you")
    assert room.names()[-2:] == ["Marlow", "Lin"]


def test_the_model_decides_from_the_transcript(room, model):
    room.set(turn_order="model", user_name="Ann")
    room.say("I think of Lin")
    assert room.names()[-1] == "Lin"
    assert model.ranked[-1] == ([("Ann", "I think of Lin")], ["Marlow", "Otto", "Lin"])


def test_a_model_that_cannot_decide_leaves_the_message_without_a_reply(room, model):
    room.set(turn_order="model")
    model.rank_error = RuntimeError("no")
    reply = room.send("POST", "/messages", text="hello")["reply"]
    (error,) = room.events(reply)
    assert error.name == "error" and error.data["partial"] is None
    assert error.data["revision"] == room.session["revision"]
    assert "log says more" in error.data["message"]
    assert room.load()["session"]["replies"] == [] and room.shown() == ["hello"]


def test_the_model_decides_beside_the_request(room, model):
    """However long it takes: the message is answered for at once, and `start` says who speaks."""
    room.set(turn_order="model")
    decides, ranks = threading.Event(), model.rank_speakers
    model.rank_speakers = lambda *asked: decides.wait(60) and ranks(*asked)
    reply = room.send("POST", "/messages", text="I think of Lin")["reply"]
    assert reply["bot"] is None and room.load()["session"]["replies"] == [reply]
    assert room.send("POST", "/messages", 409, text="more")["error"]["message"].startswith("A bot is still")
    decides.set()
    (message,) = room.finish(reply)
    assert (message["id"], message["author"]) == (reply["message_id"], LIN)
    start = room.events(reply)[0]
    assert (start.name, start.data["bot"], start.data["name"]) == ("start", LIN, "Lin")
    again = room.send("POST", "/replies", kind="next", turns=3)["reply"]
    assert len(room.finish(again)) == 3


def test_a_reply_that_is_stopped_before_it_is_known_whose_it_is_leaves_nothing(client, room, model):
    room.set(turn_order="model")
    decides, ranks = threading.Event(), model.rank_speakers
    model.rank_speakers = lambda *asked: decides.wait(60) and ranks(*asked)
    reply = room.send("POST", "/messages", text="hello")["reply"]
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    decides.set()
    (done,) = room.events(reply)
    assert done.name == "done" and done.data == {
        "message": None, "revision": room.session["revision"], "next": None}
    assert room.load()["session"]["replies"] == [] and room.shown() == ["hello"]
    assert not model.started


def test_a_model_that_never_decides_is_given_up_when_it_is_in_the_way(room, model, monkeypatch):
    monkeypatch.setattr("webui.chat.chains.STOP_SECONDS", 0.05)
    room.set(turn_order="model")
    decides = threading.Event()
    model.rank_speakers = lambda *_asked: decides.wait(60) and [0.0, 0.0, 0.0]
    first = room.send("POST", "/messages", text="one")["reply"]
    room.set(turn_order="in_turn")
    second = room.send("POST", "/messages", text="two", interrupt=True)["reply"]
    assert room.events(first)[-1].name == "error"
    decides.set()
    assert len(room.finish(second)) == 1 and room.names() == ["User", "User", "Marlow"]


def test_by_default_the_one_who_is_named_answers_and_otherwise_the_next(room):
    assert room.session["next"] == [MARLOW]
    room.say("Lin, what do you see? And Otto?")
    assert room.names()[-1] == "Lin" and room.session["next"] == [MARLOW]
    room.say("I see")
    assert room.names()[-1] == "Marlow" and room.session["next"] == [OTTO]


def test_the_answer_tells_who_is_next(room):
    room.say("hello")
    for order, following in (("in_turn", [OTTO]), ("mention", [MARLOW]), ("all", [MARLOW, OTTO, LIN]),
                             ("model", []), ("manual", [])):
        room.set(turn_order=order)
        assert room.session["next"] == following
    room.set(turn_order="model", bots=[{"id": OTTO, "muted": False}, {"id": LIN, "muted": True}])
    assert room.session["next"] == [OTTO]


def test_on_click_only_the_clicked_one_speaks(room):
    room.set(turn_order="manual")
    assert room.send("POST", "/messages", text="hello")["reply"] is None
    room.reply("next", bot=OTTO)
    assert room.names() == ["User", "Otto"]


def test_bots_among_themselves_take_the_turns_that_were_asked_for(room):
    room.reply("next", turns=5)
    assert room.names() == ["Marlow", "Otto", "Lin", "Marlow", "Otto"]
    assert room.send("POST", "/replies", 400, kind="next", turns=51)["error"]["message"].startswith("turns")


def test_letting_everyone_speak_once_needs_no_message(room):
    room.set(turn_order="all")
    room.reply("next")
    assert room.names() == ["Marlow", "Otto", "Lin"]


def test_stop_ends_the_whole_chain(client, room, model):
    model.gate.clear()
    reply = room.send("POST", "/replies", kind="next", turns=20)["reply"]
    wait_until(lambda: model.running)
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    model.gate.set()
    assert len(room.finish(reply)) == 1
    assert room.load()["session"]["replies"] == []


def test_stop_of_an_earlier_reply_of_the_chain_ends_it_too(client, room, model):
    model.scripts, model.delay = ["the first one"], 0.05  # nineteen more would take 15 s
    reply = room.send("POST", "/replies", kind="next", turns=20)["reply"]
    room.events(reply)
    client.post(f"/api/replies/{reply['reply_id']}/stop")
    wait_until(lambda: not room.load()["session"]["replies"])
    assert len(room.session["messages"]) < 20


def hold(client, room, holds=True):
    return client.post(room.url + "/hold", json={"hold": holds}).json["held"]


def held_after_one_reply(client, room, model):
    """A chain of four turns, held while its first reply is written; that reply's events so far are read."""
    model.gate.clear()
    reply = room.send("POST", "/replies", kind="next", turns=4)["reply"]
    assert hold(client, room)
    model.gate.set()
    stream = client.get(f"/api/replies/{reply['reply_id']}/events").response
    while b"event: held" not in (chunk := next(stream)):
        pass
    room.session["revision"] = parse_events(chunk)[-1].data["revision"]
    return reply


def test_typing_holds_the_next_turn_until_the_text_is_cleared(client, room, model):
    reply = held_after_one_reply(client, room, model)
    texts = [message["text"] for message in room.load()["session"]["messages"]]
    assert len(texts) == 1 and texts[0]  # it is kept, and nothing follows
    assert len(model.started) == 1 and hold(client, room)
    assert hold(client, room, False)
    assert len(room.finish(reply)) == 4


def test_a_tab_that_was_closed_while_typing_does_not_hold_for_ever(client, room, model, monkeypatch):
    reply = held_after_one_reply(client, room, model)
    monkeypatch.setattr("webui.routes.sessions.HOLD_SECONDS", 0.05)
    assert hold(client, room)  # for the last time
    assert len(room.finish(reply)) == 4


def test_what_was_typed_ends_a_chain_that_is_held(client, room, model):
    reply = held_after_one_reply(client, room, model)
    sent = room.send("POST", "/messages", text="Now me", interrupt=True)
    assert room.events(reply)[-1].data["next"] is None
    room.finish(sent["reply"])
    assert room.names() == ["Marlow", "User", "Otto"]


def test_stop_and_the_end_of_the_server_free_a_chain_that_is_held(app, client, room, model):
    reply = held_after_one_reply(client, room, model)
    client.post(f"/api/replies/{reply['reply_id']}/stop", json={})
    assert len(room.finish(reply)) == 1
    reply = held_after_one_reply(client, room, model)
    parlor(app).close("the end", 1.0)
    assert room.events(reply)[-1].data["next"] is None


def test_there_is_nothing_to_hold_where_nothing_follows(client, room, model):
    assert not hold(client, room)
    model.gate.clear()
    reply = room.send("POST", "/messages", text="one answer")["reply"]
    assert not hold(client, room)
    model.gate.set()
    room.finish(reply)


def test_an_error_ends_the_chain(room):
    room.set(turn_order="all")
    assert len(room.say("fail please")) == 1


def test_the_room_is_shown_to_the_model_as_it_is(room, model):
    room.set(user_name="Ann", system_prompt="It rains.")
    room.say("hi", bot=OTTO)
    started = model.started[-1]
    assert started["messages"][0].content.endswith(
        "It rains.\nPeople in the room: Ann, Marlow, Otto, Lin. You are Otto. Write only what Otto says.")
    assert started["params"].stop == ("\nAnn:", "\nMarlow:", "\nLin:") and started["name"] == "Otto"


def test_a_bot_that_is_not_in_the_room_does_not_speak(page):
    assert page.send("POST", "/messages", 400, text="hi", bot=OTTO)["error"]["hint"] == "Add it first."
    assert page.load()["session"]["messages"] == []


def test_a_bot_that_joins_a_long_conversation_sees_as_much_of_it_as_fits(client, model):
    page = Page(client, MARLOW)
    for number in range(40):
        page.send("POST", "/messages", text=f"{number} " + "word " * 100, reply=False)
    page.set(bots=[{"id": bot, "muted": False} for bot in (MARLOW, OTTO, LIN)])
    (reply,) = page.reply("next", bot=OTTO)
    assert reply["error"] == "" and reply["author"] == OTTO and "shortened" not in reply
    context = page.load()["context"]
    ids = [message["id"] for message in page.session["messages"]]
    assert 0 < ids.index(context["first_message"]) < 40 and context["prompt_tokens"] < 2048


def test_a_reply_tells_which_message_was_too_long_to_be_seen_whole(room):
    room.say("hello")
    (reply,) = room.say("word " * 5_000)
    long = next(message["id"] for message in room.session["messages"] if len(message["text"]) > 9_999)
    assert reply["shortened"] == long and reply["error"] == ""
    (again,) = room.say("and now?")
    assert "shortened" not in again
