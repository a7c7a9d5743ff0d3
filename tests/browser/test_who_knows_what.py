"""Whispers, bots that come in late, and notes that only their bot sees, as people set them in the page."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, say, wait_until_quiet, wait_until_saved
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser


def choose(page, opener, entry):
    page.click(opener)
    page.click(f".menu-item:has-text('{entry}')")


def test_a_whisper_is_for_whom_it_is_set_until_it_is_set_otherwise(page, site, open_session):
    session_id = open_session(MARLOW, OTTO, LIN)
    choose(page, "[aria-label='Actions for Lin']", "Whisper to Lin")
    line = page.locator(".whisper-line")
    expect(page.locator("#text")).to_be_focused()
    expect(line).to_have_text("Only for Lin")
    expect(page.locator(".next")).to_have_text("Next: Lin")
    page.fill("#text", "Hide the key.")
    page.reload()
    expect(line).to_have_text("Only for Lin")  # what was typed does not become public
    expect(page.locator("#text")).to_have_value("Hide the key.")
    line.locator(".text-button").click()
    page.click("dialog .choice:has-text('Marlow')")
    assert_accessible(page, "whom it is for")
    page.click("dialog .primary")
    expect(line).to_have_text("Only for Marlow and Lin")
    page.press("#text", "Enter")
    wait_until_quiet(page)
    expect(page.locator(".whispered")).to_have_text(["Only for Marlow and Lin", "Only for you and Lin"])
    expect(page.locator(".message").last).to_have_attribute(
        "aria-label", re.compile("^Marlow, .*, Only for you and Lin$"))
    assert [message.get("for") for message in site.read(session_id)["messages"][-2:]] == [[MARLOW, LIN]] * 2
    line.locator("[aria-label='For everyone again']").click()
    expect(line).to_be_hidden()
    say(page, "Otto, good evening")
    wait_until_quiet(page)
    assert "Hide the key" not in str(site.model.started[-1]["messages"])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # paper tells it, too
    expect(page.locator("#print header", has_text="Only for Marlow and Lin")).to_have_count(1)
    expect(page.locator("#print header").last).not_to_contain_text("Only for")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    go_to(page, site.session(MARLOW))
    expect(line).to_be_hidden()


def test_a_message_that_is_there_is_made_a_whisper_and_its_branch_stays_one(page, site):
    session_id = site.import_path(["Otto, mind the stairs", "I do", "And you"], MARLOW, OTTO)
    go_to(page, session_id)
    message = page.locator(".message").first
    message.hover()
    message.locator("[aria-label=More]").click()
    page.click(".menu-item:has-text('Whom it is for')")
    page.click("dialog .choice:has-text('Otto')")
    page.click("dialog .primary")
    expect(message.locator(".whispered")).to_have_text("Only for Otto")
    assert site.read(session_id)["messages"][0]["for"] == [OTTO]
    message.hover()
    message.locator("text=Edit").click()
    page.fill(".edit-text", "Otto, mind the hole")
    page.click(".edit .primary")
    expect(page.locator(".message").first).to_contain_text("mind the hole")
    wait_until_quiet(page)
    expect(page.locator(".message").first.locator(".whispered")).to_have_text("Only for Otto")
    branch = next(one for one in site.read(session_id)["messages"] if one["text"] == "Otto, mind the hole")
    assert branch["for"] == [OTTO]


def test_what_a_bot_knows_is_chosen_shown_and_changed_later(page, site):
    session_id = site.import_path(["The key is gone", "Oh", "Who has it?"], MARLOW, OTTO)
    go_to(page, session_id)
    page.click(".chip-add")
    page.click(".menu-item:has-text('Lin')")
    choose(page, "[aria-label='Actions for Lin']", "What it knows")
    expect(page.locator("dialog h2")).to_have_text("What Lin knows")
    page.check("dialog [value=nothing]")
    page.fill("dialog textarea", "I took the key.")
    assert_accessible(page, "what a bot knows")
    page.click("dialog .primary")
    expect(page.locator(".memory-line")).to_have_text(["Lin came in here"])
    wait_until_saved(page, session_id)
    last = site.read(session_id)["messages"][-1]["id"]
    lin = site.read(session_id)["bots"][2]
    assert lin == {"id": LIN, "muted": False, "since": last, "notes": "I took the key."}
    say(page, "Lin, and you?")
    wait_until_quiet(page)
    sent = str(site.model.started[-1]["messages"])
    assert "I took the key." in sent and "The key is gone" not in sent
    choose(page, "[aria-label='Actions for Lin']", "What it is sent")
    expect(page.locator("dialog [role=status]")).to_contain_text("Lin came in later: 3 messages from before")
    expect(page.locator(".prompt-parts .memory-line", has_text="Lin came in here")).to_be_visible()
    expect(page.locator(".prompt-name").nth(2)).to_have_text("Its own notes")
    assert_accessible(page, "a prompt with notes")
    site.model.scripts.append("A key is missed.")
    page.locator(".prompt-part.kind-notes button").click()
    page.check("dialog [value=summary]")
    page.click("dialog >> text=Write the summary")
    summary = page.locator("dialog").last.locator("textarea")
    expect(summary).to_have_value("A key is missed.")
    page.locator("dialog").last.locator(".primary").click()
    expect(page.locator("dialog [value=summary]")).to_be_checked()
    page.click("dialog .primary")
    expect(page.locator(".memory-line")).to_have_text(["Lin came in here",
                                                       "Summary of what is above, for Lin"])
    assert site.read(session_id)["summaries"][0]["for"] == [LIN]
    say(page, "Lin, again")
    wait_until_quiet(page)
    assert "A key is missed." in site.model.started[-1]["messages"][0].content
    choose(page, "[aria-label='Actions for Lin']", "Remove from this session")
    expect(page.locator(".memory-line >> text=Lin came in here")).to_have_count(0)
    page.click(".toast >> text=Undo")
    wait_until_saved(page, session_id)
    assert site.read(session_id)["bots"][2] == lin  # with its notes
    page.click(".memory-line >> text=Lin came in here")
    page.check("dialog [value=all]")
    page.click("dialog .primary")
    expect(page.locator(".memory-line")).to_have_count(0)
    say(page, "Lin, once more")
    wait_until_quiet(page)
    assert "The key is gone" in str(site.model.started[-1]["messages"])
