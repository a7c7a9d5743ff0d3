"""What those hear who cannot see the page, and the keys that are made for them."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, OTTO, go_to, say, wait_until_quiet
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser
HEARD = """() => {
  window.heard = [];
  const hear = (change) => change.addedNodes.forEach((node) => window.heard.push(node.textContent));
  new MutationObserver((changes) => changes.forEach(hear))
    .observe(document.querySelector("#announcer"), { childList: true });
}"""


def accessible(page):
    """Of Chromium's accessibility tree (role, name) of each node that is not ignored, and of the focused."""
    network = page.context.new_cdp_session(page)
    every = network.send("Accessibility.getFullAXTree")["nodes"]
    nodes = [node for node in every if not node.get("ignored")]

    def said(node):
        return node.get("role", {}).get("value"), node.get("name", {}).get("value", "")

    focused = [said(node) for node in nodes for what in node.get("properties", [])
               if what["name"] == "focused" and what["value"].get("value")]
    return [said(node) for node in nodes], focused[-1]


def choose(page, label):
    page.click("#brand-buttons [aria-label=Menu]")
    page.click(".menu-item:has-text('Appearance')")
    page.check(f"dialog .look:has-text('{label}') input")
    assert_accessible(page, "appearance")
    page.keyboard.press("Escape")
    mode = "sentences" if "sentence" in label else "replies"
    expect(page.locator("html")).to_have_attribute("data-reader", mode)


def heard(page):
    return page.evaluate("window.heard")


def test_finished_sentences_are_told_with_who_says_them_while_the_rest_is_written(page, site, open_session):
    open_session(MARLOW, OTTO)
    choose(page, "Each sentence, with who says it")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-reader", "sentences")  # it is kept
    page.evaluate(HEARD)
    site.model.scripts.append(
        "The **lamp** is out. I will see\n\n```py\nprint(1)\nprint(2)\n```\n\nDone so far.")
    site.model.hold(after=7)
    say(page, "Otto, so?")
    page.wait_for_function("() => window.heard.includes('Otto: The lamp is out.')")
    assert not any("see" in one for one in heard(page)), "it is not finished"
    site.model.release()
    wait_until_quiet(page)
    page.wait_for_function("() => window.heard.includes('Otto is done.')")
    told = heard(page)
    rest = " ".join(told[told.index("Otto: The lamp is out.") + 1:])
    assert rest == "I will see 2 lines of code. Done so far. Otto is done."
    nodes, _ = accessible(page)
    assert ("log", "Announcements") in nodes
    assert any("Done so far." in name for role, name in nodes if role == "StaticText")


def test_whole_replies_are_told_when_they_are_finished(page, site, open_session):
    open_session(MARLOW)
    choose(page, "Each reply when it is finished")
    page.evaluate(HEARD)
    site.model.scripts.append("One. Two.\n\nThree.")
    say(page, "go")
    page.wait_for_function("() => window.heard.includes('Marlow: One. Two. Three.')")
    wait_until_quiet(page)
    assert heard(page)[0] == "Marlow is writing." and len(heard(page)) == 2


def test_keys_go_from_message_to_message_and_to_other_speakers_and_versions(page, site):
    texts = ["First", "Ahoy", "Second", "Hello"]
    session_id = site.import_path(texts, MARLOW, OTTO)
    go_to(page, session_id)
    choose(page, "Each sentence, with who says it")
    page.evaluate(HEARD)
    page.focus("#text")
    page.keyboard.press("Alt+p")
    expect(page.locator(".message").last).to_be_focused()
    assert heard(page)[-1] == "Hello Message 4 of 4."
    _, (role, name) = accessible(page)
    assert role == "article" and name.startswith("Otto, ")
    page.keyboard.press("Alt+p")
    page.keyboard.press("Alt+Shift+P")
    expect(page.locator(".message").nth(1)).to_be_focused()
    page.keyboard.press("Alt+p")
    page.keyboard.press("Alt+p")
    assert heard(page)[-1] == "This is the first message."
    page.keyboard.press("Alt+.")
    assert heard(page)[-1] == "No message has other versions."
    page.keyboard.press("Alt+Shift+N")
    assert heard(page)[-1] == "Ahoy Message 2 of 4."
    page.locator(".message").nth(1).locator("[aria-label=More]").click()
    site.model.scripts.append("Otherwise.")
    page.click(".menu-item:has-text('Regenerate')")
    page.wait_for_function("() => window.heard.includes('Marlow is done.')")
    wait_until_quiet(page)
    page.focus("#text")
    page.keyboard.press("Alt+,")
    page.wait_for_function("() => window.heard.at(-1) === 'Ahoy Message 2 of 4. Version 1 of 2.'")
    expect(page.locator(".message").nth(1)).to_be_focused()
    page.keyboard.press("Alt+.")
    page.wait_for_function("() => window.heard.at(-1) === 'Otherwise. Message 2 of 2. Version 2 of 2.'")
    page.keyboard.press("Alt+n")
    expect(page.locator("#text")).to_be_focused()


def test_one_key_tells_how_things_stand(page, site):
    go_to(page, site.import_path(["First", "Ahoy"], MARLOW, OTTO))
    choose(page, "Each sentence, with who says it")
    page.evaluate(HEARD)
    expect(page.locator("#status-line .used")).to_contain_text("2,048")
    used = page.locator("#status-line .used").inner_text()
    page.keyboard.press("Alt+r")
    assert heard(page) == [f"Here: Marlow and Otto. Nobody is writing. 2 messages. In memory: {used}."]
    site.model.hold(after=2)
    say(page, "Otto, a story")
    expect(page.locator(".md.writing")).not_to_be_empty()
    page.keyboard.press("Alt+p")
    expect(page.locator(".message").last).to_be_focused()
    page.keyboard.press("Alt+r")
    assert "Otto is writing. 4 messages. You are at number 4, of Otto." in heard(page)[-1]
    site.model.release()
    wait_until_quiet(page)


def test_without_the_mode_its_keys_do_nothing_and_are_listed_all_the_same(page, open_session):
    open_session(MARLOW)
    page.focus("#text")
    page.keyboard.press("Alt+p")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Control+/")
    expect(page.locator("dialog .keys").last).to_contain_text("Who is here, who writes")
    assert_accessible(page, "the list of keys")
