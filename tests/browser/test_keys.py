"""The keyboard map, and where the focus goes."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, OTTO, go_to, say, stopping, wait_until_quiet

pytestmark = pytest.mark.browser


def focused(page):
    return page.evaluate("""() => {
      const one = document.activeElement;
      return one.id || one.getAttribute("aria-label") || one.textContent;
    }""")


def test_the_keyboard_map(page, open_session, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_session()
    say(page, "A question")
    wait_until_quiet(page)
    page.keyboard.press("Control+Shift+C")
    copied = "async () => (await navigator.clipboard.readText()).startsWith('You said: A question')"
    page.wait_for_function(copied)
    page.keyboard.press("Control+k")
    assert focused(page) == "search"
    page.keyboard.press("Control+b")
    expect(page.locator("#left")).to_be_hidden()
    page.keyboard.press("Control+b")
    expect(page.locator("#left")).to_be_visible()
    page.keyboard.press("Control+,")
    expect(page.locator("#right")).to_be_hidden()
    page.keyboard.press("Control+,")
    expect(page.locator("#right")).to_be_visible()
    page.keyboard.press("Control+/")
    expect(page.locator("dialog h2")).to_have_text("Keyboard")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("#welcome")).to_be_visible()
    assert focused(page) == "text"


def test_menus_open_and_close_by_keyboard_and_give_the_focus_back(page, open_session):
    open_session(MARLOW, OTTO)
    more = page.locator("[aria-label='Actions for Otto']")
    more.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".menu button").first).to_be_focused()  # it is loaded then
    assert focused(page) == "Let Otto speak"
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith("Whisper")
    page.keyboard.press("End")
    assert focused(page) == "Remove from this session"
    page.keyboard.press("Escape")
    expect(page.locator(".menu")).to_have_count(0)
    assert focused(page) == "Actions for Otto"


def test_a_dialog_keeps_the_focus_inside_and_gives_it_back(page, open_session):
    open_session()
    page.locator(".title-button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_be_visible()  # its module is loaded when it is first wanted
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert page.evaluate("document.activeElement.className") == "title-button"


def test_arrow_keys_move_between_the_tabs_of_the_settings(page):
    go_to(page)
    page.focus("#tab-sampling")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab-session"
    expect(page.locator("#panel-session")).to_be_visible()
    expect(page.locator("#panel-sampling")).to_be_hidden()


def test_the_look_is_chosen_by_keyboard_seen_at_once_and_remembered(page, open_session):
    open_session()
    say(page, "Hello")
    wait_until_quiet(page)

    def look() -> tuple[str, str, float]:
        return page.evaluate("""() => {
          const [page, text] = ["html", ".md"].map((part) => getComputedStyle(document.querySelector(part)));
          const column = document.querySelector("#messages").getBoundingClientRect().width;
          return [page.backgroundColor, text.fontSize, column];
        }""")

    usual = look()
    page.click("[aria-label=Menu]")
    page.click(".menu >> text=Appearance")
    expect(page.get_by_role("radio", name="As the system")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert look() == ["rgb(25, 24, 22)", usual[1], usual[2]]
    page.click("dialog >> text=Largest")
    page.click("dialog >> text=Narrow")
    chosen = look()
    assert chosen[1] == "20px" and chosen[2] == 620 < usual[2]
    page.reload()
    expect(page.locator(".md").first).to_be_visible()
    assert look() == chosen
    page.click("[aria-label=Menu]")
    page.click(".menu >> text=Appearance")
    expect(page.get_by_role("radio", name="Dark")).to_be_focused()
    page.click("dialog >> text=As the system")
    for radio in page.get_by_role("radio", name="Usual").all():
        radio.check()
    assert look() == usual
    assert page.evaluate("localStorage.getItem('parlor.theme')") is None


def test_escape_where_something_else_was_done_does_not_stop_the_reply(page, open_session, site):
    open_session()
    site.model.hold(after=3)
    say(page, "a long one")
    expect(page.locator(".md.writing")).to_contain_text("word")
    page.keyboard.press("Control+k")
    page.keyboard.type("sea")
    page.keyboard.press("Escape")
    expect(page.locator("#search")).to_have_value("")
    page.keyboard.press("Escape")  # and once more than was needed
    assert focused(page) == "text"
    page.click("#tab-session")
    page.focus("#system-prompt")
    page.keyboard.press("Escape")
    assert focused(page) == "text"
    expect(page.locator(".from-bot .note")).to_contain_text("writing")
    with stopping(page):
        page.keyboard.press("Escape")
    site.model.release()
    expect(page.locator(".badge")).to_have_text("Stopped")


def test_the_arrow_keys_change_versions_but_not_from_other_buttons(page, open_session):
    open_session()
    say(page, "First")
    wait_until_quiet(page)
    page.locator(".from-bot").hover()
    page.click(".from-bot >> text=Regenerate")
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    wait_until_quiet(page)
    for place in ("#new-session", ".from-bot >> text=Copy", ".session-link", ".send"):
        page.locator(place).first.focus()
        page.keyboard.press("ArrowLeft")
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    page.locator(".message").last.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".versions")).to_contain_text("1 of 2")
    page.locator("[aria-label='Next version']").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".versions")).to_contain_text("2 of 2")
