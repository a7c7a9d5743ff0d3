"""What helps to write: names behind an @, a message by the model, a reply whose beginning is given."""

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, say, texts, wait_until_quiet, wait_until_saved
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser


def help_menu(page, item):
    page.click("#composer [aria-label='What helps to write']")
    page.click(f".menu >> text={item}")


def test_a_name_behind_an_at_is_chosen_by_keys_and_answers(page, open_session):
    open_session(MARLOW, OTTO, LIN)
    page.focus("#text")
    page.keyboard.type("Well, @")
    names = page.locator(".mention")
    expect(names).to_have_text(["MMarlow", "OOtto", "LLin"])
    assert_accessible(page, "names are offered")
    page.keyboard.press("ArrowDown")
    expect(names.nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#text")).to_have_attribute("aria-activedescendant", "mention-1")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value("Well, Lin ")
    expect(page.locator(".mentions")).to_be_hidden()
    expect(page.locator("#text")).not_to_have_attribute("aria-activedescendant", "mention-2")
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(page.locator(".from-user")).to_have_count(1)
    wait_until_quiet(page)
    expect(page.locator(".message .name")).to_have_text(["Lin", "You", "Lin"])  # she has greeted, too


def test_what_is_typed_narrows_the_names_and_escape_leaves_the_at(page, open_session):
    open_session(MARLOW, OTTO)
    page.focus("#text")
    page.keyboard.type("@ö")
    expect(page.locator(".mention")).to_have_text(["OOtto"])
    page.keyboard.press("Escape")
    expect(page.locator(".mentions")).to_be_hidden()
    expect(page.locator("#text")).to_have_value("@ö")
    page.fill("#text", "")
    page.keyboard.type("me@m")
    expect(page.locator(".mentions")).to_be_hidden()
    page.keyboard.type(" @x")
    expect(page.locator(".mentions")).to_be_hidden()


def test_a_name_is_chosen_by_touch(new_context, site):
    page = new_context(has_touch=True, is_mobile=True, viewport={"width": 320, "height": 640}).new_page()
    go_to(page, site.session(MARLOW, OTTO))
    page.tap("#text")
    page.keyboard.type("@")
    otto = page.locator(".mention", has_text="Otto")
    box = otto.bounding_box()
    assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 320
    otto.tap()
    expect(page.locator("#text")).to_have_value("Otto ")
    expect(page.locator("#text")).to_be_focused()


def test_the_model_writes_my_message_and_it_can_be_undone_and_had_again(page, open_session, site):
    session_id = open_session()
    page.fill("#text", "Dear friend, ")
    help_menu(page, "Write the rest for me")
    line = page.locator(".writing-line")
    expect(line).to_contain_text("Written by the model, not sent.")
    expect(page.locator("#text")).to_have_value("Dear friend, And so it goes on, a little further.")
    assert site.read(session_id)["messages"] == []
    assert_accessible(page, "a message of the model's")
    line.get_by_role("button", name="Undo").click()
    expect(page.locator("#text")).to_have_value("Dear friend, ")
    expect(line).to_have_count(0)
    page.fill("#text", "")
    site.model.scripts += ["First try.", "Second try."]
    help_menu(page, "Write my message for me")
    expect(page.locator("#text")).to_have_value("First try.")
    line.get_by_role("button", name="Another one").click()
    expect(page.locator("#text")).to_have_value("Second try.")
    page.press("#text", "Enter")
    expect(line).to_have_count(0)
    wait_until_quiet(page)
    assert texts(page)[0] == "Second try."


def test_what_the_model_writes_for_me_is_stopped_by_a_button_a_key_or_typing(page, open_session, site):
    open_session()
    for stop in ("button", "Escape", "typing"):
        site.model.scripts.append("one two three four five six")
        site.model.hold(after=3)
        help_menu(page, "Write my message for me")
        expect(page.locator("#text")).to_have_value("one two three")
        if stop == "button":
            page.locator(".writing-line").get_by_role("button", name="Stop").click()
        elif stop == "Escape":
            page.press("#text", "Escape")
        else:
            page.press("#text", "End")
            page.keyboard.type("!")
        site.model.release()
        if stop == "typing":
            expect(page.locator(".writing-line")).to_have_count(0)
            assert page.input_value("#text") == "one two three!"
        else:
            page.locator(".writing-line").get_by_role("button", name="Undo").click()
            expect(page.locator("#text")).to_have_value("")


def test_a_reply_begins_with_my_words(page, open_session, site):
    session_id = open_session()
    page.fill("#text", "Who are you?")
    help_menu(page, "Begin the reply with…")
    page.locator("dialog textarea").fill("Ahoy! ")
    page.keyboard.press("Escape")
    help_menu(page, "Begin the reply with…")
    expect(page.locator("dialog textarea")).to_have_value("Ahoy! ")
    assert_accessible(page, "the beginning of a reply")
    page.click("dialog >> text=Write it")
    expect(page.locator(".from-bot .md")).to_have_text("Ahoy! And so it goes on, a little further.")
    wait_until_quiet(page)
    assert texts(page)[0] == "Who are you?"
    page.locator(".message.is-last [aria-label=More]").click()
    page.click(".menu >> text=Regenerate, beginning with…")
    expect(page.locator("dialog textarea")).to_have_value("")
    page.locator("dialog textarea").fill("No.")
    page.click("dialog >> text=Write it")
    expect(page.locator(".from-bot .md")).to_have_text("No. And so it goes on, a little further.")
    wait_until_quiet(page)
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    assert len(site.read(session_id)["messages"]) == 3


def test_the_row_of_the_box_fits_a_small_screen(new_context, site):
    page = new_context(viewport={"width": 320, "height": 640}).new_page()
    go_to(page, site.session(MARLOW, OTTO))
    site.model.hold(after=1)
    say(page, "Hello")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    row = page.locator("#composer-row").bounding_box()
    for button in page.locator("#composer-row button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= row["x"] - 1 and box["x"] + box["width"] <= row["x"] + row["width"] + 1
    site.model.release()


def test_with_what_is_set_once_every_new_session_begins(page, site):
    go_to(page)
    page.click("[aria-label=Menu]")
    page.click(".menu >> text=You")
    dialog = page.locator("dialog")
    dialog.get_by_label("Your name").fill("Ann: ")
    dialog.get_by_label("Who you are").fill("A nurse.")
    dialog.get_by_label("Preset").select_option("precise")
    dialog.get_by_label("Who answers next").select_option("mention")
    assert_accessible(page, "what new sessions begin with")
    page.keyboard.press("Escape")
    expect(page.locator("#user-persona")).to_have_value("A nurse.")
    say(page, "Hello")
    wait_until_quiet(page)
    first = site.read(page.evaluate("location.hash.slice(1)"))
    wanted = ("Ann", "A nurse.", "precise", "mention")
    assert (first["user_name"], first["user_persona"], first["preset"], first["turn_order"]) == wanted
    assert "About Ann: A nurse." in site.model.started[-1]["messages"][0].content
    page.click("#tab-session")
    page.fill("#user-name", "Bo")
    page.fill("#user-persona", "A baker.")
    wait_until_saved(page, first["id"])
    assert site.read(first["id"])["user_persona"] == "A baker."
    page.click("#new-session")
    expect(page.locator("#user-name")).to_have_value("Ann")
    expect(page.locator("#user-persona")).to_have_value("A nurse.")
    page.click("[aria-label=Menu]")
    page.click(".menu >> text=You")
    expect(dialog.get_by_label("Preset")).to_have_value("precise")
    expect(dialog.get_by_label("Your name")).to_have_value("Ann")
