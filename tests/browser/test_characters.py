"""A character comes in from a file, is talked with from a chosen greeting, is changed, and goes out again."""

import base64
import io
import json
import zipfile

import pytest
from playwright.sync_api import expect

from tests.helpers.api import wait_until
from tests.helpers.png_cards import packed, png, text_chunk

from .conftest import go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser

CARD = {"spec": "chara_card_v2", "spec_version": "2.0", "data": {
    "name": "Sera", "description": "{{char}} guards a wood.", "first_mes": "Who goes there, {{user}}?",
    "alternate_greetings": ["Hush, follow me."], "mes_example": "<START>\n{{char}}: Hm.", "tags": ["wood"],
    "extensions": {"a/b": [1]}}}
ICON = "data:image/png;base64," + base64.b64encode(png()).decode()
DROP = """(zone, [name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  zone.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data }));
}"""


def test_a_character_comes_in_is_talked_with_and_goes_out_again(page, site, watch):
    watch.expected = ("400",)
    go_to(page)
    picture = png(text_chunk("chara", packed(CARD)))
    with page.expect_file_chooser() as chooser:
        page.click("[aria-label=Menu]")
        page.click(".menu >> text=Import")
    chooser.value.set_files({"name": "sera.png", "mimeType": "image/png", "buffer": picture})
    dialog = page.get_by_role("dialog", name="Sera is here")
    expect(dialog).to_contain_text("who it is, greeting, 1 other greeting, example dialogue")
    expect(dialog).to_contain_text("tags, settings of other programs")
    dialog.get_by_role("button", name="New session").click()
    mark = page.locator(".bot-card.is-chosen .monogram img")
    expect(mark).to_have_js_property("naturalWidth", 256)  # drawn anew from 2 pixels
    greeting = page.locator(".greeting")
    expect(greeting).to_contain_text("1 of 2 Who goes there, User?")
    page.get_by_label("Next greeting of Sera").press("Enter")
    expect(greeting).to_contain_text("2 of 2 Hush, follow me.")
    expect(page.get_by_label("Next greeting of Sera")).to_be_focused()
    say(page, "Hello")
    wait_until_quiet(page)
    first = page.locator(".message").first
    expect(first.locator(".md")).to_have_text("Hush, follow me.")
    expect(first.locator(".versions")).to_contain_text("2 of 2")
    assert "Examples of how Sera talks" in site.model.started[-1]["messages"][0].content

    page.click("#right >> text=Bot")
    page.get_by_label("Edit Sera").click()
    editor = page.get_by_role("dialog", name="Edit Sera")
    expect(editor.get_by_label("Example dialogue")).to_have_value("<START>\n{{char}}: Hm.")
    editor.get_by_role("button", name="Add a greeting").click()
    page.keyboard.type("A third.")
    editor.get_by_label("Remove greeting 2").click()
    editor.get_by_role("button", name="Remove the picture").click()
    with page.expect_file_chooser() as chooser:
        editor.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files({"name": "tall.png", "mimeType": "image/png", "buffer": png(width=30, height=90)})
    expect(editor.get_by_role("button", name="Another picture")).to_be_visible()
    editor.get_by_role("button", name="Save").click()
    expect(editor).to_have_count(0)
    expect(page.locator("#right .monogram img")).to_have_js_property("naturalWidth", 256)
    page.get_by_label("Edit Sera").click()
    expect(editor.get_by_label("Greeting 2", exact=True)).to_have_value("A third.")
    editor.get_by_role("button", name="More").click()
    with page.expect_download() as download:
        page.click(".menu >> text=Export as a character")
    card = json.loads(download.value.path().read_text())
    assert card["data"]["alternate_greetings"] == ["A third."] and card["data"]["extensions"] == {"a/b": [1]}
    editor.get_by_role("button", name="More").click()
    with page.expect_download() as download:
        page.click(".menu >> text=Export as a picture")
    assert b"ccv3" in download.value.path().read_bytes()
    editor.get_by_role("button", name="More").click()
    page.click(".menu >> text=Duplicate")
    expect(page.locator("#right .bot-name", has_text="Sera 2")).to_have_count(1)

    page.eval_on_selector("#sessions", DROP, ["broken.json", json.dumps({**CARD, "data": {"name": 5}})])
    expect(page.locator(".toast.serious")).to_have_text("broken.json cannot be taken: name is not a text.")
    expect(page.locator("#text")).to_have_value("")
    for bot in site.api("GET", "/api/bots")["bots"][3:]:
        site.api("DELETE", f"/api/bots/{bot['id']}", {})


def test_the_lore_book_of_a_character_is_changed_in_its_editor_and_keeps_what_else_it_has(page, site):
    go_to(page)
    entries = [{"keys": ["/oak{1,2}/i", "wood"], "content": "The wood is old.", "priority": 3},
               {"keys": [], "content": "It rains.", "constant": True}]
    book = {"scan_depth": 4, "entries": entries}
    card = {**CARD, "data": {**CARD["data"], "name": "Lora", "character_book": book}}
    page.eval_on_selector("#sessions", DROP, ["lora.json", json.dumps(card)])
    page.get_by_role("dialog", name="Lora is here").get_by_role("button", name="Edit").click()
    editor, book = page.get_by_role("dialog", name="Edit Lora"), page.get_by_role("dialog", name="Lore book")

    def kept():
        bot = next(one for one in site.api("GET", "/api/bots")["bots"] if one["name"] == "Lora")
        return site.api("GET", f"/api/bots/{bot['id']}")["bot"]["lore_book"]

    editor.get_by_role("button", name="Lore book").click()
    book.get_by_label("Keys").first.fill("/oak{1,2}/i, tree")
    expect(book.get_by_label("Always sent").nth(1)).to_be_checked()
    book.get_by_label("Always sent").nth(1).uncheck()
    book.get_by_role("button", name="Add an entry").click()
    page.keyboard.type("moss")
    book.get_by_label("Text").last.fill("Moss is green.")
    book.get_by_role("button", name="Add an entry").click()  # and nothing in it
    page.keyboard.press("Escape")
    editor.get_by_role("button", name="Save").click()
    expect(editor).to_have_count(0)
    changed = kept()
    assert changed["scan_depth"] == 4 and len(changed["entries"]) == 3
    assert changed["entries"][0] == {**entries[0], "keys": ["/oak{1,2}/i", "tree"]}
    assert changed["entries"][1] == {**entries[1], "constant": False}
    assert changed["entries"][2]["keys"] == ["moss"] and changed["entries"][2]["content"] == "Moss is green."
    page.click(".toast >> text=Undo")
    page.wait_for_function("() => !document.querySelector('.toast button.small')")
    wait_until(lambda: kept()["entries"] == entries, 60)
    for bot in site.api("GET", "/api/bots")["bots"][3:]:
        site.api("DELETE", f"/api/bots/{bot['id']}", {})


def test_a_card_of_json_brings_its_picture_and_what_is_told_at_the_end_which_can_be_changed(page, site):
    go_to(page)
    card = {"spec": "chara_card_v3", "data": {
        **CARD["data"], "name": "Vera", "nickname": "Vee", "post_history_instructions": "Be brief, {{char}}.",
        "assets": [{"type": "icon", "name": "main", "uri": ICON, "ext": "png"}]}}
    page.eval_on_selector("#sessions", DROP, ["vera.json", json.dumps(card)])
    dialog = page.get_by_role("dialog", name="Vera is here")
    expect(dialog).to_contain_text("instructions for the end of the prompt, nickname")
    dialog.get_by_role("button", name="Edit").click()
    editor = page.get_by_role("dialog", name="Edit Vera")
    expect(editor.locator(".bot-head .monogram img")).to_have_js_property("naturalWidth", 256)
    expect(editor.get_by_label("Nickname")).to_have_value("Vee")
    editor.get_by_label("Instructions at the end").fill("Be kind, {{char}}.")
    editor.get_by_role("button", name="Save").click()
    expect(editor).to_have_count(0)
    bot = next(one for one in site.api("GET", "/api/bots")["bots"] if one["name"] == "Vera")
    session = site.api("POST", "/api/sessions", {"bots": [bot["id"]]})["session"]
    go_to(page, session["id"])
    say(page, "Hello")
    wait_until_quiet(page)
    told = site.model.started[-1]["messages"]
    assert told[0].content.startswith("Vee guards a wood.")
    assert told[-1].content == "Hello\n[Be kind, Vee.]"
    site.api("DELETE", f"/api/bots/{bot['id']}", {})


V3 = {"spec": "chara_card_v3", "spec_version": "3.0", "data": {
    "name": "Risa", "description": "{{char}} sails.", "first_mes": "Ahoy.", "group_only_greetings": [],
    "assets": [{"type": "icon", "name": "main", "uri": "embeded://assets/icon/main.png", "ext": "png"},
               {"type": "emotion", "name": "glad", "uri": "embeded://assets/glad.png", "ext": "png"}]}}


def charx(card=V3, *, before=b"", method=zipfile.ZIP_DEFLATED, picture=None):
    """An archive as RisuAI writes it, behind a picture perhaps."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("assets/icon/main.png", png() if picture is None else picture)
        archive.writestr("assets/glad.png", png())
        archive.writestr("module.risum", b"\x6f\x00\x01")
        if card is not None:
            archive.writestr("card.json", card if isinstance(card, bytes) else json.dumps(card, indent=4))
    return before + file.getvalue()


def bring(page, name, data):
    page.set_input_files("input[accept*=charx]", {"name": name, "mimeType": "", "buffer": data})


@pytest.mark.parametrize("file", [
    charx(), charx(method=zipfile.ZIP_STORED), charx(before=b"\xff\xd8\xff" + b"x" * 99)],
    ids=["deflated", "stored", "behind a picture"])
def test_a_character_comes_in_an_archive_with_its_picture(page, site, file):
    go_to(page)
    bring(page, "risa.charx", file)
    dialog = page.get_by_role("dialog", name="Risa is here")
    expect(dialog).to_contain_text("1 picture or sound in it")
    dialog.get_by_role("button", name="New session").click()
    expect(page.locator(".bot-card.is-chosen .monogram img")).to_have_js_property("naturalWidth", 256)
    expect(page.locator(".greeting")).to_contain_text("Ahoy.")
    bot = site.api("GET", "/api/bots")["bots"][-1]
    card = site.api("GET", f"/api/bots/{bot['id']}/export")
    assert [asset["uri"] for asset in card["data"]["assets"]] == ["ccdefault:"]
    site.api("DELETE", f"/api/bots/{bot['id']}", {})


def with_size(data, size):
    """The archive with another size of its last file in the directory."""
    at = data.rindex(b"PK\x01\x02") + 24
    return data[:at] + size.to_bytes(4, "little") + data[at + 4:]


NOBODY = "There is no character in odd.charx."
DAMAGED = "odd.charx is damaged: it cannot be unpacked."
BOMB = charx(b"[" + b" " * (17 << 20) + b"]")


@pytest.mark.parametrize(("data", "said"), [
    (charx(None), NOBODY), (charx(b"{"), "odd.charx (card.json) is not a JSON file."),
    (charx({"spec": "chara_card_v3", "data": {"name": 5}}), "odd.charx cannot be taken: name is not a text."),
    (charx()[:-30], NOBODY), (b"PK\x03\x04" + charx()[300:], DAMAGED),
    (charx().replace(b"card.json", b"card.jsoN"), NOBODY), (BOMB, DAMAGED), (with_size(BOMB, 10), DAMAGED)],
    ids=["no card", "no JSON", "no name", "no end", "cut", "another name", "too large", "larger than said"])
def test_an_archive_that_is_none_is_a_sentence_and_changes_nothing(page, site, watch, data, said):
    watch.expected = ("400",)
    go_to(page)
    bring(page, "odd.charx", data)
    expect(page.locator(".toast.serious")).to_have_text(said)
    assert len(site.api("GET", "/api/bots")["bots"]) == 3


def test_a_picture_that_cannot_be_read_leaves_the_character(page, site):
    go_to(page)
    bring(page, "risa.charx", charx(picture=b"no picture"))
    expect(page.get_by_role("dialog", name="Risa is here")).to_contain_text("2 pictures and sounds in it")
    site.api("DELETE", f"/api/bots/{site.api('GET', '/api/bots')['bots'][-1]['id']}", {})


def test_a_greeting_is_shown_as_it_will_be_said(page, site):
    """With its dice, its hour, the user's name, and those for groups."""
    greeting = "{{user}}, {{random:red,green,blue,white,black}} {{roll:1d1000}} on {{weekday}}"
    card = {**V3, "data": {**V3["data"], "name": "Dicey", "first_mes": greeting, "assets": [],
                           "group_only_greetings": ["All of you, {{roll:1d1000}}"]}}
    bot = site.api("POST", "/api/sessions/import", {"data": card})["bot"]
    go_to(page)
    page.locator(".bot-card", has_text="Marlow").click()
    page.locator(".bot-card", has_text="Dicey").click()
    page.click("#tab-session")
    page.fill("#user-name", "Mina")
    shown = page.locator(".greeting")
    expect(shown).not_to_contain_text("{{")
    expect(shown).to_contain_text("Mina, ")
    text = shown.inner_text()
    say(page, "Hello")
    wait_until_quiet(page)
    assert text.endswith(page.locator(".message .md").first.inner_text())
    page.click("#new-session")
    page.locator(".bot-card", has_text="Marlow").click()
    page.get_by_label("Next greeting of Dicey").click()
    expect(shown).to_contain_text("2 of 2 All of you, ")
    expect(shown).not_to_contain_text("{{")
    text = shown.inner_text()
    say(page, "Hello again")
    wait_until_quiet(page)
    assert text.endswith(page.locator(".message .md").first.inner_text())
    site.api("DELETE", f"/api/bots/{bot['id']}", {})
