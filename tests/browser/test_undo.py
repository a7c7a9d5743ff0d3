"""Undo and redo of what was changed in a session: by menu, by keys, by touch, and from two browsers."""

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, say, texts, wait_until_quiet, wait_until_saved

pytestmark = pytest.mark.browser


def outside_of_boxes(page):
    page.evaluate("document.activeElement.blur()")


def entry(page, name):
    """An entry of the page's menu, which is opened."""
    page.locator("#brand-buttons [aria-label=Menu]").click()
    return page.get_by_role("menuitem", name=name)


def told(page, text):
    """In the one note there is."""
    expect(page.locator(".toast").last).to_contain_text(text)


def test_what_was_said_and_answered_is_undone_and_done_again_by_keys(page, open_session):
    open_session(MARLOW)
    say(page, "First")
    wait_until_quiet(page)
    said = texts(page)
    outside_of_boxes(page)
    page.keyboard.press("Control+z")
    told(page, "Undone: reply of Marlow.")
    expect(page.locator(".message")).to_have_count(1)
    page.keyboard.press("Control+z")
    told(page, "Undone: sent message.")
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()
    page.keyboard.press("Control+Shift+Z")
    told(page, "Done again: sent message.")
    expect(page.locator(".message")).to_have_count(1)
    page.keyboard.press("Control+y")
    told(page, "Done again: reply of Marlow.")
    expect(page.locator(".message")).to_have_count(2)
    assert texts(page) == said


def test_in_a_box_the_keys_undo_what_is_typed(page, open_session):
    open_session(MARLOW)
    say(page, "First")
    wait_until_quiet(page)
    page.fill("#text", "")
    page.type("#text", "typed")
    page.press("#text", "Control+z")
    expect(page.locator("#text")).not_to_have_value("typed")
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".toast")).to_have_count(0)


def test_the_menu_says_what_it_undoes_also_after_a_reload(page, open_session, site):
    session_id = open_session(MARLOW)
    say(page, "First")
    wait_until_quiet(page)
    page.locator(".message").first.locator("[aria-label=More]").click()
    page.click(".menu >> text=Delete")
    expect(page.locator(".message")).to_have_count(1)
    page.reload()
    expect(page.locator(".message")).to_have_count(1)
    entry(page, "Undo: deleted message").click()
    expect(page.locator(".message")).to_have_count(2)
    told(page, "Undone: deleted message.")
    page.locator(".toast").last.get_by_role("button", name="Redo").click()
    expect(page.locator(".message")).to_have_count(1)
    expect(entry(page, "Redo")).to_be_disabled()
    page.keyboard.press("Escape")
    page.click("#tab-sampling")
    number = page.locator("[data-parameter=temperature] .number")
    number.fill("0.3")
    number.press("Enter")
    wait_until_saved(page, session_id)
    entry(page, "Undo: Temperature").click()
    told(page, "Undone: Temperature.")
    assert site.api("GET", f"/api/sessions/{session_id}")["session"]["sampling"] == {}


def test_another_version_of_a_reply_is_undone_to_the_one_before_and_stays_beside_it(page, open_session):
    open_session(MARLOW)
    say(page, "First")
    wait_until_quiet(page)
    first = texts(page)
    page.locator(".from-bot [aria-label=More]").click()
    page.get_by_role("menuitem", name="Regenerate", exact=False).first.click()
    expect(page.locator(".from-bot .versions")).to_contain_text("2 of 2")
    wait_until_quiet(page)
    entry(page, "Undo: reply of Marlow").click()
    told(page, "Undone")
    expect(page.locator(".from-bot .versions")).to_contain_text("1 of 2")
    assert texts(page) == first


def test_while_a_reply_is_written_undoing_is_refused_with_a_sentence(page, open_session, site, watch):
    watch.expected = ("409",)
    site.model.hold(after=3)
    open_session(MARLOW)
    say(page, "First")
    expect(page.locator(".from-bot .md")).not_to_be_empty()
    outside_of_boxes(page)
    page.keyboard.press("Control+z")
    told(page, "Marlow is still writing in this session. Stop the reply first")
    site.model.release()
    wait_until_quiet(page)
    expect(page.locator(".message")).to_have_count(2)


def test_what_one_browser_did_another_one_undoes(page, open_session, new_context):
    session_id = open_session(MARLOW, OTTO)
    say(page, "Marlow, first")
    wait_until_quiet(page)
    phone = new_context(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740}).new_page()
    go_to(phone, session_id)
    page.locator("[aria-label='Actions for Otto']").click()
    page.get_by_role("menuitem", name="Remove from this session").click()
    told(page, "Otto left.")
    wait_until_saved(page, session_id)
    expect(phone.locator("#chips .chip-stack .monogram")).to_have_count(1)
    phone.tap("#open-left")
    phone.tap("#brand-buttons [aria-label=Menu]")
    phone.get_by_role("menuitem", name="Undo: Otto removed").tap()
    expect(phone.locator(".toast")).to_contain_text("Undone: Otto removed.")
    expect(page.locator("#chips .chip")).to_have_count(2)
    outside_of_boxes(page)
    page.keyboard.press("Control+Shift+Z")
    told(page, "Done again: Otto removed.")
    expect(page.locator("#chips .chip")).to_have_count(1)


def test_a_bot_that_was_taken_out_comes_back_to_its_place(page, open_session, site):
    session_id = open_session(MARLOW, OTTO, LIN)
    page.locator("[aria-label='Actions for Otto']").click()
    page.get_by_role("menuitem", name="Remove from this session").click()
    expect(page.locator("#chips .chip")).to_have_count(2)
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.locator("#chips .chip")).to_have_count(3)
    wait_until_saved(page, session_id)
    there = site.api("GET", f"/api/sessions/{session_id}")["session"]["bots"]
    assert [one["id"] for one in there] == [MARLOW, OTTO, LIN]
