"""A character comes in from a file, is talked with from a chosen greeting, is changed, and goes out again."""

import json

import pytest
from playwright.sync_api import expect

from tests.helpers.png_cards import packed, png, text_chunk

from .conftest import go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser

CARD = {"spec": "chara_card_v2", "spec_version": "2.0", "data": {
    "name": "Sera", "description": "{{char}} guards a wood.", "first_mes": "Who goes there, {{user}}?",
    "alternate_greetings": ["Hush, follow me."], "mes_example": "<START>\n{{char}}: Hm.", "tags": ["wood"],
    "extensions": {"a/b": [1]}}}
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
