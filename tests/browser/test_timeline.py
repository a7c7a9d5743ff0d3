"""The map of a chat: its lines by hand, its way by mouse, touch and keys; names; two branches."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, go_to
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser

# a - b - c - d, where c has another version c2 - e - f, of which f has another one, f2
TREE = [("a", None), ("b", "a"), ("c2", "b"), ("e", "c2"), ("f2", "e"), ("f", "e"), ("c", "b"), ("d", "c")]
ID = {name: f"{number:016x}" for number, (name, _) in enumerate(TREE)}


def tree_session(site):
    """A session of these messages, which shows d; its id."""
    session_id = site.import_path(["x", "y"])
    exported = site.api("GET", f"/api/sessions/{session_id}/export")
    messages = [{"id": ID[name], "parent": ID.get(parent), "author": "user" if number % 2 == 0 else MARLOW,
                 "name": "", "text": f"This is {name}.", "thinking": "", "created": 1.7e9 + number}
                for number, (name, parent) in enumerate(TREE)]
    session = {**exported["session"], "title": "A tree", "messages": messages, "leaf": ID["d"]}
    return site.api("POST", "/api/sessions/import", {"data": session})["session"]["id"]


def said(page):
    """What the lines say, from top to bottom, each with its level."""
    return page.eval_on_selector_all(".map-line", """all => all
        .map((one) => [parseFloat(one.style.top), one.ariaLevel + one.querySelector(".map-text").textContent])
        .sort(([a], [b]) => a - b).map(([, text]) => text.replace(/This is |\\./g, ""))""")


def active(page):
    return page.locator(".map-line[aria-selected=true] .map-text").text_content()


@pytest.mark.parametrize(("shown", "opened", "lines"), [
    ("abcd", {}, "a1 b1 c1 c22 d1"),
    ("abcd", {"c2": True}, "a1 b1 c1 c22 e3 f3 f24 d1"),
    ("abcd", {"c": False}, "a1 b1 c1 d1"),
    ("", {}, "a1 b1 c1 c22 d1"),  # what was written last goes straight down
    (("a", "b", "c2", "e", "f2"), {}, "a1 b1 c21 c2 e1 f21 f2"),
])
def test_the_lines_of_a_map_by_hand(call, shown, opened, lines):
    messages = [{"id": name, "parent": parent, "text": name} for name, parent in TREE]
    found = call("session/branches", """(m, [messages, shown, opened]) =>
        m.mapLines(m.treeOf(messages), new Set(shown), (id, usually) => opened[id] ?? usually)
          .map(({ message, level }) => message.id + level).join(" ")""", [messages, list(shown), opened])
    assert found == lines
    assert call("session/branches", """(m, messages) => {
        const tree = m.treeOf(messages);
        const shown = new Set(["a", "b", "c", "d"]);
        const names = (path) => path.map(({ id }) => id).join("");
        return [m.openFor(tree, shown, "f2"), m.openFor(tree, shown, "d"), names(m.branchOf(tree, "c2")),
          names(m.branchOf(tree, "b")), m.commonPart(m.branchOf(tree, "c2"), m.branchOf(tree, "c")),
          m.commonPart(m.pathTo(tree, "b"), m.pathTo(tree, "b")), tree.sizes.get("c2")]
      }""", messages) == [["c", "c2", "f"], [], "abc2ef", "abcd", 2, 2, 4]


def test_a_tree_of_thousands_of_levels_is_walked_without_a_deep_stack(call):
    assert call("session/branches", """(m) => {
        const messages = [];
        for (let n = 0; n < 20000; n += 1)
          for (const id of [`${n}x`, `${n}`]) messages.push({ id, parent: n ? n - 1 + "x" : null, text: "" });
        const tree = m.treeOf(messages);
        const lines = m.mapLines(tree, new Set(), () => true);
        return [lines.length, lines.at(-1).level, m.openFor(tree, new Set(), "19999x").length]
      }""") == [40_000, 40_000, 39_999]


def test_the_map_is_walked_by_keys_and_leads_to_any_message_and_back(page, site):
    session_id = tree_session(site)
    go_to(page, session_id)
    page.keyboard.press("Control+.")
    expect(page.locator("[role=tree]")).to_be_focused()
    assert said(page) == ["1a", "1b", "1c", "2c2", "1d"] and active(page) == "This is d."
    assert_accessible(page, "timeline")
    for key, at in (("ArrowUp", "c2"), ("ArrowRight", "c2"), ("ArrowRight", "e"), ("ArrowDown", "f"),
                    ("ArrowRight", "f2"), ("ArrowLeft", "f"), ("ArrowLeft", "f"), ("ArrowLeft", "c2"),
                    ("ArrowLeft", "c2"), ("ArrowLeft", "c"), ("ArrowLeft", "c"), ("Home", "a"), ("End", "d")):
        page.keyboard.press(key)
        assert active(page) == f"This is {at}.", key
    assert said(page) == ["1a", "1b", "1c", "1d"]
    page.keyboard.press("Control+f")
    page.keyboard.type("is f")
    expect(page.locator(".map-search [role=status]")).to_have_text("1 of 2")
    assert active(page) == "This is f." and page.locator(".map-line mark").all_text_contents() == ["is f"]
    page.keyboard.press("Enter")  # what was closed on the way there opens
    assert active(page) == "This is f2."
    assert page.locator(".map-line mark").all_text_contents() == ["is f"] * 2
    page.focus("[role=tree]")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(f".message[data-id='{ID['f2']}']")).to_be_focused()
    assert site.read(session_id)["leaf"] == ID["f2"]
    page.click(".toast >> text=Back")
    expect(page.locator(f".message[data-id='{ID['d']}']")).to_be_focused()
    assert site.read(session_id)["leaf"] == ID["d"]


def test_a_branch_is_named_and_two_are_compared(page, site):
    session_id = tree_session(site)
    go_to(page, session_id)
    page.click("#tab-session")
    page.click("#panel-session >> text=Timeline")
    expect(page.locator("dialog >> text=Compare")).to_be_disabled()
    page.click(".map-line:has-text('This is c2.')")
    page.click("dialog .dialog-foot >> text=Name")
    page.fill("dialog >> nth=1 >> input", "The other way")
    page.keyboard.press("Enter")
    expect(page.locator(".map-label")).to_have_text("The other way")
    labels = {message["id"]: message.get("label") for message in site.read(session_id)["messages"]}
    assert labels[ID["c2"]] == "The other way" and sum(map(bool, labels.values())) == 1
    page.click("dialog >> text=Compare")
    expect(page.locator(".side h3")).to_have_text(["The first branch", "The other way"])
    texts = [f"This is {name}." for name in ("c", "d", "c2", "e", "f")]
    expect(page.locator(".side .md")).to_have_text(texts)
    assert_accessible(page, "two branches")
    page.click("text=2 messages in common")
    expect(page.locator(".in-common .md")).to_have_text(["This is a.", "This is b."])
    page.locator(".side >> nth=1 >> text=Show this one in the chat").click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(f".message[data-id='{ID['c2']}']")).to_be_focused()
    page.keyboard.press("Control+.")
    page.click(".map-line:has-text('The other way')")
    page.click("dialog .dialog-foot >> text=Rename")
    page.fill("dialog >> nth=1 >> input", "")
    page.keyboard.press("Enter")
    expect(page.locator(".map-label")).to_have_count(0)


def test_of_thousands_of_messages_only_those_in_sight_are_elements(page, site):
    go_to(page, site.import_path([f"Number {n}" for n in range(3000)]))
    page.keyboard.press("Control+.")
    expect(page.locator(".map-line[aria-selected=true]")).to_contain_text("Number 2999")
    page.keyboard.press("Home")
    expect(page.locator(".map-line[aria-selected=true]")).to_contain_text("Number 0")
    assert page.locator(".map-line").count() < 60
    page.keyboard.press("PageDown")
    number = int(active(page).split()[-1])
    assert 5 < number < 60
    page.fill(".map-search input", "number 1500")
    expect(page.locator(".map-line[aria-selected=true]")).to_contain_text("Number 1500")


def test_the_map_is_for_fingers_too(new_context, site):
    context = new_context(has_touch=True, is_mobile=True, viewport={"width": 320, "height": 700})
    page = context.new_page()
    session_id = tree_session(site)
    go_to(page, session_id)
    page.keyboard.press("Control+.")
    page.tap(".map-line:has-text('This is c2.') .map-twist")
    assert said(page) == ["1a", "1b", "1c", "2c2", "3e", "3f", "4f2", "1d"]
    heights = page.eval_on_selector_all(".map-line", "all => all.map((one) => one.offsetHeight)")
    assert min(heights) >= 44
    assert_accessible(page, "timeline on a phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.tap(".map-line:has-text('This is e.')")
    page.tap("dialog >> text=Show")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("[data-id]", has_text="This is e.")).to_be_visible()
