"""Character cards: what becomes of them, what comes out again, and that a damaged one changes nothing."""

from __future__ import annotations

import base64
import io
import json
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.helpers.api import LIN, MARLOW, Page
from tests.helpers.png_cards import as_base64, packed, png, png_chunk, text_chunk
from webui.exchange.character_card import card_in_png, card_json, card_of, card_png, read_card
from webui.storage import png_chunks

BOOK = {"name": "The wood", "extensions": {"risu": [1]}, "entries": [
    {"keys": ["lantern"], "content": "It never goes out.", "extensions": {"depth": 4}, "enabled": True,
     "insertion_order": 10, "use_regex": False, "case_sensitive": None, "comment": "kept"}]}
DATA = {
    "name": "Sera", "description": "<BOT> guards a wood.", "personality": "kind", "scenario": "It is night.",
    "first_mes": "Who goes there, {{ User }}?", "mes_example": "<START>\n{{user}}: Hi\n{{char}}: Hush.",
    "creator_notes": "By me.", "system_prompt": "Write as {{char}}. {{original}}",
    "post_history_instructions": "Be brief.", "alternate_greetings": ["Hush.\r\nFollow me.", " "],
    "character_book": BOOK, "tags": ["wood"], "creator": "Ann", "character_version": "2",
    "extensions": {"other/program": {"deep": [1, None, {"x": "y"}]}}}
V2 = {"spec": "chara_card_v2", "spec_version": "2.0", "data": DATA}
V3 = {"spec": "chara_card_v3", "spec_version": "3.0", "data": {
    **DATA, "nickname": "S", "group_only_greetings": ["Hello all."], "source": ["https://a.example"],
    "assets": [{"type": "icon", "uri": "data:image/png;base64,AA", "name": "main", "ext": "png"},
               {"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}]}}
FLAT = {name: DATA[name] for name in (
    "name", "description", "personality", "scenario", "first_mes", "mes_example")}
PYGMALION = {"char_name": "Sera", "char_persona": DATA["description"], "char_greeting": DATA["first_mes"],
             "world_scenario": DATA["scenario"], "example_dialogue": DATA["mes_example"]}
PERSONA = ("Write as {{char}}.\n\n{{char}} guards a wood.\n\n{{char}}'s personality: kind\n\n"
           "Scenario: It is night.")


def imported(client, status=201, **body):
    response = client.post("/api/sessions/import", json=body)
    assert response.status_code == status, response.json
    return response.json


def names(client):
    return [bot["name"] for bot in client.get("/api/bots").json["bots"]]


def test_a_card_becomes_a_bot_and_what_it_has_no_field_for_is_kept(client):
    answer = imported(client, data=V2)
    assert answer["session"] is None and answer["left"] == []
    assert answer["taken"] == ["who it is", "greeting", "1 other greeting", "example dialogue",
                               "lore book with 1 entry", "instructions for the end of the prompt"]
    assert answer["kept"] == ["notes of its author", "tags", "settings of other programs", "2 other fields"]
    assert not {"card", "lore_book"} & set(answer["bot"])  # they may be large, and are on no page
    bot = client.get(f"/api/bots/{answer['bot']['id']}").json["bot"]
    assert (bot["name"], bot["persona"], bot["greeting"]) == ("Sera", PERSONA, "Who goes there, {{user}}?")
    assert bot["alternate_greetings"] == ["Hush.\nFollow me."] and bot["lore_book"] == BOOK
    assert bot["example_dialogue"] == DATA["mes_example"]
    assert bot["card"]["extensions"] == DATA["extensions"]


@pytest.mark.parametrize(("card", "persona"), [
    (V3, PERSONA), (FLAT, PERSONA.partition("\n\n")[2]),
    (PYGMALION, "{{char}} guards a wood.\n\nScenario: It is night.")])
def test_older_and_newer_cards_say_the_same(card, persona):
    read = read_card(card, [])
    assert (read.bot["name"], read.bot["persona"]) == ("Sera", persona)
    assert read.bot["greeting"] == "Who goes there, {{user}}?" and read.bot["example_dialogue"]
    assert read.left == []


@pytest.mark.parametrize("card", [V2, V3, FLAT])
def test_what_comes_out_again_is_the_same_card(card):
    bot = read_card(card, []).bot
    out = card_of(bot)
    changed = {"first_mes", "alternate_greetings"}  # spelled our way
    for name, value in card.get("data", card).items():
        assert name in changed or out["data"][name] == value, name
    assert out["spec"] == card.get("spec", "chara_card_v2")
    assert out["data"]["alternate_greetings"] == (["Hush.\nFollow me."] if "spec" in card else [])
    again = read_card(json.loads(card_json(bot)), []).bot
    for name in set(bot) - {"id", "created"}:
        assert again[name] == bot[name], name


def test_pictures_in_a_card_are_kept_as_long_as_there_is_room_and_those_beside_it_are_told():
    def asset(uri):
        return {"type": "x", "uri": uri, "name": "a", "ext": "png"}

    small, large = asset("data:image/png;base64,AA"), asset("data:image/png;base64," + "A" * (1 << 20))
    others = [asset("https://a.example/x.png"), asset("ccdefault:"), 5, asset(None)]
    beside = [asset("embeded://a/b.png"), asset("__asset:0")]
    read = read_card({**V3, "data": {**DATA, "assets": [small, large, *beside, *others]}}, [])
    assert read.bot["card"]["assets"] == card_of(read.bot)["data"]["assets"] == [small, *others]
    assert read.left == ["3 pictures and sounds in it"] and "pictures and sounds" in read.kept
    assert read_card({**V3, "data": {**DATA, "assets": [small, small]}}, []).left == []


def test_the_words_of_a_card_that_are_used_as_they_stand_can_be_changed_and_come_out_again(client):
    bot = imported(client, data=V3)["bot"]
    assert (bot["nickname"], bot["post_history_instructions"]) == ("S", "Be brief.")
    changed = client.patch(f"/api/bots/{bot['id']}", json={
        "revision": bot["revision"], "nickname": "", "post_history_instructions": "Be long."}).json["bot"]
    assert "nickname" not in changed and changed["post_history_instructions"] == "Be long."
    data = client.get(f"/api/bots/{bot['id']}/export").json["data"]
    assert data["post_history_instructions"] == "Be long." and "nickname" not in data
    assert data["group_only_greetings"] == ["Hello all."] and data["creator_notes"] == "By me."
    new = client.post("/api/bots", json={"name": "New", "nickname": "N"}).json["bot"]
    assert new["nickname"] == "N"
    for wrong in (5, None, "x" * 61):
        refused = client.patch(f"/api/bots/{new['id']}", json={"revision": 1, "nickname": wrong})
        assert refused.status_code == 400, wrong


@pytest.mark.parametrize("text", [
    "{{" * 400, "\u202e<b>{{user}}</b>", "\x00", "(a+)+$", "{{random:", "%s {0}", "]]>"])
def test_hostile_texts_in_each_field_of_a_card_do_no_harm(client, text):
    entry = {"keys": [text], "secondary_keys": [text], "content": text, "enabled": True, "insertion_order": 1,
             "use_regex": True, "constant": False, "position": text, "extensions": {}}
    constant = {**entry, "use_regex": False, "constant": True}
    book = {"entries": [entry, constant], "extensions": {}, "recursive_scanning": True, "scan_depth": text}
    texts = {name: text for name, value in V3["data"].items() if isinstance(value, str)}
    card = {**V3, "data": V3["data"] | texts
            | {"name": "Sera", "character_book": book, "group_only_greetings": [text, 5], "tags": [text],
               "assets": [{"uri": text}, text]}}
    bot = imported(client, data=card)["bot"]
    session = client.post("/api/sessions", json={"bots": [bot["id"], MARLOW]}).json["session"]
    prompt = client.get(f"/api/sessions/{session['id']}/prompt?bot={bot['id']}")
    assert prompt.status_code == 200 and not prompt.json["problem"]
    data = client.get(f"/api/bots/{bot['id']}/export").json["data"]
    assert data["character_book"] == book and data["tags"] == [text]


def test_greetings_for_groups_are_there_in_groups(client):
    bot = imported(client, data=V3)["bot"]
    def greetings(*bots):
        messages = client.post("/api/sessions", json={"bots": [*bots]}).json["session"]["messages"]
        return [message["text"] for message in messages if message["author"] == bot["id"]]
    alone = ["Who goes there, User?", "Hush.\nFollow me."]
    assert greetings(bot["id"]) == alone
    assert greetings(bot["id"], MARLOW) == [*alone, "Hello all."]


def test_what_somebody_changed_since_comes_out_as_it_is_now():
    bot = {**read_card(V2, []).bot, "persona": "Another.", "greeting": "Hm?", "name": "Seraph"}
    data = card_of(bot)["data"]
    texts = [data[name] for name in ("name", "description", "personality", "scenario", "system_prompt")]
    assert texts == ["Seraph", "Another.", "", "", ""]
    assert data["first_mes"] == "Hm?" and data["creator_notes"] == "By me."


def test_a_picture_carries_its_card_packed_or_not_and_the_newer_one_counts():
    older, newer = packed({**V2, "data": {**DATA, "name": "Older"}}), packed(V3)
    for keyword, text in (("chara", older), ("ccv3", newer)):
        zipped = png_chunk(b"zTXt", keyword.encode() + b"\0\0" + zlib.compress(text))
        international = png_chunk(b"iTXt", keyword.encode() + b"\0\1\0de\0x\0" + zlib.compress(text))
        plain = png_chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text)
        for texts in ([text_chunk(keyword, text)], [zipped], [international], [plain],
                      [text_chunk("Comment", b"x"), text_chunk(keyword.title(), text)]):
            for after in (False, True):
                card = card_in_png(png(*texts, after=after))
                assert card["data"]["name"] == ("Older" if keyword == "chara" else "Sera")
    both = png(text_chunk("chara", older), text_chunk("ccv3", newer))
    assert card_in_png(both)["data"]["name"] == "Sera"


def test_pictures_are_read_and_written_as_pillow_does_it():
    info, file = PngInfo(), io.BytesIO()
    info.add_itxt("ccv3", packed(V3).decode(), zip=True)
    Image.new("RGBA", (3, 3), "#123456").save(file, "PNG", pnginfo=info)
    bot = read_card(card_in_png(file.getvalue()), []).bot
    written = Image.open(io.BytesIO(card_png(bot, file.getvalue())))
    written.load()
    assert written.getpixel((1, 1)) == (0x12, 0x34, 0x56, 255)
    specs = {name: json.loads(base64.b64decode(text))["spec"] for name, text in written.text.items()}
    assert specs == {"chara": "chara_card_v2", "ccv3": "chara_card_v3"}


def test_a_damaged_picture_is_a_sentence_wherever_it_is_damaged():
    whole = png(text_chunk("chara", packed(FLAT)))
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"PNG|breaks off"):
            card_in_png(whole[:end])
    for at in range(8, len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 0x41
        with pytest.raises(ValueError, match=r"damaged|breaks off"):
            card_in_png(bytes(broken))


@pytest.mark.parametrize(("texts", "said"), [
    ([], "no character in this picture"), ([text_chunk("chara", b"a")], "not base64"),
    ([text_chunk("chara", base64.b64encode(b"{"))], "not JSON"),
    ([text_chunk("chara", base64.b64encode(b"\xff"))], "not UTF-8"),
    ([png_chunk(b"zTXt", b"chara\0\0" + zlib.compress(b"x" * 9_000_000))], "over 8 MiB"),
    ([png_chunk(b"zTXt", b"chara\0\0" + zlib.compress(b"x" * 900)[:-9])], "breaks off"),
    ([png_chunk(b"zTXt", b"chara\0\0nothing packed")], "cannot be unpacked"),
    ([png_chunk(b"zTXt", b"chara\0\1" + zlib.compress(b"x"))], "packed in a way"),
    ([png_chunk(b"iTXt", b"chara\0\7\0\0\0x")], "packed in a way"),
    ([png_chunk(b"iTXt", b"chara\0")], "breaks off")])
def test_a_text_that_is_no_card_is_told(texts, said):
    with pytest.raises(ValueError, match=said):
        card_in_png(png(*texts))


def test_a_picture_of_endless_chunks_ends(monkeypatch):
    monkeypatch.setattr(png_chunks, "MAX_CHUNKS", 10)
    with pytest.raises(ValueError, match="over 10 chunks"):
        card_in_png(png(*[text_chunk("a", b"")] * 20))


WRONG = [
    ({"name": ""}, "no name"), ({"name": "\n:"}, "no name"), ({"name": 5}, "name is not a text"),
    ({"description": 5}, "description is not a text"), ({"description": "x" * 50_001}, "the character has"),
    ({"first_mes": []}, "first_mes is not a text"), ({"first_mes": "x" * 50_001}, "the greeting has"),
    ({"mes_example": "x" * 50_001}, "the example dialogue has"),
    ({"alternate_greetings": "x"}, "not a list of texts"),
    ({"alternate_greetings": [5]}, "not a list of texts"),
    ({"alternate_greetings": ["x"] * 101}, "at most 100"), ({"character_book": []}, "with a list"),
    ({"character_book": {"entries": {}}}, "with a list"),
    ({"character_book": {"entries": [5]}}, "entry 1 of the lore book is not an object"),
    ({"character_book": {"entries": [{"keys": [], "content": None}]}}, "has no content"),
    ({"character_book": {"entries": [{"keys": "x", "content": ""}]}}, "keys of entry 1"),
    ({"character_book": {"entries": [{"keys": [], "content": "", "enabled": 1}]}}, "true or false"),
    ({"character_book": {"entries": [{"keys": [], "content": "", "insertion_order": "1"}]}}, "not a number"),
    ({"extensions": {"x": "y" * (1 << 20)}}, "the rest of its card is not an object of at most")]


def test_a_card_with_a_field_that_is_wrong_is_told_and_nothing_changes(client):
    for change, said in WRONG:
        card = {**V2, "data": {**DATA, **change}}
        error = imported(client, 400, data=card, file="sera.json")["error"]["message"]
        assert error.startswith("sera.json cannot be taken: ") and said in error and len(error) < 300
    assert names(client) == ["Marlow", "Otto", "Lin"]


def test_a_file_that_holds_no_card_is_told(client):
    for data in ({"spec": "chara_card_v2", "data": 5}, {"spec": "chara_card_v2"}):
        assert "cannot be taken" in imported(client, 400, data=data)["error"]["message"]
    for data in (5, "?", "é", as_base64(b"no picture")):
        assert "cannot be taken" in imported(client, 400, png=data)["error"]["message"]
    assert names(client) == ["Marlow", "Otto", "Lin"]


def test_who_has_the_name_of_another_gets_a_number(client):
    assert imported(client, data={**FLAT, "name": "MARLOW"})["bot"]["name"] == "MARLOW 2"
    answer = imported(client, png=as_base64(png(text_chunk("chara", packed({**FLAT, "name": "Marlow"})))))
    assert (answer["bot"]["name"], answer["name"]) == ("Marlow 3", "Marlow")
    for _ in range(2):
        client.post(f"/api/bots/{MARLOW}/duplicate", json={})
    assert names(client) == ["Marlow", "Otto", "Lin", "MARLOW 2", "Marlow 3", "Marlow 4", "Marlow 5"]
    long = imported(client, data={**FLAT, "name": "x" * 70})["bot"]["name"]
    again = imported(client, data={**FLAT, "name": "x" * 70})["bot"]["name"]
    assert (len(long), len(again)) == (60, 57) and again.endswith(" 2")


def test_a_duplicate_has_all_that_the_bot_has(client):
    bot = client.get(f"/api/bots/{imported(client, data=V2)['bot']['id']}").json["bot"]
    copy = client.post(f"/api/bots/{bot['id']}/duplicate", json={}).json["bot"]
    copy = client.get(f"/api/bots/{copy['id']}").json["bot"]
    assert copy["name"] == "Sera 2" and copy["id"] != bot["id"]
    for name in set(bot) - {"id", "name", "created"}:
        assert copy[name] == bot[name]


def test_a_bot_is_exported_as_a_file_that_comes_in_again(client):
    bot = imported(client, data=V2)["bot"]
    response = client.get(f"/api/bots/{bot['id']}/export")
    assert response.headers["Content-Disposition"].startswith('attachment; filename="Sera.json"')
    assert response.json["data"]["extensions"] == DATA["extensions"]
    assert response.json["description"] == DATA["description"]  # for programs that know V1 alone
    client.delete(f"/api/bots/{bot['id']}")
    again = imported(client, data=response.json)["bot"]
    assert (again["name"], again["persona"]) == ("Sera", PERSONA)
    ours = client.get(f"/api/bots/{MARLOW}/export").json
    assert ours["data"]["description"].startswith("You are {{char}}, a lighthouse keeper.")


def test_a_session_with_a_character_takes_all_of_it_along(client, store):
    bot = imported(client, data=V2)["bot"]
    page = Page(client, bot["id"])
    exported = client.get(f"{page.url}/export?format=json").json
    whole = client.get(f"/api/bots/{bot['id']}").json["bot"]
    assert exported["bots"] == [whole]
    client.delete(f"/api/bots/{bot['id']}")
    imported(client, data=exported)
    again = client.get(f"/api/bots/{bot['id']}").json["bot"]
    assert again["card"] == whole["card"] and again["lore_book"] == BOOK


def test_a_session_begins_with_the_chosen_greeting_and_the_others_are_its_versions(client):
    others = {"alternate_greetings": ["Second, {{user}}.", "Third."]}
    bot = imported(client, data={**V2, "data": {**DATA, **others}})["bot"]

    def begun(**body):
        session = client.post("/api/sessions", json={"bots": [bot["id"], LIN], **body}).json["session"]
        return session, {message["text"]: message for message in session["messages"]}

    for chosen, shown in ((None, "Who goes there, User?"), (1, "Second, User."), (2, "Third."),
                          (9, "Who goes there, User?")):
        session, said = begun(**({} if chosen is None else {"greetings": {bot["id"]: chosen}}))
        assert list(said) == ["Who goes there, User?", "Second, User.", "Third.", "Hello User, I am Lin."]
        assert [said[text]["parent"] for text in list(said)[:3]] == [None] * 3
        last = said["Hello User, I am Lin."]
        assert session["leaf"] == last["id"] and last["parent"] == said[shown]["id"]
    for wrong in ([], {"x": -1}, {"x": "1"}, {"x": True}, {"x": 101}):
        assert client.post("/api/sessions", json={"greetings": wrong}).status_code == 400


def test_a_session_begins_with_the_greetings_that_were_shown_before_it(client):
    """With the same seed, and the name of the user, which both were told."""
    dice = {"first_mes": "{{user}} {{roll:1d1000000}}",
            "alternate_greetings": ["{{random:a,b,c,d,e,f}} {{roll:9}}"]}
    bot = imported(client, data={**V3, "data": {**V3["data"], **dice}})["bot"]
    body = {"bots": [bot["id"], MARLOW], "user_name": "Ann", "seed": "0123456789abcdef"}
    shown = client.post("/api/sessions/greetings", json=body).json["greetings"]
    session = client.post("/api/sessions", json=body).json["session"]
    assert shown == {bot["id"]: [message["text"] for message in session["messages"]], MARLOW: []}
    assert shown[bot["id"]][0].startswith("Ann ") and len(shown[bot["id"]]) == 3
    assert session["user_name"] == "Ann"
    assert client.post("/api/sessions/greetings", json=body).json["greetings"] == shown
    other = client.post("/api/sessions/greetings", json={**body, "seed": "0" * 16}).json["greetings"]
    assert other[bot["id"]][0] != shown[bot["id"]][0]
    for wrong in ({"seed": "x"}, {"user_name": "a: b"}, {"user_name": "x" * 61}):
        assert client.post("/api/sessions", json={**body, **wrong}).status_code == 400


def test_the_examples_stand_after_the_persona_in_the_prompt(client, model):
    bot = imported(client, data={**V2, "data": {
        **DATA, "mes_example": "<START>\n{{user}}: Hi\n<start>\n{{char}}: Hush."}})["bot"]
    page = Page(client, bot["id"])
    page.set(user_name="Ann", system_prompt="It rains.")
    page.say("hello")
    assert model.started[-1]["messages"][0].content == (
        "Write as Sera.\n\nSera guards a wood.\n\nSera's personality: kind\n\nScenario: It is night.\n"
        "Examples of how Sera talks:\nAnn: Hi\n***\nSera: Hush.\nIt rains.")
