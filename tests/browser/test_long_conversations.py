"""What is kept in mind when the beginning is left out: pins, the author's note, a summary, the lore book."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, go_to, say, wait_until_quiet, wait_until_saved
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser


def test_what_is_kept_in_mind_is_set_in_the_page_and_shown_by_the_inspector(page, site):
    session_id = site.import_path([f"{number} words" for number in range(7)], MARLOW)
    go_to(page, session_id)
    messages = page.locator(".message")

    def choose(number, entry):
        messages.nth(number).hover()
        messages.nth(number).locator("[aria-label=More]").click()
        page.click(f".menu-item >> text={entry}")

    choose(1, "Pin")
    expect(messages.nth(1).locator(".note")).to_have_text("pinned")
    site.model.scripts.append("Little was said.")
    choose(3, "Summarize up to here")
    summary = page.locator("dialog textarea")
    expect(summary).to_have_value("Little was said.")
    assert_accessible(page, "a summary")
    summary.fill("Little was said, <b>truly</b>.")
    page.keyboard.press("Escape")
    choose(3, "Summarize up to here")
    expect(summary).to_have_value("Little was said, <b>truly</b>.")  # what was typed is still there
    page.click("dialog .primary")
    line = page.locator(".memory-line")
    expect(line).to_have_text(["Summary of what is above",
                               "The model's memory begins here · 3 earlier messages are kept, not read"])
    page.click("#tab-session")
    page.fill("#note", "It rains.")
    page.fill("#note-depth", "2")
    page.press("#note-depth", "Tab")
    page.click("text=Lore book")
    expect(page.locator("dialog input")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Lore book", exact=True)).to_be_visible()  # a look changes nothing
    page.click("text=Lore book")
    page.fill("dialog input", "words, sea")
    page.fill("dialog textarea", "Words are wind.")
    assert_accessible(page, "the lore book")
    page.click("dialog .primary")
    expect(page.locator("text=Lore book · 1 entry")).to_be_visible()
    wait_until_saved(page, session_id)
    kept = site.read(session_id)
    assert kept["note"] == {"text": "It rains.", "depth": 2}
    assert kept["lore"] == [{"keys": ["words", "sea"], "text": "Words are wind."}]
    page.click("#status-line .used")
    expect(page.locator(".prompt-name")).to_have_text([
        "Persona", "Lore book: words, sea", "Summary of what was before", "Marlow", "User", "Author's note",
        "Marlow", "User"])
    expect(page.locator(".prompt-head").nth(3)).to_contain_text("pinned")
    page.click("dialog [aria-label^='Edit Summary']")
    page.click("dialog .danger")
    expect(line).to_have_count(0)
    page.click(".toast >> text=Undo")
    expect(line).to_have_count(2)
    say(page, "on")
    wait_until_quiet(page)
    sent = site.model.started[-1]["messages"]
    assert "Little was said, <b>truly</b>." in sent[0].content and sent[1].content == "1 words"
