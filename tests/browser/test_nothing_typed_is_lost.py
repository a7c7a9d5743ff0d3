"""Whatever is typed anywhere stays until it is sent, saved or thrown away on purpose."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, OTTO, go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser

MINE = "MY REWRITE, not finished"


def begin_edit(page, message, text=MINE):
    message.hover()
    message.locator(".actions").get_by_text("Edit").click()
    page.fill(".edit-text", text)


@pytest.fixture
def editing(page, site):
    """A session in which a reply is being edited; its id."""
    session_id = site.import_path(["hello", "first reply"], MARLOW, OTTO)
    go_to(page, session_id)
    begin_edit(page, page.locator(".from-bot").first)
    return session_id


def test_an_open_edit_stays_when_another_tab_starts_a_reply(page, site, editing):
    revision = site.read(editing)["revision"]
    site.api("POST", f"/api/sessions/{editing}/messages", {"revision": revision, "text": "from elsewhere"})
    expect(page.locator(".message")).to_have_count(4)
    wait_until_quiet(page)
    expect(page.locator(".edit-text")).to_have_value(MINE)
    expect(page.locator(".edit-text")).to_be_focused()


def test_an_open_edit_stays_when_a_bot_speaks_and_when_the_users_name_changes(page, editing):
    page.click("#chips .chip-main >> nth=1")
    expect(page.locator(".message")).to_have_count(3)
    wait_until_quiet(page)
    expect(page.locator(".edit-text")).to_have_value(MINE)
    page.click("#tab-session")
    page.fill("#user-name", "Ada")
    page.press("#user-name", "Tab")
    expect(page.locator(".from-user .name")).to_have_text("Ada")
    expect(page.locator(".edit-text")).to_have_value(MINE)


def test_an_open_edit_is_there_again_after_another_session_and_after_a_reload(page, site, editing):
    page.click("#new-session")
    expect(page.locator(".edit-text")).to_have_count(0)
    page.click(f"[href='./#{editing}']")
    expect(page.locator(".edit-text")).to_have_value(MINE)
    page.reload()
    expect(page.locator(".edit-text")).to_have_value(MINE)
    page.click("text=Save")
    expect(page.locator(".from-bot .md")).to_have_text(MINE)
    page.reload()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".edit-text")).to_have_count(0)
    assert site.read(editing)["messages"][1]["text"] == MINE


def test_an_edit_that_was_left_comes_back_when_asked_for_and_cancel_drops_it(page, editing):
    page.press(".edit-text", "Escape")
    expect(page.locator(".edit-text")).to_have_count(0)
    page.reload()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".edit-text")).to_have_count(0)
    reply = page.locator(".from-bot")
    reply.hover()
    reply.locator(".actions").get_by_text("Edit").click()
    expect(page.locator(".edit-text")).to_have_value(MINE)
    expect(page.locator(".edit .help")).to_contain_text("your words from before")
    page.click(".edit >> text=Cancel")
    reply.hover()
    reply.locator(".actions").get_by_text("Edit").click()
    expect(page.locator(".edit-text")).to_have_value("first reply")


def test_a_branch_is_sent_once_however_often_the_button_is_pressed(page, open_session, site):
    session_id = open_session()
    say(page, "Red wine")
    wait_until_quiet(page)
    begin_edit(page, page.locator(".from-user"), "White wine")
    page.eval_on_selector(".edit .primary", "button => { button.click(); button.click(); }")
    expect(page.locator(".from-user .md")).to_have_text("White wine")
    wait_until_quiet(page)
    assert len(site.read(session_id)["messages"]) == 4
