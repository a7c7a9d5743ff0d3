"""What a bot sees of a session: the starter model was trained on exactly these shapes."""

from __future__ import annotations

from model import ChatMessage
from model.text.messages import joined
from webui.chat.bot_view import bot_view, transcript
from webui.chat.lore import brought_in_by_bot
from webui.storage import tree
from webui.storage.schema import USER, new_message, new_session
from webui.storage.summaries import with_summary


def bot(number, name, persona=""):
    return {"id": f"{number:016x}", "name": name, "persona": persona, "greeting": "", "sampling": {}}


MARLOW, OTTO, LIN = bot(1, "Marlow", "You are {{char}}. {{user}} visits you."), bot(2, "Otto"), bot(3, "Lin")


def view(bots, speaker, *turns, **fields):
    session = {**new_session(bots), **fields}
    for author, text in turns:
        name = next((b["name"] for b in (MARLOW, OTTO, LIN) if b["id"] == author), "User")
        message = new_message(author, name, text, session["leaf"])
        session = tree.with_message(session, message, leaf=message["id"])
    seen = bot_view(session, {b["id"]: b for b in bots}, speaker, tree.path(session, session["leaf"]))
    return session, seen


def shape(seen):
    """What a template gets."""
    return [(message.role, message.content) for message in joined(seen.messages)]


def test_alone_turns_are_plain_text():
    turns = [(USER, "Hi"), (MARLOW["id"], "Ahoy"), (USER, "How are you?")]
    _, seen = view([MARLOW], MARLOW, *turns, user_name="Ann", system_prompt="It is night.")
    assert shape(seen) == [("system", "You are Marlow. Ann visits you.\nIt is night."), ("user", "Hi"),
                           ("assistant", "Ahoy"), ("user", "How are you?")]
    assert [one.kind for one in seen.shown] == ["persona", "system", "turn", "turn", "turn"]
    assert seen.messages[2:4] == [ChatMessage("user", "Hi", "Ann"),
                                  ChatMessage("assistant", "Ahoy", "Marlow")]
    assert seen.stop == () and seen.speaker == "Marlow"


def test_in_a_room_everyone_else_is_the_user_with_a_name():
    turns = [(USER, "Hi all"), (MARLOW["id"], "Ahoy"), (OTTO["id"], "Hello"), (LIN["id"], "Dew"),
             (USER, "Otto?")]
    session, seen = view([MARLOW, OTTO, LIN], OTTO, *turns)
    assert shape(seen) == [
        ("system", "People in the room: User, Marlow, Otto, Lin. You are Otto. Write only what Otto says."),
        ("user", "User: Hi all\nMarlow: Ahoy"), ("assistant", "Hello"), ("user", "Lin: Dew\nUser: Otto?")]
    ids = [message["id"] for message in session["messages"]]
    assert seen.message_ids == [None, *ids] and len(seen.messages) == 6  # each can be left out by itself
    assert seen.stop == ("\nUser:", "\nMarlow:", "\nLin:")


def test_the_room_line_follows_the_persona_and_the_prompt():
    _, seen = view([MARLOW, OTTO], MARLOW, (USER, "Hi"), system_prompt="It rains.", user_name="Ann")
    assert shape(seen)[0] == (
        "system", "You are Marlow. Ann visits you.\nIt rains.\n"
        "People in the room: Ann, Marlow, Otto. You are Marlow. Write only what Marlow says.")
    assert [(one.kind, one.name) for one in seen.shown] == [("persona", ""), ("system", ""), ("room", ""),
                                                            ("turn", "Ann")]


def test_the_negative_prompt_stands_in_the_place_of_persona_examples_and_prompt():
    """Who is in the room stays; nothing stands there if it is empty."""
    otto = {**bot(2, "Otto", "You are Otto."), "example_dialogue": "{{char}}: Ha!"}
    _, alone = view([otto], otto, (USER, "Hi."), system_prompt="Be brief.")
    assert alone.against("You are not {{char}} but {{user}}. ") == [
        ChatMessage("system", "You are not Otto but User.")]
    assert alone.against(" ") == []
    _, room = view([otto, LIN], otto, (USER, "Hi."), system_prompt="Be brief.")
    system = [message for message in room.messages if message.role == "system"]
    assert len(system) == 4 and system[3].content.startswith("People in the room: ")
    assert room.against("No.") == [ChatMessage("system", "No."), system[3]]
    assert room.against("") == [ChatMessage("system", system[3].content)], "it follows nothing"


def test_a_bot_that_speaks_twice_is_asked_to_go_on():
    _, seen = view([MARLOW, OTTO], OTTO, (USER, "Hi"), (OTTO["id"], "Hello"))
    assert shape(seen)[-1] == ("user", "(go on)") and seen.message_ids[-1] is None
    _, alone = view([OTTO], OTTO, (OTTO["id"], "A greeting"))
    assert shape(alone) == [("assistant", "A greeting"), ("user", "(go on)")]


def test_the_authors_note_stands_in_brackets_so_many_messages_before_the_end():
    turns = [(USER, "Hi"), (MARLOW["id"], "Ahoy"), (USER, "How are you?")]
    def noted(depth, bots=(MARLOW,), speaker=MARLOW):
        return view([*bots], speaker, *turns, note={"text": " {{char}} is tired. ", "depth": depth})[1]

    alone = [shape(noted(depth))[1:] for depth in (1, 2, 3, 100)]
    assert alone[0] == [("user", "Hi"), ("assistant", "Ahoy"), ("user", "[Marlow is tired.]\nHow are you?")]
    assert alone[1] == [("user", "Hi\n[Marlow is tired.]"), ("assistant", "Ahoy"), ("user", "How are you?")]
    assert alone[2] == alone[3] == [("user", "[Marlow is tired.]\nHi"), ("assistant", "Ahoy"),
                                    ("user", "How are you?")]
    note = noted(1).shown[-2]
    assert (note.kind, note.id, note.message.pinned) == ("note", None, True)
    assert shape(noted(1, (MARLOW, OTTO), OTTO))[1:] == [
        ("user", "User: Hi\nMarlow: Ahoy\n[Otto is tired.]\nUser: How are you?")]
    assert shape(view([MARLOW], MARLOW, note={"text": "Hm.", "depth": 2})[1])[1:] == [("user", "[Hm.]")]
    assert shape(view([MARLOW], MARLOW, *turns, note={"text": " ", "depth": 1})[1]) == shape(
        view([MARLOW], MARLOW, *turns)[1])


def test_a_summary_stands_for_what_it_covers_in_every_bots_view_and_pins_stay():
    turns = [(USER, "Hi all"), (MARLOW["id"], "Ahoy"), (OTTO["id"], "Hello"), (USER, "Otto?")]
    session, _ = view([MARLOW, OTTO], OTTO, *turns)
    ids = [message["id"] for message in session["messages"]]
    session["messages"][0] = {**session["messages"][0], "pinned": True}
    bots, path = {b["id"]: b for b in (MARLOW, OTTO)}, tree.path(session, session["leaf"])
    summed = with_summary(with_summary(session, ids[0], "Little."), ids[1], " All met. ")
    for speaker, last in ((MARLOW, "Otto: Hello\nUser: Otto?"), (OTTO, None)):
        seen = bot_view(summed, bots, speaker, path)
        assert shape(seen)[0][1].endswith("says.\nWhat was said before, in short: All met.")
        said = shape(seen)[1:]
        assert said == ([("user", f"User: Hi all\n{last}")] if last else [
            ("user", "User: Hi all"), ("assistant", "Hello"), ("user", "User: Otto?")])
        summary = next(one for one in seen.shown if one.kind == "summary")
        assert summary.id == ids[1] and not summary.message.pinned
        assert seen.message_ids[-3:] == [ids[0], ids[2], ids[3]]
        assert seen.memory(0) == (ids[2], 1), "but for the pinned one and those that are in"
        assert seen.memory(len(seen.shown) - 1) == (ids[3], 2)
    ends_there = bot_view(summed, bots, OTTO, path[:2])
    assert "Little." in shape(ends_there)[0][1] and "Marlow: Ahoy" in shape(ends_there)[1][1]
    assert shape(bot_view(summed, bots, OTTO, path[:1])) == shape(bot_view(session, bots, OTTO, path[:1]))


def test_an_entry_of_the_lore_book_is_brought_in_by_a_key_in_the_last_messages():
    lore = [{"keys": ["Lamp", "light house"], "text": "The lamp of {{char}} is old."},
            {"keys": ["cat"], "text": "The cat is called Biscuit."}, {"keys": [], "text": "Never."},
            {"keys": ["灯"], "text": "灯台"}, {"keys": ["sea"], "text": " "}]
    def told(*said, **fields):
        seen = view([MARLOW], MARLOW, *[(USER, text) for text in said], lore=lore, **fields)[1]
        return [(one.name, one.message.content) for one in seen.shown if one.kind == "lore"]

    lamp = ("Lamp, light house", "The lamp of Marlow is old.")
    assert told("The LAMP!") == told("A light house.") == [lamp]
    assert told("A category, and lamps by the sea.") == []
    assert told("cat; lamp") == [lamp, ("cat", "The cat is called Biscuit.")]
    assert told("その灯は") == [("灯", "灯台")]
    assert told("lamp", *["so"] * 7) == [lamp] and told("lamp", *["so"] * 8) == []
    seen = view([MARLOW], MARLOW, (USER, "lamp"), lore=lore)[1]
    assert shape(seen)[0] == ("system", "You are Marlow. User visits you.\nThe lamp of Marlow is old.")


def test_the_lore_book_of_a_card_is_used_as_far_as_it_can_be_trusted():
    def entry(content, *keys, **fields):
        return {"content": content, "keys": [*keys], **fields}

    def told(text, *entries):
        seen = view([{**MARLOW, "lore_book": {"entries": [*entries]}}], {
            **MARLOW, "lore_book": {"entries": [*entries]}}, (USER, text))[1]
        return [one.message.content for one in seen.shown if one.kind == "book"]

    lamp, second = entry("Old {{char}}.", "lamp", insertion_order=5), entry("Sea.", "sea", insertion_order=1)
    assert told("the Lamp and the sea", lamp, second) == ["Sea.", "Old Marlow."]
    assert told("lamps", lamp) == [] and told("lamp", {**lamp, "enabled": False}) == []
    assert told("so", {**lamp, "constant": True}) == ["Old Marlow."]
    both = {**lamp, "selective": True, "secondary_keys": ["oil"]}
    assert told("lamp", both) == [] and told("lamp oil", both) == ["Old Marlow."]
    assert told("Lamp", {**lamp, "case_sensitive": True}) == []
    pattern = entry("Found.", r"/(la)+mp\b/i", use_regex=True, constant=True, selective=True,
                    secondary_keys=["oil"])
    assert told("LALAMP", pattern) == ["Found."] and told("oil", pattern) == []
    assert told("lamp", {**pattern, "keys": ["(", "["]}) == [], "wrong ones are found nowhere"
    assert told("a", entry("x" * 15_000, "a"), entry("y" * 15_000, "a")) == ["x" * 15_000]


def booked(texts, *entries, replies=0, **book):
    """What of a book is brought in, the latest text last."""
    entries = [{"keys": [], "content": "", **entry} for entry in entries]
    return brought_in_by_bot({"entries": entries, **book}, texts, replies)


def contents(*given, **more):
    return [one.text for one in booked(*given, **more)]


def test_a_book_says_how_far_back_it_looks_and_an_entry_may_say_otherwise():
    lamp, far = {"keys": ["lamp"], "content": "Old."}, {"keys": ["lamp"], "content": "@@scan_depth 3\n\nFar."}
    assert contents(["lamp", "so", "so"], lamp, far, scan_depth=2) == ["Far."]
    assert contents(["lamp", *["so"] * 20], lamp, scan_depth=21) == ["Old."]
    for depth in (None, True, "x", -1, 1e308, [], float("nan")):
        assert isinstance(contents(["lamp"], lamp, scan_depth=depth), list)


def test_entries_bring_in_entries_where_the_book_says_so_and_each_once():
    lamp = {"keys": ["lamp"], "content": "It burns oil."}
    oil = {"keys": ["oil"], "content": "Oil is of whales. {{// lamp}}"}
    whale = {"keys": ["whales"], "content": "The lamp of whales. {{hidden_key:sea}}"}
    sea = {"keys": ["sea"], "content": "Deep."}
    assert contents(["lamp"], lamp, oil, whale, sea) == ["It burns oil."]
    assert contents(["lamp"], lamp, oil, whale, sea, recursive_scanning=True) == [
        lamp["content"], oil["content"], whale["content"], "Deep."]
    ring = [{"keys": [f"key{n}"], "content": f"key{n + 1}"} for n in range(50)]
    assert len(contents(["key0"], *ring, recursive_scanning=True)) == 9


def test_what_is_over_the_books_budget_is_left_out_the_least_important_first():
    entries = [{"keys": ["a"], "content": f"{n}" * 40, "insertion_order": n, "priority": 10 - n}
               for n in range(4)]
    assert contents(["a"], *entries, token_budget=20) == ["0" * 40, "1" * 40]
    for entry in entries:
        del entry["priority"]
    assert contents(["a"], *entries, token_budget=20) == ["2" * 40, "3" * 40]
    assert [len(contents(["a"], *entries, token_budget=budget)) for budget in (0, "x", None)] == [4, 4, 4]


def test_decorators_are_carried_out_and_are_in_no_prompt():
    def entry(*lines, keys=("lamp",)):
        return {"keys": [*keys], "content": "\n".join(lines)}

    assert contents(["lamp"], entry("@@unknown 1", "", "Old.")) == ["Old."]
    assert contents(["so"], entry("@@activate", "Old.")) == ["Old."]
    assert contents(["lamp"], entry("@@dont_activate", "Old.")) == []
    assert contents(["lamp"], entry("@@activate_only_after 2", "Old."), replies=1) == []
    assert contents(["lamp"], entry("@@activate_only_every 2", "Old."), replies=4) == ["Old."]
    assert contents(["lamp"], entry("@@additional_keys oil, sea", "Old.")) == []
    assert contents(["lamp oil"], entry("@@additional_keys oil, sea", "Old.")) == ["Old."]
    assert contents(["lamp oil"], entry("@@exclude_keys oil", "Old.")) == []
    assert contents(["so"], entry("@@unknown", "@@@activate", "@@@dont_activate", "Old.")) == ["Old."]
    assert contents(["so"], entry("@@activate", "@@@dont_activate", "Old.")) == ["Old."]
    (deep,) = booked(["lamp"], entry("@@depth 2", "Old."))
    assert (deep.depth, deep.text) == (2, "Old.")
    (before,) = booked(["lamp"], entry("@@position before_desc", "@@depth 2", "Old."))
    assert (before.depth, before.is_before) == (None, True)


def test_entries_stand_before_the_persona_or_at_their_depth_as_they_say():
    def lore(content, **fields):
        return {"keys": ["lamp"], "content": content, **fields}

    marlow = {**MARLOW, "lore_book": {"entries": [
        lore("Behind."), lore("Before <BOT>.", position="before_char"), lore("@@depth 1\nDeep."),
        lore("@@depth 9\nFar.")]}}
    _, seen = view([marlow], marlow, (USER, "lamp"), (MARLOW["id"], "Ahoy"), (USER, "Hi"))
    assert [(one.kind, one.message.content) for one in seen.shown] == [
        ("book", "Before Marlow."), ("persona", "You are Marlow. User visits you."), ("book", "Behind."),
        ("book", "[Far.]"), ("turn", "lamp"), ("turn", "Ahoy"), ("book", "[Deep.]"), ("turn", "Hi")]
    assert shape(seen)[-1] == ("user", "[Deep.]\nHi")


def test_a_cards_instructions_for_the_end_stand_behind_all_that_was_said():
    marlow = {**MARLOW, "card": {"post_history_instructions": "{{original}} Be brief, <BOT>. {{roll:d1000}}",
                                 "nickname": " Cap\ntain "}}
    session, seen = view([marlow], marlow, (USER, "Hi"), (MARLOW["id"], "Ahoy"), (USER, "Well?"))
    assert shape(seen)[0] == ("system", "You are Captain. User visits you.".replace("Captain", "Cap tain"))
    after = seen.shown[-1]
    assert (after.kind, after.message.role, after.message.follows) == ("after", "user", True)
    assert after.message.content.startswith("[Be brief, Cap tain. ")
    path = tree.path(session, session["leaf"])
    bots = {marlow["id"]: marlow}
    assert bot_view(session, bots, marlow, path).shown == seen.shown, "the same for the same message"
    assert bot_view(session, bots, marlow, path[:1]).shown[-1] != after
    twice = bot_view(session, bots, marlow, path[:2])
    assert [one.kind for one in twice.shown[-2:]] == ["go_on", "after"]
    assert shape(twice)[-1][1].startswith("(go on)\n[Be brief")
    for wrong in (5, None, [], "x" * 60_000, " "):
        odd = {**marlow, "card": {"post_history_instructions": wrong, "nickname": wrong}}
        _, seen = view([odd], odd, (USER, "Hi"))
        assert seen.shown[-1].kind == "turn" and "You are " in shape(seen)[0][1]


def test_a_bot_that_left_keeps_its_words_under_its_name():
    _, seen = view([OTTO], OTTO, (MARLOW["id"], "Ahoy"), (USER, "Who was that?"))
    assert shape(seen)[1:] == [("user", "Marlow: Ahoy\nUser: Who was that?")]
    assert "People in the room: User, Otto, Marlow." in shape(seen)[0][1]


def test_empty_messages_are_not_shown_to_the_model():
    _, seen = view([OTTO], OTTO, (USER, "Hi"), (OTTO["id"], "  "), (USER, "Again"))
    assert shape(seen) == [("user", "Hi"), ("user", "Again")]


def test_the_transcript_names_everybody_as_they_are_called_now():
    session, _ = view([MARLOW, OTTO], OTTO, (USER, "Hi"), (MARLOW["id"], "Ahoy"), user_name="Ann")
    renamed = {MARLOW["id"]: {**MARLOW, "name": "Captain"}}
    path = tree.path(session, session["leaf"])
    assert transcript(session, renamed, path) == [("Ann", "Hi"), ("Captain", "Ahoy")]


def test_people_who_are_gone_are_named_as_far_as_they_spoke_lately():
    gone = [(f"{number:016x}", "hi") for number in range(100, 200)]
    session, _ = view([OTTO], OTTO, *gone)
    for number, message in enumerate(session["messages"]):
        message["name"] = f"Guest {number}"
    seen = bot_view(session, {OTTO["id"]: OTTO}, OTTO, tree.path(session, session["leaf"]))
    people = seen.messages[0].content.partition("room: ")[2].partition(".")[0].split(", ")
    assert people == ["User", "Otto", *(f"Guest {number}" for number in range(84, 100))]
