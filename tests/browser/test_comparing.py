"""Side by side in the page: asked, written at once, voted by click and key, blind, kept through a reload."""

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, wait_until_quiet
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser

LABELS = "all => all.map((one) => one.selectedOptions[0].label)"
FIRST, SECOND = "The first of them says this.", "The second one says that."


def open_setup(page, narrow=False):
    if narrow:
        page.click("#open-left")
    page.click("#brand-buttons [aria-label=Menu]")
    page.click(".menu-item >> text=Side by side")
    expect(page.locator(".compare > *").first).to_be_visible()
    return page.locator("dialog")


def vote_buttons(dialog):
    return dialog.locator(".compare-vote:visible")


def test_bots_answer_side_by_side_and_the_chosen_one_goes_on(page, site):
    session = site.session(MARLOW, OTTO)
    go_to(page, session)
    page.fill("#text", "How is the sea?")
    dialog = open_setup(page)
    assert dialog.locator("select:visible").evaluate_all(LABELS) == [
        "Marlow", "As in this session", "Otto", "As in this session"]
    expect(dialog.locator("textarea")).to_have_value("How is the sea?")
    dialog.locator("text=Hide who is who").click()
    dialog.locator("select:visible >> nth=3").select_option("Greedy")
    dialog.get_by_label("Seed").first.fill("4679903158794976")  # as one is that was drawn
    site.model.hold(after=4, each=True)
    dialog.locator("text=Ask them").click()
    expect(dialog.locator(".compare-column .md").nth(0)).to_contain_text("You")
    expect(dialog.locator(".compare-column .md").nth(1)).to_contain_text("You")
    expect(vote_buttons(dialog)).to_have_count(0)
    expect(dialog.locator(".dialog-foot button:visible")).to_have_text(["Stop all"])
    assert page.input_value("#text") == ""
    site.model.release()
    expect(vote_buttons(dialog)).to_have_count(2)
    expect(dialog.locator("h3").first).to_have_text("Marlow · fake-1M")
    vote_buttons(dialog).nth(1).click()
    expect(dialog.locator(".compare-column.is-winner h3")).to_have_text("Otto · Greedy · fake-1M")
    expect(dialog.locator(".compare-column").first).to_contain_text("seed 4679903158794976")
    expect(dialog.locator(".compare-tally dd")).to_have_text(["1 of 1", "0 of 1"])
    dialog.get_by_role("button", name="Go on").click()
    expect(page.locator(".is-last .name")).to_have_text("Otto")
    expect(page.locator(".is-last .note")).to_have_text("chosen")
    page.locator(".is-last .versions button:enabled").click()
    expect(page.locator(".is-last .note")).to_have_text("not chosen")
    kept = site.read(session)
    assert len(kept["messages"]) == 3 and kept["comparisons"][0]["winner"]


def test_a_blind_vote_by_key_tells_nothing_before_it(new_context, site):
    page = new_context(viewport={"width": 360, "height": 640}).new_page()
    go_to(page, site.session(MARLOW, OTTO, LIN))
    dialog = open_setup(page, narrow=True)
    dialog.locator("textarea").fill("Who are you?")
    assert page.input_value("#text") == "Who are you?"  # kept as the draft of the chat
    dialog.locator("text=Add a column").click()
    assert_accessible(page, "the form of a comparison")
    site.model.scripts += [FIRST, SECOND, "A third."]
    dialog.locator("text=Ask them").click()
    expect(vote_buttons(dialog)).to_have_count(3)
    said = dialog.locator(".compare-columns").inner_text()
    assert not any(name in said for name in ("Marlow", "Otto", "Lin", "tokens/s", "fake-1M"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert dialog.locator(".compare-columns").evaluate("row => row.scrollWidth > row.clientWidth")
    assert_accessible(page, "columns before the vote")
    page.keyboard.press("4")
    expect(vote_buttons(dialog)).to_have_count(3)
    page.keyboard.press("3")
    expect(dialog.locator(".compare-column >> nth=2")).to_have_class("compare-column is-winner")
    expect(dialog.locator(".compare-column >> nth=2")).to_be_in_viewport()
    names = dialog.locator("h3.compare-name").all_inner_texts()
    assert sorted(name.split(" · ")[0] for name in names) == ["Lin", "Marlow", "Otto"]
    expect(dialog.get_by_role("button", name="Go on")).to_be_focused()
    assert_accessible(page, "columns after the vote")


def test_a_reload_in_mid_stream_loses_nothing_and_the_vote_is_there_again(page, site):
    session = site.session()
    go_to(page, session)
    dialog = open_setup(page)
    dialog.locator("textarea").fill("Tell me.")
    site.model.scripts += [FIRST, SECOND]
    site.model.hold(after=2, each=True)
    dialog.locator("text=Ask them").click()
    expect(dialog.locator(".compare-column .md").first).not_to_be_empty()
    page.reload()
    expect(page.locator(".md.writing")).to_have_count(1)
    dialog = open_setup(page)
    expect(dialog.locator(".compare-column")).to_have_count(2)
    site.model.release()
    expect(vote_buttons(dialog)).to_have_count(2)
    texts = dialog.locator(".compare-column .md").all_inner_texts()
    assert sorted(texts) == [FIRST, SECOND]
    page.keyboard.press("Escape")
    wait_until_quiet(page)
    expect(page.locator(".is-last .note")).to_have_text("side by side")
    page.click(".is-last [aria-label=More]")
    page.click(".menu-item >> text=Side by side")
    page.keyboard.press("1")
    expect(page.locator("dialog .is-winner .md")).to_have_text(texts[0])
    page.click("text=Compare once more")
    expect(page.locator("dialog .compare-fields")).to_have_count(2)


def test_stopping_ends_all_columns_and_an_error_stays_in_its_own(page, site):
    go_to(page, site.session())
    dialog = open_setup(page)
    dialog.locator("textarea").fill("something long")
    site.model.hold(after=3, each=True)
    dialog.locator("text=Ask them").click()
    expect(dialog.locator(".compare-column .md").first).to_contain_text("word0")
    dialog.locator("text=Stop all").click()
    site.model.release()
    expect(vote_buttons(dialog)).to_have_count(2)
    page.keyboard.press("1")
    dialog.locator("text=Compare once more").click()
    dialog.locator("textarea").fill("fail")
    dialog.locator("text=Ask them").click()
    expect(dialog.locator(".compare-column .wrong")).to_have_text(["The engine ran out of pages."] * 2)
    expect(vote_buttons(dialog)).to_have_count(2)


def test_a_column_is_stopped_alone_by_its_own_button(page, site):
    go_to(page, site.session())
    dialog = open_setup(page)
    dialog.locator("textarea").fill("something long")
    site.model.scripts += ["word " * 40] * 2
    site.model.hold(after=3, each=True)
    dialog.locator("text=Ask them").click()
    for column in (0, 1):
        expect(dialog.locator(".compare-column .md").nth(column)).to_contain_text("word")
    with page.expect_response("**/api/replies/*/stop"):
        dialog.get_by_role("button", name="Stop 2").click()
    expect(dialog.get_by_role("button", name="Stop 2")).to_be_hidden()
    expect(dialog.locator(".compare-column").nth(1)).to_be_focused()
    site.model.release()
    expect(vote_buttons(dialog)).to_have_count(2)
    words = [len(text.split()) for text in dialog.locator(".compare-column .md").all_inner_texts()]
    assert words[0] == 40 and words[1] < 40


def test_columns_come_by_one_connection_and_leave_room_for_other_tabs(page, context, site):
    """Chromium has six a server, for all tabs: three that show four columns each can still ask."""
    session = site.session()
    go_to(page, session)
    tabs = [page, context.new_page(), context.new_page()]
    for tab in tabs[1:]:
        go_to(tab, session)
    streams = {tab: [] for tab in tabs}
    for tab in tabs:
        tab.on("request", lambda sent, tab=tab: "/events?" in sent.url and streams[tab].append(sent.url))
    dialog = open_setup(page)
    dialog.locator("textarea").fill("something long")
    for _ in range(2):
        dialog.locator("text=Add a column").click()
    site.model.hold(after=3, each=True)
    dialog.locator("text=Ask them").click()
    for column in range(4):
        expect(dialog.locator(".compare-column .md").nth(column)).to_contain_text("word0")
    for tab in tabs[1:]:
        expect(tab.locator(".md.writing")).to_contain_text("word0")
        assert tab.evaluate("fetch('/api/status').then((answer) => answer.ok)")
    assert [len(urls) for urls in streams.values()] == [1, 1, 1]
    tabs[1].reload()
    expect(tabs[1].locator(".md.writing")).to_contain_text("word0")
    site.model.release()
    expect(vote_buttons(dialog)).to_have_count(4)
    for tab in tabs:
        expect(tab.locator(".md.writing")).to_have_count(0)


def test_what_is_refused_is_said_in_the_window_and_what_was_typed_stays(page, site, watch):
    watch.expected = ("400",)
    go_to(page, site.session())
    dialog = open_setup(page)
    dialog.locator("text=Ask them").click()
    expect(dialog.locator("[role=alert]")).to_have_text("Write what they are to answer.")
    dialog.locator("textarea").fill("Hello")
    dialog.locator("input.text-input").first.evaluate("input => input.value = '9'.repeat(16)")
    dialog.locator("textarea").press("Enter")
    expect(dialog.locator("[role=alert]")).to_contain_text("seed is not a whole number")
    page.keyboard.press("Escape")
    expect(page.locator("#text")).to_have_value("Hello")
