"""The page in other languages than English."""

import pytest
from playwright.sync_api import expect

from .conftest import go_to

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
