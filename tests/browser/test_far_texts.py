"""A long session opens with its last texts; the others come later, and nobody can tell that they were not
there: scrolling, find, the timeline, printing, edits and other tabs."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import go_to, say, wait_for_held, wait_until_quiet

pytestmark = pytest.mark.browser

COUNT = 400
TEXTS = [f"Question {n}, short." if n % 2 == 0 else f"Answer {n}. " + "It goes on for a while. " * 150
         for n in range(COUNT)]
TEXTS[3] += "A pelican was seen there."
PART = re.compile(r"/messages\?before=")


class Parts:
    """Requests for texts, held back until they are let go."""

    def __init__(self, page):
        self.page, self.held, self.asked, self.is_open = page, [], 0, False
        page.route(PART, self._take)

    def _take(self, route):
        self.asked += 1
        if self.is_open or route.request.resource_type == "xhr":
            route.continue_()
        else:
            self.held.append(route)

    def wait(self):
        """Until one is held."""
        wait_for_held(self.page, self.held)

    def let_go(self):
        self.is_open = True
        while self.held:
            self.held.pop().continue_()


@pytest.fixture
def parts(page):
    return Parts(page)


@pytest.fixture
def long(page, parts, site):
    """A long session that is open, of which the first texts are held back; its id."""
    session_id = site.import_path(TEXTS)
    go_to(page, session_id)
    expect(page.locator(".message").last).to_contain_text(f"Answer {COUNT - 1}.")
    return session_id


def shown(page):
    return page.eval_on_selector_all("#messages .message", "all => all.map(one => one.dataset.id)")


def scroll_up(page):
    page.evaluate("""() => new Promise((drawn) => {
      const one = document.querySelector("#transcript");
      one.dispatchEvent(new WheelEvent("wheel", { deltaY: -1 }));
      one.scrollTop = 0;
      requestAnimationFrame(() => requestAnimationFrame(drawn));
    })""")


def test_scrolling_up_ends_where_texts_are_missing_and_goes_on_when_they_come(page, parts, long):
    for _ in range(30):
        scroll_up(page)
    stopped = shown(page)
    assert 0 < int(stopped[0], 16) < COUNT - 5
    assert "Loading" not in page.inner_text("#messages")
    parts.wait()
    parts.let_go()
    seen = set(stopped)
    while f"{0:016x}" not in seen:
        scroll_up(page)
        seen.update(shown(page))
    assert len(seen) >= int(stopped[0], 16)
    expect(page.locator(".message").first).to_contain_text("Question 0, short.")


def test_the_texts_come_by_themselves_one_part_after_the_other(page, parts, long):
    parts.wait()
    parts.let_go()
    page.keyboard.press("Control+Home")
    expect(page.locator(".message").first).to_contain_text("Question 0, short.")
    asked = parts.asked
    assert 2 < asked < 10
    page.keyboard.press("Control+End")
    page.wait_for_timeout(300)
    assert parts.asked == asked


def test_find_says_that_it_waits_and_then_finds_what_came(page, parts, long):
    page.keyboard.press("Control+f")
    expect(page.locator(".find input")).to_be_focused()
    page.keyboard.type("pelican")
    count = page.locator(".find [role=status]")
    expect(count).to_have_text("Loading…")
    parts.let_go()
    expect(count).to_have_text("1 of 1")
    expect(page.locator(".message", has_text="A pelican was seen")).to_be_in_viewport()
    page.locator(".find input").fill("a heron")
    expect(count).to_have_text("Not found")


def test_the_timeline_waits_for_them(page, parts, long):
    page.keyboard.press("Control+.")
    parts.wait()
    assert not page.locator("dialog.timeline").count()
    parts.let_go()
    expect(page.locator("dialog.timeline")).to_be_visible()
    page.keyboard.press("Control+f")
    expect(page.locator(".map-search input")).to_be_focused()
    page.keyboard.type("pelican")
    expect(page.locator(".timeline .find-count")).to_have_text("1 of 1")


def test_all_of_it_is_printed(page, parts, long):
    expect(page.locator("#right [role=tab]")).to_have_count(4)  # what printing takes came with them
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = page.locator("#print article")
    assert printed.count() == COUNT
    assert "pelican" in printed.nth(3).text_content()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    parts.let_go()


def test_an_edit_of_a_message_that_is_far_keeps_its_words(page, parts, long, site):
    """The editor was open when the page was left; nothing but its draft may ever stand in it."""
    far = f"{4:016x}"
    page.evaluate("""([session, id]) => localStorage.setItem(`parlor.edits.${session}`,
        JSON.stringify({ [id]: { text: "My words.", open: true } }))""", [long, far])
    page.reload()
    expect(page.locator(".message").last).to_contain_text(f"Answer {COUNT - 1}.")
    parts.let_go()
    page.keyboard.press("Control+Home")
    expect(page.locator(f"[data-id='{far}'] textarea")).to_have_value("My words.")
    page.click(f"[data-id='{far}'] >> text=Cancel")
    page.hover(f"[data-id='{far}']")
    page.click(f"[data-id='{far}'] .actions >> text=Edit")
    expect(page.locator(f"[data-id='{far}'] textarea")).to_have_value(TEXTS[4])


def test_what_another_tab_changes_meanwhile_is_what_is_shown(page, parts, long, site):
    parts.wait()
    session = site.read(long)
    path = f"/api/sessions/{long}"
    for number, text in ((2, "Corrected."), (6, "For a moment.")):
        site.api("PATCH", f"{path}/messages/{number:016x}",
                 {"revision": site.read(long)["revision"], "text": text})
    site.api("POST", f"{path}/undo", {"revision": site.read(long)["revision"]})
    site.api("DELETE", f"{path}/messages/{0:016x}", {"revision": site.read(long)["revision"]})
    parts.let_go()
    page.keyboard.press("Control+Home")
    first = page.locator(".message").first
    expect(first).to_contain_text("Answer 1.")
    expect(page.locator(f"[data-id='{2:016x}'] .md")).to_have_text("Corrected.")
    expect(page.locator(f"[data-id='{6:016x}'] .md")).to_have_text(TEXTS[6])
    assert session["messages"][6]["text"] == TEXTS[6]


def test_what_is_said_and_undone_before_they_come(page, parts, long, site):
    say(page, "Are you there?")
    wait_until_quiet(page)
    expect(page.locator(".message")).not_to_have_count(0)
    assert site.read(long)["messages"][COUNT]["text"] == "Are you there?"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.locator(".message").last).to_contain_text(f"Answer {COUNT - 1}.")
    parts.let_go()
    page.keyboard.press("Control+Home")
    expect(page.locator(".message").first).to_contain_text("Question 0, short.")


def test_another_version_far_above_is_loaded_and_nothing_is_said_of_it_before(page, parts, long, site):
    """The session is shown as it was before a branch at its second message, by another tab."""
    revision = site.read(long)["revision"]
    made = site.api("POST", f"/api/sessions/{long}/messages", {
        "revision": revision, "text": "A branch.", "parent": f"{1:016x}", "reply": False})["session"]
    expect(page.locator(".message").last).to_contain_text("A branch.")
    above = page.locator(f"[data-id='{1:016x}']")
    parts.wait()
    expect(above).to_have_count(0)
    parts.let_go()
    expect(above).to_contain_text("Answer 1.")
    expect(page.locator(".message")).to_have_count(3)
    assert made["leaf"] == page.locator(".message").last.get_attribute("data-id")


def test_the_end_of_a_branch_that_is_far_shows_that_it_comes(page, parts, long, site):
    parts.wait()
    revision = site.read(long)["revision"]
    site.api("DELETE", f"/api/sessions/{long}/messages/{COUNT - 1:016x}", {"revision": revision})
    session = site.read(long)
    site.api("POST", f"/api/sessions/{long}/messages", {
        "revision": session["revision"], "text": "A branch.", "parent": f"{1:016x}", "reply": False})
    expect(page.locator(".message").last).to_contain_text("A branch.")
    page.reload()  # now only the branch is near
    expect(page.locator(".message").last).to_contain_text("A branch.")
    site.api("PATCH", f"/api/sessions/{long}", {
        "revision": site.read(long)["revision"], "leaf": f"{COUNT - 2:016x}"})
    last = page.locator(".message").last
    expect(last).to_have_attribute("data-id", f"{COUNT - 2:016x}")
    expect(last.locator(".note")).to_have_text("Loading…")
    expect(last.locator(".actions")).to_have_count(0)
    parts.let_go()
    expect(last.locator(".md")).to_have_text(TEXTS[COUNT - 2])
    expect(last.locator(".actions")).to_have_count(1)


def test_a_lost_part_is_asked_for_again(page, parts, long, watch):
    watch.expected = ("Failed to load resource",)
    parts.wait()
    for route in parts.held:
        route.abort()
    parts.held.clear()
    parts.let_go()
    page.keyboard.press("Control+Home")
    expect(page.locator(".message").first).to_contain_text("Question 0, short.")


def test_a_part_that_comes_late_is_not_taken_for_the_text_of_a_later_revision(page, site, watch):
    """Between question and answer so much is changed elsewhere that the page gets the session anew."""
    session_id = site.import_path(TEXTS)
    path = f"/api/sessions/{session_id}"
    watch.expected = ("Failed to load resource",)
    late, deaf = [], [False]
    page.route(PART, lambda route: late.append((route, route.fetch())) if not late else route.continue_())
    page.route(re.compile("/api/changes"), lambda route: route.abort() if deaf[0] else route.continue_())
    go_to(page, session_id)
    wait_for_held(page, late)
    answer = late[0][1].json()
    changed = answer["messages"][0]
    deaf[0] = True
    site.api("PATCH", f"{path}/messages/{changed['id']}",
             {"revision": site.read(session_id)["revision"], "text": "Corrected."})
    for number in range(20):
        site.api("PATCH", path, {"revision": site.read(session_id)["revision"], "title": f"Title {number}"})
    deaf[0] = False
    expect(page.locator("#title")).to_contain_text("Title 19")
    late[0][0].fulfill(response=late[0][1])
    page.keyboard.press("Control+f")
    expect(page.locator(".find input")).to_be_focused()
    page.keyboard.type("Corrected.")
    expect(page.locator(".find [role=status]")).to_have_text("1 of 1")
    expect(page.locator(f"[data-id='{changed['id']}'] .md")).to_have_text("Corrected.")
