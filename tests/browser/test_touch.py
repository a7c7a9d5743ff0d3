"""The page under fingers: sizes of what is touched, and nothing that lies under something else."""

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, wait_until_quiet

pytestmark = pytest.mark.browser

TOUCHED = "button, a[href], input, textarea, select, summary, [role=tab]"
SMALL = """(selector) => [...document.querySelectorAll(selector)].flatMap((one) => {
  const target = one.closest("label") || one;
  const { width, height, left, right, top, bottom } = target.getBoundingClientRect();
  const seen = one.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && right > 0 && left < innerWidth && bottom > 0 && top < innerHeight && !one.closest("[inert]");
  const small = width < 44 || height < 44;
  const inText = one.matches(".md a, .skip, .visually-hidden:not(label *)");
  return seen && small && !inText
    ? [`${one.className || one.id || one.tagName} ${one.textContent.slice(0, 20)}: ${width}x${height}`] : [];
})"""


@pytest.fixture
def phone(new_context):
    options = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}
    return new_context(**options).new_page()


def test_everything_that_is_touched_is_at_least_44_pixels(phone, site):
    session_id = site.session(MARLOW, OTTO)
    go_to(phone)
    assert phone.evaluate(SMALL, TOUCHED) == []
    go_to(phone, session_id)
    site.model.scripts.append("Some *words*.\n\n```python\nprint(1)\n```\n")
    say_by_button(phone, "Hello")
    phone.tap(".from-bot >> text=Edit")
    assert phone.evaluate(SMALL, TOUCHED) == []
    phone.tap(".edit >> text=Cancel")
    phone.tap("#open-left")
    assert phone.evaluate(SMALL, TOUCHED) == []
    phone.tap("#left [aria-label='Hide sessions']")
    phone.tap("#open-right")
    for tab in ("sampling", "session", "bot", "model"):
        phone.tap(f"#tab-{tab}")
        assert phone.evaluate(SMALL, TOUCHED) == [], tab
    phone.tap("#tab-bot")
    phone.tap("[aria-label='Edit Marlow']")
    assert phone.evaluate(SMALL, TOUCHED) == []


def say_by_button(page, text):
    page.fill("#text", text)
    page.tap(".send")
    expect(page.locator("#text")).to_have_value("")
    wait_until_quiet(page)


def test_a_title_from_right_to_left_does_not_lie_under_the_menus_button(phone, site):
    session_id = site.session(MARLOW, title="שיחה ארוכה מאוד על הים ועל המגדלור שלנו")
    go_to(phone, session_id)
    phone.tap("#open-left")
    row = phone.locator(f".session:has([href='./#{session_id}'])")
    title, more = row.locator(".session-title").bounding_box(), row.locator(".session-more").bounding_box()
    assert title["x"] + title["width"] <= more["x"]
    assert more["width"] >= 44


def test_with_eight_bots_the_button_for_another_is_still_there(page, phone, site):
    names = ("Ann", "Ben", "Cleo", "Dora", "Emil")
    more = [site.api("POST", "/api/bots", {"name": name})["bot"]["id"] for name in names]
    session_id = site.session(MARLOW, OTTO, LIN, *more, title="A rather long title of a room with many bots")
    go_to(page, session_id)
    head, add = page.locator("#head").bounding_box(), page.locator(".chip-add").bounding_box()
    assert add["x"] + add["width"] <= head["x"] + head["width"]
    assert add["width"] > 40
    go_to(phone, session_id)
    phone.tap(".chip-stack")
    expect(phone.locator("#panel-bot")).to_contain_text("Emil")
    for bot in more:
        site.api("DELETE", f"/api/bots/{bot}", {})


def test_a_file_can_be_attached_on_a_telephone(phone, site):
    go_to(phone, site.session())
    phone.tap("#composer [aria-label='What helps to write']")
    with phone.expect_file_chooser() as chosen:
        phone.tap(".menu >> text=Attach files")
    chosen.value.set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    expect(phone.locator("#composer .attached-name")).to_have_text(["a.txt"])
    assert phone.evaluate(SMALL, TOUCHED) == []
    say_by_button(phone, "and the row still fits")
    row = phone.locator("#composer-row")
    assert row.evaluate("one => one.scrollWidth <= one.clientWidth")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
