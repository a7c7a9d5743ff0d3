"""What can be seen without looking for it: who is next, versions, what can be done now."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, OTTO, go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser


def test_the_composer_says_who_answers_next(page, open_session):
    open_session(MARLOW, OTTO)
    following = page.locator("#composer .next")
    expect(following).to_have_text("Next: Marlow")
    page.fill("#text", "Otto, what do you see?")
    expect(following).to_have_text("Next: Otto")
    say(page, "Otto, what do you see?")
    wait_until_quiet(page)
    expect(page.locator(".from-bot .name")).to_have_text("Otto")
    expect(following).to_have_text("Next: Marlow")
    page.click("#composer .next")
    page.click(".menu >> text=Everyone once")
    expect(following).to_have_text("Next: everyone once")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Marlow and Otto", "MO"),
        ("otto! Marlow?", "OM"),
        ("Marlowe, ottoman, a_Otto", ""),
        ("Ask Ma(x.", "X"),
        ("你好小明吗", "明"),
        ("", ""),
    ],
)
def test_whoever_is_named_in_a_text(page, text, names):
    go_to(page)
    bots = {"M": "Marlow", "O": "Otto", "X": "Ma(x", "明": "小明"}
    found = page.evaluate(
        """async ([text, bots]) => {
          const src = document.querySelector("script[type=module]").src;
          const { mentioned } = (await import(src)).modules["session/next.js"];
          return mentioned(text, bots).map((bot) => bot.id).join("");
        }""",
        [text, [{"id": key, "name": name} for key, name in bots.items()]],
    )
    assert found == names


def test_versions_stay_visible_and_hidden_branches_are_not_counted(page, open_session):
    session_id = open_session()
    for text in ("One", "Two"):
        say(page, text)
        wait_until_quiet(page)
    note = page.locator(f".session:has([href='./#{session_id}']) .session-note")
    expect(note).to_have_text("4 messages")
    page.locator(".from-bot").nth(0).hover()
    page.locator(".from-bot").nth(0).get_by_text("Regenerate").click()
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    wait_until_quiet(page)
    expect(note).to_have_text("2 messages")
    say(page, "Three")
    wait_until_quiet(page)
    page.mouse.move(0, 0)
    first = page.locator(".from-bot").nth(0)
    assert first.locator(".versions").evaluate("one => getComputedStyle(one).opacity") == "1"






def test_while_a_reply_is_written_stop_is_the_button_that_stands_out(page, open_session, site):
    open_session()
    primary = page.locator("#composer .primary")
    expect(primary).to_have_text("Send")
    site.model.hold(after=2)
    say(page, "a long one")
    expect(primary).to_contain_text("Stop")
    site.model.release()
    wait_until_quiet(page)
    expect(primary).to_have_text("Send")


def test_a_file_that_is_no_session_is_told_without_words_of_the_interface(page, tmp_path, watch):
    watch.expected = ("400",)
    file = tmp_path / "list.json"
    file.write_text("[1, 2]")
    go_to(page)
    page.set_input_files("input[accept]", file)
    expect(page.locator(".toast.serious")).to_have_text(
        "list.json cannot be taken: it is no chat and no character that Parlor knows.")
