"""Find in this chat: all of its messages, the places marked, and the way there from a search of all."""

import pytest
from playwright.sync_api import expect

from .conftest import go_to, wait_for_held, wait_until_quiet
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser

TEXTS = [f"Question {n}" if n % 2 == 0 else f"Answer **{n}** of many, about lamps." for n in range(600)]
TEXTS[41] = "The *old* Lighth**ouse** stands here; a lighthouse, once more."
TEXTS[301] = "Ships see the lighthouse from afar."
TELEPHONE = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}
MARKS = "(name) => [...(CSS.highlights.get(name) ?? [])].map(String)"


def wait_until_in_sight(page, text: str) -> None:
    page.wait_for_function("""(text) => {
      const box = document.querySelector("#transcript").getBoundingClientRect();
      const all = [...document.querySelectorAll(".message")];
      const message = all.find((one) => one.textContent.includes(text));
      const at = message?.getBoundingClientRect();
      return Boolean(at) && at.top >= box.top && at.bottom <= box.bottom;
    }""", arg=text)


def test_words_are_found_in_messages_that_are_not_on_the_page_and_marked_where_they_stand(page, site):
    go_to(page, site.import_path(TEXTS))
    expect(page.locator(".message").last).to_contain_text("599")
    assert not page.locator(".message", has_text="once more").count()
    page.keyboard.press("Control+f")
    expect(page.locator(".find input")).to_be_focused()
    count = page.locator(".find [role=status]")
    page.keyboard.type("LIGHTHOUSE")
    expect(count).to_have_text("2 of 2")  # from the end on
    wait_until_in_sight(page, "from afar")
    assert page.evaluate(MARKS, "found-now") == ["lighthouse"]
    page.keyboard.press("Enter")
    expect(count).to_have_text("1 of 2")
    wait_until_in_sight(page, "once more")
    page.wait_for_function(f"() => ({MARKS})('found-now').length === 2")
    assert page.evaluate(MARKS, "found-now") == ["Lighthouse", "lighthouse"]  # over the parts of a word
    page.keyboard.press("Shift+Enter")
    expect(count).to_have_text("2 of 2")
    page.locator(".find input").fill("lighthouse keeper")
    expect(count).to_have_text("Not found")
    page.locator(".find input").fill("afar ships")  # both, elsewhere than side by side
    expect(count).to_have_text("1 of 1")
    assert_accessible(page, "find")
    page.keyboard.press("Escape")
    expect(page.locator(".find")).to_have_count(0)
    assert page.evaluate("CSS.highlights.size") == 0
    assert page.evaluate("document.activeElement.textContent").find("from afar") >= 0
    page.keyboard.press("Control+Home")
    wait_until_in_sight(page, "Question 0")
    page.keyboard.press("Control+End")
    wait_until_in_sight(page, "Answer 599")


def test_a_search_of_all_sessions_leads_to_the_words_in_whichever_version_they_are(page, site):
    session_id = site.import_path(["Tell me of the sea.", "The sea is deep."])
    before = site.read(session_id)
    site.api("POST", f"/api/sessions/{session_id}/messages",
             {"revision": before["revision"], "text": "Tell me of the albatross.", "parent": None})
    go_to(page, session_id)
    wait_until_quiet(page)
    site.api("PATCH", f"/api/sessions/{session_id}",
             {"revision": site.read(session_id)["revision"], "leaf": before["leaf"]})
    go_to(page)
    page.fill("#search", "albatross")
    expect(page.locator(".group-name")).to_have_text(["Found"])
    page.locator(".session-link").first.click()
    expect(page.locator(".find [role=status]")).to_have_text("In another version.")
    page.click(".find >> text=Show it")
    expect(page.locator(".find [role=status]")).to_have_text("1 of 2")  # the reply says it, too
    expect(page.locator(".message.from-user")).to_contain_text("albatross")


def test_the_row_of_a_session_that_is_found_begins_shortly_before_the_words(page, site):
    """It is cut at its end, where they would else be."""
    site.import_path(["A long way down the coast the three of us once met a guillemot.", "Where?"])
    go_to(page)
    page.fill("#search", "guillemot")
    note = page.locator(".session-note").first
    expect(note).to_contain_text("… ")
    row, mark = note.bounding_box(), note.locator("mark").bounding_box()
    assert mark["x"] + mark["width"] <= row["x"] + row["width"] + 1


def test_a_search_that_is_not_answered_yet_has_found_nothing(page, site):
    site.import_path(["A cormorant dives.", "Deep?"])
    go_to(page)
    held = []
    page.route("**/api/sessions?q=*", lambda route: held.append(route))
    page.fill("#search", "cormorant")
    wait_for_held(page, held)
    assert "Found" not in page.locator(".group-name").all_text_contents()
    held[0].continue_()
    expect(page.locator(".group-name")).to_have_text(["Found"])
    expect(page.locator(".session-link")).to_have_count(1)


def test_a_hit_in_the_list_opens_at_its_message_and_not_at_the_latest_one(page, site):
    session_id = site.import_path(["A pelican stands there.", "Yes.", "Go on.", "Another pelican comes."])
    go_to(page)
    page.fill("#search", "pelican")
    expect(page.locator(".session-link .snippet, .session-link")).to_contain_text(["stands there"])
    page.locator(".session-link").first.click()
    expect(page.locator("#title")).to_have_attribute("data-id", session_id)
    expect(page.locator(".find [role=status]")).to_have_text("1 of 2")
    page.locator(".find input").fill("pelica")
    expect(page.locator(".find [role=status]")).to_have_text("2 of 2")  # typed here: the latest first


def test_the_bar_gives_the_focus_to_what_it_found_or_else_to_the_message_box(page, site):
    go_to(page, site.import_path(["A pelican stands there.", "Yes."]))
    for word, focused in (("", "#text"), ("pelican", ".message"), ("walrus", "#text")):
        page.keyboard.press("Control+f")
        page.locator(".find input").fill(word)
        if word:
            expect(page.locator(".find [role=status]")).not_to_have_text("")
        page.keyboard.press("Escape")
        expect(page.locator(".find")).to_have_count(0)
        expect(page.locator(focused).first).to_be_focused()


@pytest.mark.parametrize("options", [{}, TELEPHONE], ids=["wide", "telephone"])
def test_what_is_found_in_a_long_message_is_in_sight_and_not_under_the_box(new_context, site, options):
    page = new_context(**options).new_page()
    long = "word " * 600 + "lighthouse " + "word " * 900
    go_to(page, site.import_path(["Hello", long, "And?", "lighthouse first, " + "word " * 900]))
    page.keyboard.press("Control+f")
    expect(page.locator(".find input")).to_be_focused()
    page.keyboard.type("lighthouse")
    count = page.locator(".find [role=status]")
    for place in ("2 of 2", "1 of 2"):
        expect(count).to_have_text(place)
        page.wait_for_function("""() => {
          const [mark] = CSS.highlights.get("found-now");
          const { top, bottom } = mark.getBoundingClientRect();
          return top >= document.querySelector(".find").getBoundingClientRect().bottom
            && bottom <= document.querySelector("#composer").getBoundingClientRect().top;
        }""")
        page.keyboard.press("Enter")
