"""The page under fingers: sizes of what is touched, and nothing that lies under something else."""

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, wait_until_quiet

pytestmark = pytest.mark.browser

TOUCHED = "button, a[href], input, textarea, select, summary, [role=tab]"
TOUCHED_IN_DIALOGS = f"{TOUCHED}, [role=button], [role=treeitem], [role=option], [role=checkbox]"
SMALL = """(selector) => [...document.querySelectorAll(selector)].flatMap((one) => {
  const target = one.closest("label") || one;
  const { width, height, left, right, top, bottom } = target.getBoundingClientRect();
  const inView = right > 0 && left < innerWidth && bottom > 0 && top < innerHeight;
  const seen = one.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && (inView || one.closest("dialog, .menu")) && !one.closest("[inert]");
  const small = width < 43.99 || height < 43.99;
  const inText = one.matches(".md a, .lens-token, .replay-token, .skip, .visually-hidden:not(label *)");
  const letters = parseFloat(getComputedStyle(one).fontSize);
  const zoomedInto = letters < 16 && one.matches(
    "textarea, select, input:not([type=checkbox], [type=radio], [type=range], [type=file])");
  return seen && !inText && (small || zoomedInto)
    ? [`${one.className || one.id || one.tagName} ${one.textContent.slice(0, 20)}: ${width}x${height}`
       + `, letters of ${letters}px`]
    : [];
})"""
"""What is too small: for a finger, or so that a telephone zooms in when it is typed into."""


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
    phone.keyboard.press("Control+f")
    expect(phone.locator(".find input")).to_be_focused()
    assert phone.evaluate(SMALL, TOUCHED) == []
    phone.keyboard.press("Escape")
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


def in_menu(page, entry):
    page.tap("#open-left")
    page.tap("#brand-buttons [aria-label=Menu]")
    page.tap(f".menu-item >> text={entry}")


def test_what_the_menu_finds_in_the_chat_does_not_stay_under_the_drawer(phone, site):
    """The drawer in which the menu is covers the chat and makes it inert."""
    go_to(phone, site.import_path([f"Word {number}" for number in range(100)]))
    in_menu(phone, "To the beginning of the chat")
    expect(phone.locator("#backdrop")).to_be_hidden()
    expect(phone.locator(".message").first).to_be_in_viewport()
    in_menu(phone, "Find in this chat")
    expect(phone.locator(".find input")).to_be_focused()
    phone.keyboard.type("Word 97")
    expect(phone.locator(".message", has_text="Word 97")).to_be_in_viewport()


def test_what_the_menu_undoes_is_seen_and_its_lists_bring_up_no_keyboard(phone, site):
    session_id = site.session(title="Before")
    revision = site.read(session_id)["revision"]
    site.api("PATCH", f"/api/sessions/{session_id}", {"revision": revision, "title": "After"})
    go_to(phone, session_id)
    for entry, title in (("Undo: title", "Before"), ("Redo: title", "After")):
        in_menu(phone, entry)
        expect(phone.locator("#backdrop")).to_be_hidden()
        expect(phone.locator("#title")).to_have_text(title)
    in_menu(phone, "Models")
    dialog = phone.locator("dialog")
    expect(dialog.get_by_label("Search models")).to_be_visible()
    expect(dialog.get_by_label("Close")).to_be_focused()


def test_what_the_line_of_the_model_says_and_its_button_stand_in_one_row(phone, site):
    session_id = site.import_path(["Hello", "Good evening."])
    phone.route("**/api/changes**", lambda route: None)  # they would say that nothing is downloaded
    download = {"phase": "fetching", "id": "", "name": "", "problem": "", "source": "owner/name",
                "file": "A-rather-long-name-of-a-model-Q4_K_M.gguf", "done_bytes": 8e8, "total_bytes": 2e9}

    def downloading(route):
        status = site.api("GET", "/api/status")
        route.fulfill(json={**status, "slot": {**status["slot"], "download": download}})

    phone.route("**/api/status", downloading)
    go_to(phone, session_id)
    expect(phone.locator("#model-line")).to_contain_text("800 MB of 2.0 GB")
    line, meter, text, button = (phone.locator(f"#model-line{part}").bounding_box() for part in (
        "", " .meter", " .model-line-text", " button"))
    assert meter["width"] >= line["width"] - 4 and meter["y"] + meter["height"] <= text["y"]
    assert text["x"] + text["width"] <= button["x"] and button["x"] + button["width"] <= 360
    assert button["height"] >= 44 and line["height"] <= 80


@pytest.mark.parametrize(("width", "height"), [(360, 300), (740, 160)])
def test_a_keyboard_leaves_what_is_typed_and_send_in_sight(phone, site, width, height):
    """Upright and on its side: as browsers do that make the window smaller for it."""
    go_to(phone, site.import_path(["Hello " * 40, "And more. " * 40]))
    phone.tap("#text")
    phone.keyboard.type("One line.\nAnother one.\nA third.")
    phone.set_viewport_size({"width": width, "height": height})
    file = {"name": "a.txt", "mimeType": "", "buffer": b"a"}
    phone.set_input_files("#composer input[type=file]", [file] * 3)
    expect(phone.locator(".attached-size")).to_have_count(3)
    expect(phone.locator(".send")).to_be_in_viewport(ratio=1)
    for button in phone.locator(".attached button").all()[::-1]:
        button.tap()
    expect(phone.locator("#text")).to_be_in_viewport(ratio=1)
    expect(phone.locator(".send")).to_be_in_viewport(ratio=1)
    transcript = phone.locator("#transcript").bounding_box()
    assert transcript["height"] >= 24 and transcript["y"] >= 0
    phone.set_viewport_size({"width": 360, "height": 740})
    phone.tap(".title-button")
    phone.set_viewport_size({"width": width, "height": height})
    expect(phone.locator("dialog input")).to_be_focused()
    expect(phone.locator("dialog input")).to_be_in_viewport()
    phone.locator("dialog >> text=Rename >> nth=-1").tap()
    expect(phone.locator("dialog")).to_have_count(0)


def test_a_keyboard_that_lies_over_the_page_leaves_the_message_box_and_dialogs_above_it(phone, site):
    """As in Safari, where only the visual viewport gets smaller."""
    go_to(phone, site.session())
    phone.evaluate("""() => {
      let height = 320;
      Object.defineProperty(visualViewport, "height", { get: () => height });
      const tell = () => visualViewport.dispatchEvent(new Event("resize"));
      tell();
      window.keyboardGoes = () => { height = innerHeight; tell(); };
    }""")
    box = phone.locator(".send").bounding_box()
    assert box["y"] > 200 and box["y"] + box["height"] <= 320
    phone.tap(".title-button")
    dialog = phone.locator("dialog").bounding_box()
    assert dialog["y"] >= 0 and dialog["y"] + dialog["height"] <= 320
    phone.keyboard.press("Escape")
    phone.evaluate("keyboardGoes()")
    assert phone.locator(".send").bounding_box()["y"] > 600


def test_what_a_search_finds_is_seen_above_the_keyboard(phone, site):
    for number in range(4):
        site.session(MARLOW, title=f"A walk on the pier {number}")
    go_to(phone, site.session())
    phone.tap("#open-left")
    phone.set_viewport_size({"width": 360, "height": 300})
    phone.tap("#search")
    phone.keyboard.type("pier")
    expect(phone.locator(".session", has_text="walk on the pier").nth(2)).to_be_in_viewport(ratio=1)
    phone.keyboard.press("Escape")
    expect(phone.locator("#search")).to_have_value("")
    expect(phone.locator("#backdrop")).to_be_visible()
    phone.keyboard.press("Escape")
    expect(phone.locator("#backdrop")).to_be_hidden()


def test_a_menu_stays_when_it_takes_the_focus_and_the_keyboard_goes(phone, site):
    go_to(phone, site.session())
    phone.tap("#text")
    phone.set_viewport_size({"width": 360, "height": 400})
    phone.tap("#composer [aria-label='What helps to write']")
    menu, button = phone.locator("[role=menu]"), phone.locator("#composer [aria-label='What helps to write']")
    expect(menu.locator("button").first).to_be_focused()
    phone.set_viewport_size({"width": 360, "height": 740})
    below = "() => document.querySelector('[role=menu]').getBoundingClientRect().bottom > 400"
    phone.wait_for_function(below)
    gap = button.bounding_box()["y"] - menu.bounding_box()["y"] - menu.bounding_box()["height"]
    assert gap == pytest.approx(6, abs=1)


def test_no_keyboard_comes_up_unasked(phone, site):
    other = site.session(MARLOW, title="Another one")
    go_to(phone, site.session())
    box = phone.locator("#text")
    expect(box).not_to_be_focused()
    phone.tap("#open-left")
    phone.tap(f".session:has([href='./#{other}']) .session-link")
    expect(phone.locator("#title")).to_have_text("Another one")
    expect(phone.locator("#transcript")).to_be_focused()
    say_by_button(phone, "Hello")
    expect(box).not_to_be_focused()
    in_menu(phone, "You")
    expect(phone.locator("dialog").get_by_label("Close")).to_be_focused()  # there is much to read first
    phone.keyboard.press("Escape")
    phone.keyboard.press("Escape")
    in_menu(phone, "Side by side")
    expect(phone.locator("dialog textarea")).to_be_visible()
    expect(phone.locator("dialog textarea")).not_to_be_focused()
    phone.keyboard.press("Escape")
    phone.keyboard.press("Escape")
    phone.tap(".title-button")
    expect(phone.locator("dialog input")).to_be_focused()  # that was what it is for
    phone.keyboard.press("Escape")
    phone.tap("#open-left")
    phone.tap("#new-session")
    expect(phone.locator("#welcome")).to_be_visible()
    expect(box).not_to_be_focused()


def test_back_closes_what_lies_on_top_and_the_session_stays(phone, site):
    first, second = site.session(MARLOW, title="First"), site.session(MARLOW, title="Second")
    go_to(phone, first)
    phone.tap("#open-left")
    phone.tap(f".session:has([href='./#{second}']) .session-link")
    expect(phone.locator("#title")).to_have_text("Second")
    phone.tap("#open-left")
    phone.tap("#brand-buttons [aria-label=Menu]")
    phone.tap(".menu-item >> text=Appearance")
    expect(phone.locator("dialog")).to_be_visible()
    phone.go_back()
    expect(phone.locator("dialog")).to_have_count(0)
    expect(phone.locator("#backdrop")).to_be_visible()
    phone.tap("#brand-buttons [aria-label=Menu]")
    expect(phone.locator("[role=menu]")).to_be_visible()
    phone.go_back()
    expect(phone.locator("[role=menu]")).to_have_count(0)
    phone.go_back()
    expect(phone.locator("#backdrop")).to_be_hidden()
    expect(phone.locator("#title")).to_have_text("Second")
    phone.go_back()
    expect(phone.locator("#title")).to_have_text("First")


def test_all_that_can_be_done_with_a_bot_is_there_in_words_on_a_telephone(phone, site):
    """Above the chat there is no room for its menu."""
    go_to(phone, site.session(MARLOW, OTTO))
    phone.tap(".chip-stack")
    phone.tap("[aria-label='More about Otto']")
    entries = phone.locator(".menu-item > .menu-text > span:first-child")
    expect(entries).to_have_text([
        "Let Otto speak", "Whisper to Otto", "Mute", "Edit", "What it knows", "What it is sent",
        "Remove from this session"])
    phone.tap(".menu-item >> text=Whisper to Otto")
    expect(phone.locator("#backdrop")).to_be_hidden()
    expect(phone.locator("#text")).to_be_focused()
    expect(phone.locator(".whisper-line")).to_contain_text("Otto")
    say_by_button(phone, "A secret")
    expect(phone.locator(".message .whispered").first).to_contain_text("Otto")


def push(page, *points):
    """A finger that goes from point to point."""
    fingers = page.context.new_cdp_session(page)
    for kind, (x, y) in zip(["touchStart"] + ["touchMove"] * (len(points) - 1), points, strict=True):
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    fingers.detach()


def test_a_finger_pushes_a_drawer_away(phone, site):
    go_to(phone, site.session())
    backdrop = phone.locator("#backdrop")
    phone.tap("#open-left")
    push(phone, (200, 600), (200, 560), (60, 420))  # scrolls
    push(phone, (200, 600), (190, 600), (170, 600))  # not far enough
    expect(backdrop).to_be_visible()
    expect(phone.locator("#left")).to_have_css("translate", "none")
    push(phone, (200, 600), (150, 600), (60, 590))
    expect(backdrop).to_be_hidden()
    expect(phone.locator("#open-left")).to_be_focused()
    phone.tap("#open-right")
    slider = phone.locator("[data-parameter=temperature] .slider").bounding_box()
    y = slider["y"] + slider["height"] / 2
    push(phone, (120, y), (200, y), (300, y))  # that sets the slider
    expect(backdrop).to_be_visible()
    push(phone, (120, 700), (200, 700), (300, 700))
    expect(backdrop).to_be_hidden()
