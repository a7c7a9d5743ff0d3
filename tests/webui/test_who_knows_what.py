"""Who knows what: messages for some bots only, bots that come in late, notes that only their bot sees.

What is whispered may reach another bot by no road: each one has a test here.
"""

from __future__ import annotations

import pytest

from tests.helpers.api import LIN, MARLOW, OTTO, Page
from webui.storage import tree
from webui.storage.audience import is_for, knowing, passed_on
from webui.storage.schema import new_message, new_session

SECRET = "The treasure is under the lamp."


def prompt(page: Page, bot: str, **which: str) -> dict:
    return page.client.get(f"{page.url}/prompt", query_string=which or {"bot": bot}).json


def sent(page: Page, bot: str) -> str:
    return "".join(part["text"] for part in prompt(page, bot)["parts"])


def entries(**changed: dict) -> list[dict]:
    return [{"id": bot, "muted": False, **changed.get(name, {})}
            for name, bot in (("marlow", MARLOW), ("otto", OTTO), ("lin", LIN))]


def whisper(page: Page, text: str, *bots: str, **options) -> list[dict]:
    return page.say(text, **{"for": list(bots), **options})


def test_a_whisper_is_in_the_view_of_those_it_is_for_and_so_is_the_answer(room, model):
    room.say("Hello, Otto")
    before = sent(room, OTTO)
    (answer,) = whisper(room, SECRET, MARLOW)
    assert answer["author"] == MARLOW and answer["for"] == [MARLOW]
    assert room.session["messages"][-2]["for"] == [MARLOW]
    assert SECRET in sent(room, MARLOW) and answer["text"] in sent(room, MARLOW)
    assert sent(room, OTTO) == before, "not one token is another: what is in its cache stays of use"
    assert SECRET not in sent(room, LIN)
    room.say("Lin?")
    assert SECRET not in str(model.started[-1]["messages"])
    room.say("Marlow?")
    assert SECRET in str(model.started[-1]["messages"])
    assert "for" not in room.session["messages"][-1], "the answer to what is for all is for all"


def test_only_those_who_are_told_a_whisper_answer_it_whatever_the_turn_order(room, model):
    for order, text, names in (("all", SECRET, ["Marlow", "Lin"]), ("in_turn", "Otto!", ["Marlow"]),
                               ("mention", "Otto and Lin!", ["Lin"]), ("model", "Otto?", ["Marlow"])):
        room.set(turn_order=order)
        answers = whisper(room, text, MARLOW, LIN)
        assert [one["name"] for one in answers] == names, order
        assert all(one["for"] == [MARLOW, LIN] for one in answers)
    room.set(turn_order="in_turn", bots=entries(marlow={"muted": True}))
    assert whisper(room, SECRET, MARLOW) == [], "who is muted answers nothing, and no other does instead"
    assert room.session["messages"][-1]["text"] == SECRET


def test_bots_among_themselves_whisper_on_and_a_whisper_to_one_leads_to_nobody(room):
    room.set(turn_order="in_turn")
    whisper(room, SECRET, MARLOW, LIN)
    assert [one["name"] for one in room.reply("next", turns=3)] == ["Lin", "Marlow", "Lin"]
    whisper(room, "Otto, Otto!", OTTO)
    (next_one,) = room.reply("next")
    assert next_one["name"] == "Lin" and next_one["for"] == [MARLOW, LIN], "what Lin heard last is a whisper"
    room.say("Aloud, Otto")
    whisper(room, "Marlow, do it.", LIN)
    room.set(turn_order="mention")
    (heard,) = room.reply("next")
    assert "for" not in heard, "who does not know the whisper goes on from what was said aloud"


def test_the_model_that_decides_reads_what_all_know_among_whom_it_chooses(room, model):
    room.set(turn_order="model", user_name="Ann")
    whisper(room, SECRET, MARLOW, reply=False)
    room.say("Aloud, Otto")
    assert model.ranked[-1] == ([("Ann", "Aloud, Otto")], ["Marlow", "Otto", "Lin"])
    whisper(room, "You two, Lin", MARLOW, LIN)
    lines, names = model.ranked[-1]
    assert names == ["Marlow", "Lin"] and lines[-1] == ("Ann", "You two, Lin")
    assert SECRET not in str(lines), "Lin does not know it"
    room.reply("next", turns=2)
    assert SECRET not in str(model.ranked)
    late = room.session["messages"][-1]["id"]
    room.set(bots=entries(otto={"since": late}))
    room.say("Now")
    assert model.ranked[-1][0] == [("Ann", "Now")]


def test_what_is_whispered_is_in_no_summary_for_all_and_stays_with_those_who_were_told(room, model):
    model.scripts += ["Aye.", "Hm.", "Aye."]  # the scripted model would say again what it was told
    room.say("Otto, one")
    whisper(room, SECRET, MARLOW)
    room.say("Otto, two")
    until = room.session["messages"][-1]["id"]
    model.scripts.append("All is well.")
    room.client.post(f"{room.url}/summaries/draft", json={"until": until})
    assert SECRET not in str(model.started[-1]["messages"])
    model.scripts.append("Marlow knows.")
    room.client.post(f"{room.url}/summaries/draft", json={"until": until, "for": [MARLOW]})
    assert SECRET in str(model.started[-1]["messages"])
    model.scripts.append("Both know little.")
    room.client.post(f"{room.url}/summaries/draft", json={"until": until, "for": [MARLOW, OTTO]})
    assert SECRET not in str(model.started[-1]["messages"])
    room.send("POST", "/summaries", 201, until=until, text="All is well.")
    room.say("Otto, three")
    assert "All is well." in sent(room, OTTO) and SECRET not in sent(room, OTTO)
    assert "All is well." in sent(room, MARLOW) and SECRET in sent(room, MARLOW)
    assert "Otto, one" not in sent(room, MARLOW)
    room.send("POST", "/summaries", 201, until=until, text="The lamp, Marlow.", **{"for": [MARLOW]})
    assert "The lamp, Marlow." in sent(room, MARLOW) and SECRET not in sent(room, MARLOW)
    assert "The lamp, Marlow." not in sent(room, OTTO) and "All is well." in sent(room, OTTO)
    assert len(room.session["summaries"]) == 2
    model.scripts.append("More.")
    room.client.post(f"{room.url}/summaries/draft", json={"until": room.session["messages"][-1]["id"]})
    assert "The lamp, Marlow." not in str(model.started[-1]["messages"])


def test_the_summary_of_a_whisper_is_written_by_one_who_knows_it(room, model):
    room.say("Otto, one")
    body = {"until": room.session["messages"][-1]["id"], "for": [MARLOW]}
    room.client.delete(f"/api/bots/{MARLOW}", json={})
    answer = room.client.post(f"{room.url}/summaries/draft", json=body)
    assert answer.status_code == 400 and "exists any more" in answer.json["error"]["message"]


def test_a_message_that_the_model_writes_for_the_user_knows_what_those_know_whom_it_is_for(room, model):
    model.scripts += ["Aye.", "Hm."]
    whisper(room, SECRET, MARLOW)
    room.say("Otto, aloud")
    for audience, knows in ((None, False), ([OTTO], False), ([MARLOW, OTTO], False), ([MARLOW], True)):
        room.client.post(f"{room.url}/messages/draft", json={"for": audience}).get_data()
        asked = str(model.started[-1]["messages"])
        assert (SECRET in asked) == knows and "aloud" in asked, audience


def test_no_entry_of_the_lore_book_is_brought_in_by_a_whisper_to_others(room):
    room.set(lore=[{"keys": ["lamp"], "text": "The lamp is old."}])
    whisper(room, "The lamp!", MARLOW)
    assert "The lamp is old." in sent(room, MARLOW) and "The lamp is old." not in sent(room, OTTO)


def test_a_title_does_not_come_from_a_whisper(room):
    whisper(room, SECRET, MARLOW)
    assert room.session["title"] == "New session"
    room.say("A fine day")
    assert room.session["title"] == "A fine day"


def test_the_inspector_counts_what_a_bot_is_not_told_and_shows_none_of_it(room):
    room.say("Otto, one")
    whisper(room, SECRET, MARLOW)
    seen = prompt(room, OTTO)
    assert (seen["others"], seen["before"], seen["left_out"]) == (2, 0, 0)
    assert SECRET not in str(seen)
    assert prompt(room, MARLOW)["others"] == 0
    room.say("Otto, two")
    reply = room.session["messages"][-1]
    assert SECRET not in str(prompt(room, OTTO, message=reply["id"]))


def test_other_versions_forks_and_edits_stay_for_whom_the_first_one_is(room, model):
    (answer,) = whisper(room, SECRET, MARLOW, OTTO)
    (again,) = room.reply("regenerate", message=answer["id"])
    assert again["for"] == [MARLOW, OTTO] and again["parent"] == answer["parent"]
    (by_other,) = room.reply("regenerate", message=answer["id"], bot=LIN)
    assert "for" not in by_other and SECRET not in str(model.started[-1]["messages"])
    (longer,) = room.reply("continue", message=again["id"])
    assert longer["for"] == [MARLOW, OTTO]
    room.send("PATCH", f"/messages/{again['id']}", text="Corrected")
    kept = {message["id"]: message for message in room.session["messages"]}
    assert kept[again["id"]]["for"] == [MARLOW, OTTO]
    room.send("PATCH", f"/messages/{again['id']}", **{"for": None})
    (aloud,) = room.reply("regenerate", message=again["id"])
    assert "for" not in aloud, "somebody let it be for all"


def test_a_stored_message_can_be_for_some_and_for_all_again(room, model):
    model.scripts.append("Aye, aye.")
    room.say("Otto, a word")
    first = room.session["messages"][0]
    room.send("PATCH", f"/messages/{first['id']}", **{"for": [OTTO]})
    assert room.session["messages"][0]["for"] == [OTTO]
    assert "a word" in sent(room, OTTO) and "a word" not in sent(room, LIN)
    said = room.session["messages"][1]
    room.send("PATCH", f"/messages/{said['id']}", **{"for": [LIN]})
    assert said["text"] in sent(room, OTTO), "who said it knows it"
    assert said["text"] not in sent(room, MARLOW)
    room.send("PATCH", f"/messages/{first['id']}", **{"for": None})
    assert "for" not in room.session["messages"][0] and "a word" in sent(room, LIN)


def test_a_message_is_for_bots_of_the_room_and_a_wrong_list_is_told(room):
    for wrong in ([], [MARLOW] * 2, "all", [5], ["x"], ["f" * 16], [f"{n:016x}" for n in range(13)], {}):
        error = room.send("POST", "/messages", 400, text="x", **{"for": wrong})["error"]["message"]
        assert "for" in error
        assert room.load()["session"]["messages"] == []
    room.say("Otto?")
    said = room.session["messages"][0]["id"]
    room.send("PATCH", f"/messages/{said}", 400, **{"for": ["f" * 16]})
    room.send("PATCH", f"/messages/{said}", 400, **{"for": [OTTO], "text": "x"})
    room.send("PATCH", f"/messages/{said}", 400, **{"for": [OTTO], "pinned": True})
    room.send("POST", "/summaries", 400, until=said, text="x", **{"for": ["f" * 16]})
    error = room.send("POST", "/messages", 400, text="x", bot=LIN, **{"for": [OTTO]})["error"]
    assert "not among those" in error["message"]
    room.send("PATCH", f"/messages/{said}", **{"for": [OTTO, LIN]})
    room.set(bots=entries()[:2])
    room.send("PATCH", f"/messages/{said}", **{"for": [LIN]})
    assert room.session["messages"][0]["for"] == [LIN], "one who has left may stay among them"


def test_exports_are_whole_and_say_whom_a_message_is_for(room):
    whisper(room, SECRET, MARLOW, LIN)
    room.set(bots=entries(otto={"since": room.session["leaf"], "notes": "I am tired."}))
    as_file = {kind: room.client.get(f"{room.url}/export?format={kind}")
               for kind in ("json", "markdown", "html")}
    assert SECRET in as_file["markdown"].text and "only for Marlow and Lin" in as_file["markdown"].text
    assert SECRET in as_file["html"].text and "only for Marlow and Lin" in as_file["html"].text
    copy = room.client.post("/api/sessions/import", json={"data": as_file["json"].json}).json["session"]
    assert copy["messages"] == room.session["messages"] and copy["bots"] == room.session["bots"]
    twin = room.client.post(f"{room.url}/duplicate", json={}).json["session"]
    assert twin["messages"] == room.session["messages"] and twin["bots"] == room.session["bots"]


def test_a_bot_that_comes_in_late_knows_nothing_from_before_on_any_branch(room, model):
    room.set(bots=entries()[:2])
    room.say("Otto, before")
    old = room.session["leaf"]
    room.reply("regenerate", message=old)
    last = room.session["messages"][-1]["id"]
    room.set(bots=entries(lin={"since": last}))
    assert "before" not in sent(room, LIN) and "(go on)" in sent(room, LIN)
    seen = prompt(room, LIN)
    assert (seen["before"], seen["others"], seen["left_out"]) == (2, 0, 0)
    room.say("Lin, after")
    assert "before" not in str(model.started[-1]["messages"])
    assert "User: Lin, after" in str(model.started[-1]["messages"])
    assert "before" in sent(room, OTTO)
    room.set(leaf=old)
    room.say("Lin, elsewhere")
    asked = str(model.started[-1]["messages"])
    assert "before" not in asked and "elsewhere" in asked, "the other version was there when it came in"
    room.set(bots=entries())
    assert "before" in sent(room, LIN)


def test_a_late_bot_is_told_a_summary_that_is_for_it_and_no_other_without_one(room, model):
    room.set(bots=entries()[:2])
    room.say("Otto, before")
    first, last = (message["id"] for message in room.session["messages"])
    room.send("POST", "/summaries", 201, until=first, text="For all of them.")
    room.set(bots=entries(lin={"since": last}))
    assert "For all of them." not in sent(room, LIN)
    room.send("POST", "/summaries", 201, until=last, text="There was a before.", **{"for": [LIN]})
    assert "in short: There was a before." in sent(room, LIN), "up to the last one, which it does not answer"
    assert "There was a before." not in sent(room, OTTO) and "For all of them." in sent(room, OTTO)
    room.say("Lin, after")
    assert "There was a before." in str(model.started[-1]["messages"][:5]) and "after" in sent(room, LIN)
    assert [part["kind"] for part in prompt(room, LIN)["parts"]].count("summary") == 1
    room.send("POST", "/summaries", 201, until=room.session["messages"][2]["id"], text="Later, for all.")
    assert "Later, for all." in sent(room, LIN), "it is told in short, so that it may be told this, too"


def test_when_a_bot_came_in_outlives_deleted_messages_and_their_undoing(room):
    for text in ("Otto, one", "Otto, two", "Otto, three"):
        room.say(text)
    ids = [message["id"] for message in room.session["messages"]]
    room.set(bots=entries(lin={"since": ids[3]}))
    def known():
        return [part["message"] for part in prompt(room, LIN)["parts"] if part["kind"] == "turn"]

    for gone in (ids[3], ids[1], ids[4]):
        undo = room.send("DELETE", f"/messages/{gone}")["undo"]
        assert known() == [one for one in ids[4:] if one != gone]
        room.send("POST", "/undo", step=undo)
        assert known() == ids[4:] and room.session["bots"][2]["since"] == ids[3]
    undone = [room.send("DELETE", f"/messages/{gone}")["undo"] for gone in ids[3::-1]]
    assert known() == ids[4:] and not room.session["bots"][2]["since"], "nothing of before is left"
    for undo in undone:
        room.send("POST", "/undo", step=undo)
        assert known() == ids[4:]


def test_a_bots_own_notes_are_in_its_prompt_and_in_no_others(room, model):
    room.set(bots=entries(otto={"notes": " {{char}} hid the key. "}))
    room.say("Lin, hello")
    assert "hid the key" not in str(model.started[-1]["messages"])
    room.say("Otto, hello")
    assert "Your own notes, which nobody else sees: Otto hid the key." in str(model.started[-1]["messages"])
    kinds = [(part["kind"], part["text"]) for part in prompt(room, OTTO)["parts"]]
    assert [kind for kind, _ in kinds if kind in ("room", "notes", "turn")][:3] == ["room", "notes", "turn"]
    room.set(turn_order="model")
    room.say("Lin")
    assert "hid the key" not in str(model.ranked)
    model.scripts.append("Short.")
    room.client.post(f"{room.url}/summaries/draft", json={"until": room.session["leaf"]})
    assert "hid the key" not in str(model.started[-1]["messages"])
    assert "hid the key" not in sent(room, LIN)


@pytest.mark.parametrize("entry", [{"since": "f" * 16}, {"since": 5}, {"since": ["x"]}, {"notes": None},
                                   {"notes": "x" * 50_001}])
def test_what_is_wrong_with_a_bots_entry_is_refused(room, entry):
    error = room.send("PATCH", "", 400, bots=entries(lin=entry))["error"]["message"]
    assert next(iter(entry)) in error


def test_who_knows_what_by_hand():
    bots = [{"id": f"{number:016x}"} for number in (1, 2, 3)]
    one, two, three = (bot["id"] for bot in bots)
    session = new_session(bots)
    for author, audience in (("user", None), ("user", [one]), (two, [three]), ("user", None)):
        message = new_message(author, "", "x", session["leaf"])
        if audience:
            message["for"] = audience
        session = tree.with_message(session, message, leaf=message["id"])
    path = tree.path(session, session["leaf"])
    assert [is_for(message, [one]) for message in path] == [True, True, False, True]
    assert [is_for(message, [two]) for message in path] == [True, False, True, True]
    assert [is_for(message, [two, three]) for message in path] == [True, False, True, True]
    assert [is_for(message, None) for message in path] == [True, False, False, True]
    session["bots"][2]["since"] = path[1]["id"]
    assert [knowing(session, [three])(message) for message in path] == [False, False, True, True]
    assert [knowing(session, [two, three])(message) for message in path] == [False, False, True, True]
    assert passed_on(session, path, one) is None and passed_on(session, path[:3], one) == [one]
    assert passed_on(session, path[:3], three) == [three] and passed_on(session, path[:2], three) is None


def test_where_the_memory_begins_whispers_to_others_are_not_among_what_is_left_out(room, model):
    model.max_seq_len = 400
    for number in range(4):
        room.send("POST", "/messages", text=f"a whisper {number}", reply=False, **{"for": [LIN]})
    for number in range(12):
        room.send("POST", "/messages", text=f"{number} " + "word " * 30, reply=False)
    context, told = room.load()["context"], prompt(room, OTTO)
    ids = [message["id"] for message in room.session["messages"]]
    above = ids.index(context["first_message"])
    assert context["left_out"] == told["left_out"] == above - 4 > 0
