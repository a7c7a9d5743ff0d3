"""The page in other languages than English."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, OTTO, go_to
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser


def test_a_browser_that_prefers_german_gets_the_page_in_german(new_context):
    page = new_context(locale="de-DE").new_page()
    go_to(page)
    expect(page.locator("html")).to_have_attribute("lang", "de")
    expect(page.locator("#new-session span")).to_have_text("Neue Sitzung")


def test_another_language_is_chosen_in_the_appearance_dialog(page, new_context):
    go_to(page)
    expect(page.locator("#new-session span")).to_have_text("New session")
    page.fill("#text", "half a sentence")
    page.click("[aria-label=Menu]")
    page.click(".menu >> text=Appearance")
    expect(page.locator("dialog [name=language]:checked")).to_have_value("")
    expect(page.get_by_role("button", name="Load the page again in this language")).to_have_count(0)
    page.check("dialog [value=ja]")
    page.get_by_role("button", name="Load the page again in this language").click()
    expect(page.locator("#new-session span")).to_have_text("新しいセッション")
    expect(page.locator("#text")).to_have_value("half a sentence")


def test_places_and_plurals_are_filled_in(new_context):
    page = new_context(locale="de-DE").new_page()
    go_to(page)
    found = page.evaluate("""async () => {
      const src = document.querySelector("script[type=module]").src;
      const { t, tn, tParts } = (await import(src)).modules["base/language.js"];
      const said = tParts("Open {it} or {other}.", { it: document.createElement("b"), other: "x" });
      return [t("{a} and {b} and {c}", { a: "{b}", b: 1.5 }),
              tn("one", "{count} of {what}", 1234, { what: "x" }),
              tn("one", "{count}", 1), said.map((one) => one.nodeName || one)];
    }""")
    assert found == ["{b} and 1,5 and {c}", "1.234 of x", "one", ["Open ", "B", " or ", "x", "."]]


@pytest.mark.parametrize(("locale", "gap"), [("en-GB", " "), ("fr-FR", " "), ("ja-JP", ""), ("zh-CN", "")])
def test_sentences_follow_each_other_as_their_language_sets_them(new_context, locale, gap):
    """After a full-width stop no space stands."""
    page = new_context(locale=locale).new_page()
    go_to(page)
    stop = "." if gap else "。"
    two = re.compile(rf"[^{stop}]+[{stop}]{gap}[^ {stop}][^{stop}]*[{stop}]")
    expect(page.locator("#welcome > p").first).to_have_text(two)


FROM_RIGHT = """
    new MutationObserver(() => { if (document.documentElement) document.documentElement.dir = "rtl"; })
      .observe(document, { childList: true });"""
OUTSIDE = """() => [...document.querySelectorAll("aside:not([inert]) *, #main > *, dialog *, .menu *")]
  .filter((one) => {
    const { left, right, width } = one.getBoundingClientRect();
    const hides = one.closest("[inert], .visually-hidden, .chip-row, pre, .table-scroll, [hidden]");
    return width > 2 && !hides && (left < -1 || right > innerWidth + 1);
  }).map((one) => one.outerHTML.slice(0, 90))"""


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_mirrored_where_it_is_written_from_right_to_left(new_context, site, width):
    """No language of the page is; so the direction of the page is set to it."""
    context = new_context(viewport={"width": width, "height": 800}, first_visit=width == 360)
    context.add_init_script(FROM_RIGHT)
    page = context.new_page()
    go_to(page, site.import_path(["Hello", "Hello to you"], MARLOW, OTTO))

    def box(selector):
        return page.locator(selector).first.bounding_box()

    assert page.evaluate("document.documentElement.dir") == "rtl"
    assert box(".send")["x"] < box("#composer-row [aria-haspopup=menu]")["x"]
    assert box(".message .monogram")["x"] > box(".message .name")["x"]
    if width == 1280:
        assert box("#left")["x"] > box("#main")["x"] > box("#right")["x"] == 0
        assert box("#chips .chip")["x"] > box("#chips .chip-add")["x"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    assert_accessible(page, "from right to left")
    if width == 360:
        page.click("#open-left")
        assert box("#left")["x"] + box("#left")["width"] == 360
    page.locator("#brand-buttons button").first.click()
    menu, button = box(".menu"), box("#brand-buttons button")
    assert menu["x"] >= 8 and menu["x"] + menu["width"] <= max(button["x"] + button["width"], width - 8) + 1
    page.click(".menu >> text=Appearance")
    expect(page.locator("dialog h2")).to_be_visible()
    assert box("dialog h2")["x"] > box("dialog [aria-label=Close]")["x"]
    assert page.evaluate(OUTSIDE) == []
    assert_accessible(page, "a dialog from right to left")
