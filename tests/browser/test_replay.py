"""Replaying a reply in the page: identical, or where it differs; told, copied, cancelled, asked again."""

import pytest
from playwright.sync_api import expect

from tests.helpers.api import wait_until

from .conftest import go_to, say, wait_until_quiet
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser

THEN = "The sea is alpha today and for ever."


@pytest.fixture
def replied(page, site):
    """A page with a reply that can be replayed; what is said next is what the model writes then."""
    go_to(page, site.session(sampling={"seed": 7}))
    site.model.scripts.append(THEN)
    say(page, "How is the sea?")
    wait_until_quiet(page)
    return page


def replay(page):
    page.click(".is-last [aria-label=More]")
    page.click(".menu-item >> text=Replay")
    return page.locator("dialog")


def test_a_reply_that_comes_again_is_told_to_be_identical_and_the_chat_stays(replied, site):
    before = site.api("GET", "/api/sessions")["sessions"]
    site.model.scripts.append(THEN)
    dialog = replay(replied)
    expect(dialog.locator("[role=status]")).to_have_text("Identical: all 8 tokens.")
    dialog.locator("summary").click()
    expect(dialog.locator(".facts")).to_contain_text("f1a7f1a7f1a7f1a7")
    assert_accessible(replied, "a replay")
    replied.keyboard.press("Escape")
    expect(replied.locator(".is-last [aria-label=More]")).to_be_focused()
    assert site.api("GET", "/api/sessions")["sessions"] == before


def test_where_it_differs_and_why_is_shown_and_copied_as_text(new_context, site):
    page = new_context(
        permissions=["clipboard-read", "clipboard-write"], viewport={"width": 320, "height": 640}
    ).new_page()
    go_to(page, site.session(sampling={"seed": 7}))
    site.model.scripts += [THEN, "The sea is grey today and for ever."]
    say(page, "How is the sea?")
    wait_until_quiet(page)
    numerics = site.model.numerics
    site.model.numerics = {**numerics, "isa": "avx512"}
    try:
        dialog = replay(page)
        expect(dialog.locator("[role=status]")).to_have_text("It differs from token 4 on.")
    finally:
        site.model.numerics = numerics
    expect(dialog.locator("mark")).to_have_text(["␣alpha", "␣grey"])
    expect(dialog.locator("li")).to_have_text(["Other kernels: for avx2 then, for avx512 now."])
    assert_accessible(page, "a replay that differs")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    dialog.locator("text=Copy").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("It differs from token 4 on.\nThen\nThe sea is␣alpha today and for ever.")
    assert "probability then: 50% · now: 25%" in copied and "\nInstructions: avx2 then, avx512 now" in copied


def test_closing_the_window_ends_it_and_progress_is_seen_until_then(replied, site):
    site.model.gate.clear()
    try:
        dialog = replay(replied)
        expect(dialog.locator(".help").first).to_have_text("Reading the prompt: 22 of 22 tokens")
        replied.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        wait_until(lambda: site.model.running == 0)
    finally:
        site.model.gate.set()


def test_a_server_that_is_gone_is_said_and_asked_again(replied, site, watch):
    watch.expected = ("ERR_INTERNET_DISCONNECTED",)
    replied.click(".is-last [aria-label=More]")  # what is loaded when it is asked for is there
    expect(replied.locator(".menu")).to_be_visible()
    replied.keyboard.press("Escape")
    replied.context.set_offline(True)
    dialog = replay(replied)
    expect(dialog.locator(".wrong")).to_have_text("Parlor's server does not answer.")
    replied.context.set_offline(False)
    site.model.scripts.append(THEN)
    dialog.locator("text=Once more").click()
    expect(dialog.locator("[role=status]")).to_have_text("Identical: all 8 tokens.")
