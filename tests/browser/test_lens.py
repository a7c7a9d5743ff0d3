"""The token lens: pointed at, tapped, walked with keys; a version from there; nothing that axe objects to."""

import pytest
from playwright.sync_api import expect

from model import LOGPROBS

from .conftest import go_to, say, wait_until_quiet
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser

WORDS = "One two three four five six."


def open_lens(page, site, touch=False):
    go_to(page, site.session())
    site.model.scripts.append(WORDS)
    if touch:
        page.tap("#text")
        page.fill("#text", "Count.")
        page.tap(".send")
    else:
        say(page, "Count.")
    expect(page.locator(".from-bot .md")).to_have_text(WORDS)
    wait_until_quiet(page)
    if touch:
        page.tap(".is-last [aria-label=More]")
        page.tap(".menu-item >> text=Tokens")
    else:
        page.click(".is-last .actions >> text=Tokens")
    expect(page.locator(".lens-token")).to_have_count(6)


def test_a_token_that_is_pointed_at_shows_what_else_could_have_come_and_forks_there(page, site):
    open_lens(page, site)
    assert page.locator(".lens-text").inner_text() == WORDS
    page.hover(".lens-token >> nth=2")
    others = page.locator(".lens-others")
    expect(others).to_be_visible()
    assert [row.split("\n") for row in others.locator(".menu-item").all_inner_texts()] == [
        ["␣three", "50%"], ["␣alpha", "25%"], ["␣beta", "13%"], ["<end>", "ends or shapes a reply", "6.2%"]]
    page.click(".lens-others button >> text=beta")
    expect(page.locator("dialog")).to_have_count(0)
    wait_until_quiet(page)
    expect(page.locator(".is-last .md")).to_have_text("One two beta And so it goes on, a little further.")
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    page.reload()
    expect(page.locator(".is-last .md")).to_have_text("One two beta And so it goes on, a little further.")
    page.click("[aria-label='Previous version']")
    expect(page.locator(".is-last .md")).to_have_text(WORDS)


def test_the_keys_walk_from_token_to_token_and_into_what_else_could_have_come(page, site):
    open_lens(page, site)
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("aria-label", "One, 50%")
    expect(page.locator(".lens-others")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("aria-label", "two, 50%")
    expect(page.locator(".lens-others")).to_have_attribute("aria-label", "In place of two")
    for key, label in (("End", "six., 50%"), ("ArrowLeft", "five, 50%"), ("Home", "One, 50%")):
        page.keyboard.press(key)
        expect(focused).to_have_attribute("aria-label", label)
    assert page.locator('.lens-token[tabindex="0"]').count() == 1
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("aria-label", "alpha, 25%: go on from here")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("aria-label", "beta, 13%: go on from here")
    page.keyboard.press("Escape")
    expect(focused).to_have_attribute("aria-label", "One, 50%")
    expect(page.locator(".lens-others")).to_be_hidden()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_have_count(0)
    wait_until_quiet(page)
    expect(page.locator(".is-last .md")).to_have_text("alpha And so it goes on, a little further.")
    page.click(".is-last .actions >> text=Tokens")
    expect(page.locator(".lens-token").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_what_was_uncertain_is_underlined_on_request_and_stays_so(page, site):
    open_lens(page, site)
    line = "getComputedStyle(document.querySelector('.lens-token')).textDecorationLine"
    assert page.evaluate(line) == "none"
    page.click("text=Underline what was uncertain")
    assert page.evaluate(line) == "underline"
    page.keyboard.press("Escape")
    page.click(".is-last .actions >> text=Tokens")
    expect(page.locator("dialog [aria-pressed=true]")).to_be_visible()
    assert page.evaluate(line) == "underline"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fingers_open_a_token_on_a_small_screen_and_nothing_is_to_object_to(new_context, site, theme):
    options = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}
    page = new_context(color_scheme=theme, **options).new_page()
    open_lens(page, site, touch=True)
    page.tap(".lens-token >> nth=5")
    others = page.locator(".lens-others")
    expect(others).to_be_visible()
    box, token = others.bounding_box(), page.locator(".lens-token >> nth=5").bounding_box()
    assert box["y"] - token["y"] - token["height"] == pytest.approx(6, abs=1)
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 740
    assert all(row.bounding_box()["height"] >= 44 for row in others.locator("button").all())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert_accessible(page, "what else could have come")
    page.tap("dialog h2")
    expect(others).to_be_hidden()
    page.set_viewport_size({"width": 360, "height": 420})  # no room for all of it above the token nor below
    page.tap(".lens-token >> nth=5")
    box, token = others.bounding_box(), page.locator(".lens-token >> nth=5").bounding_box()
    assert box["y"] >= token["y"] + token["height"] or box["y"] + box["height"] <= token["y"]
    assert box["y"] >= 0 and box["y"] + box["height"] <= 420
    page.set_viewport_size({"width": 360, "height": 740})
    expect(others).to_be_hidden()  # the token is elsewhere
    page.tap("text=Underline what was uncertain")
    assert_accessible(page, "underlined")


def test_without_log_probabilities_a_sentence_says_why(page, site, watch):
    watch.expected = ("400 (BAD REQUEST)",)
    go_to(page, site.session())
    site.model.cannot = {LOGPROBS: "This engine does not tell its tokens."}
    try:
        say(page, "Count.")
        wait_until_quiet(page)
        page.click(".is-last .actions >> text=Tokens")
        expect(page.locator("dialog [role=status]")).to_have_text("This engine does not tell its tokens.")
        expect(page.locator(".lens-text")).to_be_hidden()
    finally:
        site.model.cannot = {}
