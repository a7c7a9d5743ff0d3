"""While nobody looks at the page: what it does then, and how it tells of what came."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import say, texts, wait_until_quiet

pytestmark = pytest.mark.browser

ANOTHER_TAB = """
  let away = false;
  Object.defineProperty(Document.prototype, "hidden", { get: () => away });
  window.look = (elsewhere) => {
    away = elsewhere;
    document.dispatchEvent(new Event("visibilitychange"));
  };
  window.told = [];
  window.answer = "denied";
  window.Notification = class extends EventTarget {
    static permission = "default";
    static async requestPermission() {
      return (this.permission = window.answer);
    }
    constructor(title, { body }) {
      super();
      if (window.refuses) throw new TypeError("Illegal constructor");
      window.told.push(`${title}: ${body}`);
    }
  };
"""


def test_a_reply_that_comes_meanwhile_marks_the_tab_and_notifies_who_wants_it(page, open_session, site):
    page.add_init_script(ANOTHER_TAB)
    session_id = open_session(title="Lamps")
    page.click("[aria-label=Menu]")
    page.click(".menu >> text=Appearance")
    page.click("dialog >> text=Notifies me, too")
    expect(page.locator("dialog [role=alert]")).to_contain_text("does not allow")
    expect(page.get_by_role("radio", name="Marks the tab's title")).to_be_checked()
    page.evaluate("[window.answer, window.refuses] = ['granted', true]")
    page.click("dialog >> text=Notifies me, too")
    expect(page.locator("dialog [role=alert]")).to_have_text("This browser lets no page notify you.")
    expect(page.get_by_role("radio", name="Marks the tab's title")).to_be_checked()
    page.evaluate("window.refuses = false")
    page.click("dialog >> text=Notifies me, too")
    expect(page.locator("dialog [role=alert]")).to_be_hidden()
    page.keyboard.press("Escape")
    site.model.hold(after=3)
    say(page, "a long one")
    expect(page.locator(".md.writing")).to_contain_text("word")
    page.evaluate("look(true)")
    assert page.title() == "Lamps · Parlor"
    site.model.release()
    expect(page).to_have_title("● Lamps · Parlor")
    assert page.evaluate("told") == ["Parlor: You are told of a reply like this.",
                                     "Lamps: There is a new reply."]
    page.evaluate("look(false)")
    expect(page).to_have_title(re.compile("^Lamps"))
    wait_until_quiet(page)
    assert texts(page)[-1] == site.read(session_id)["messages"][-1]["text"]
