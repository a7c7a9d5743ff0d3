"""axe-core finds nothing to object to: both themes, wide and narrow, every panel, menu and dialog."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.helpers.fake_model import CODE, MARKDOWN, TABLE

from .conftest import MARLOW, OTTO, go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser

SIZES = {"desktop": (1440, 900), "small": (320, 568)}


def assert_accessible(page, where):
    results = Axe().run(page)
    found = [
        f"{one['id']}: {one['help']} {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in results.response["violations"]
    ]
    assert found == [], f"{where}: {found}"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_no_violations(new_context, site, theme, size):
    width, height = SIZES[size]
    wide = size == "desktop"
    page = new_context(viewport={"width": width, "height": height}, color_scheme=theme).new_page()
    go_to(page)
    assert_accessible(page, "welcome")
    everything = f"{CODE}\n\n{TABLE}\n\n{MARKDOWN}\n\n{CODE}"
    go_to(page, site.import_path(["Hello", everything, "And now?"], MARLOW, OTTO))
    say(page, "think, then fail")
    wait_until_quiet(page)
    page.locator(".message.is-last [aria-label=More]").click()
    expect(page.locator(".menu")).to_be_visible()
    page.locator(".menu").get_by_text("Regenerate", exact=True).click()
    expect(page.locator(".versions")).to_be_visible()
    wait_until_quiet(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    site.model.scripts.append(" ".join(f"word{number}" for number in range(100)))
    site.model.hold(after=20)
    say(page, "one more")
    expect(page.locator(".md.writing")).to_contain_text("word3")
    assert_accessible(page, "a full session, and one more reply is being written")
    page.click(".stop")
    site.model.release()
    wait_until_quiet(page)
    page.press("#text", "ArrowUp")
    expect(page.locator(".edit-text")).to_be_focused()
    assert_accessible(page, "editing")
    page.keyboard.press("Escape")
    for tab in ("sampling", "session", "bot", "model"):
        if not wide and page.locator("#right").is_hidden():
            page.click("#open-right")
        page.click(f"#tab-{tab}")
        if tab == "sampling":
            page.locator("[data-parameter=temperature] .number").fill("1.5")
            page.keyboard.press("Enter")
            page.click("summary.group-label")
        assert_accessible(page, f"tab {tab}")
    if not wide:
        page.keyboard.press("Escape")
        page.click("#open-left")
        assert_accessible(page, "sessions drawer")
        page.keyboard.press("Escape")


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 320)])
def test_no_violations_in_dialogs_and_menus(new_context, site, theme, width, watch):
    page = new_context(color_scheme=theme, viewport={"width": width, "height": 700}).new_page()
    go_to(page, site.session(MARLOW, OTTO))
    small = width < 1000
    say(page, "Hello")
    wait_until_quiet(page)
    long = {"name": "a very long name of a file that does not fit here.csv", "mimeType": "", "buffer": b"a,b"}
    page.set_input_files("#composer input[type=file]", [long, {**long, "name": "b.txt"}])
    expect(page.locator(".attached-size")).to_have_count(2)
    assert_accessible(page, "attached files")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Control+/")
    expect(page.locator("dialog h2")).to_have_text("Keyboard")
    assert_accessible(page, "keyboard list")
    page.keyboard.press("Escape")
    page.click(".title-button")
    expect(page.locator("dialog h2")).to_have_text("Rename session")
    assert_accessible(page, "rename")
    page.keyboard.press("Escape")
    if small:
        page.click("#open-left")
    page.click("[aria-label=Menu]")
    assert_accessible(page, "main menu")
    page.click(".menu >> text=Appearance")
    expect(page.locator("dialog h2")).to_have_text("Appearance")
    assert_accessible(page, "appearance")
    page.keyboard.press("Escape")
    if small:
        page.keyboard.press("Escape")
    page.click("#composer .next")
    assert_accessible(page, "turn order")
    page.keyboard.press("Escape")
    if small:
        page.click(".chip-stack")
        page.click("#panel-bot [aria-label='Edit Otto']")
    else:
        page.click("[aria-label='Actions for Otto']")
        page.click(".menu >> text=Edit")
    page.click("dialog >> text=Add a value")
    assert_accessible(page, "menu in the bot editor")
    page.click(".menu >> text=Temperature")
    assert_accessible(page, "bot editor")
    page.keyboard.press("Escape")
    if small:
        page.keyboard.press("Escape")
    page.click(".message.is-last [aria-label=More]")
    expect(page.locator(".menu")).to_be_visible()
    assert_accessible(page, "menu of a message")
    page.click(".menu >> text=Details")
    expect(page.locator("dialog .facts").first).to_be_visible()
    assert_accessible(page, "details")
    page.keyboard.press("Escape")
    page.click(".message.is-last [aria-label=More]")
    page.click(".menu >> text=Delete")
    expect(page.locator(".toast", has_text="Deleted the message")).to_be_visible()
    assert_accessible(page, "note with undo")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    watch.expected = ("401",)
    page.route(
        "**/api/bots",
        lambda route: route.fulfill(
            status=401, json={"error": {"message": "The password is needed.", "code": "login"}}
        ),
    )
    page.reload()
    expect(page.locator("dialog h2")).to_have_text("Parlor is locked")
    assert_accessible(page, "login")


def test_finished_paragraphs_are_announced_and_tokens_are_not(page, open_session, site):
    site.model.scripts.append(
        "First paragraph here.\n\nSecond paragraph here.\n\nThird paragraph here.\n\nFourth one."
    )
    open_session()
    page.evaluate("""() => {
      window.heard = [];
      const hear = (change) => change.addedNodes.forEach((node) => window.heard.push(node.textContent));
      new MutationObserver((changes) => changes.forEach(hear))
        .observe(document.querySelector("#announcer"), { childList: true });
    }""")
    say(page, "go")
    wait_until_quiet(page)
    heard = [text for text in page.evaluate("window.heard") if "paragraph" in text or "Fourth" in text]
    assert heard == [
        "First paragraph here.",
        "Second paragraph here.",
        "Third paragraph here.",
        "Fourth one.",
    ]


def test_nothing_moves_for_those_who_asked_for_that(new_context, site):
    page = new_context(reduced_motion="reduce", viewport={"width": 390, "height": 800}).new_page()
    go_to(page, site.session())
    page.click("#open-left")
    assert page.evaluate("document.getAnimations().length") == 0


def test_sliders_and_the_meter_can_be_seen_in_forced_colours(new_context, site):
    page = new_context(forced_colors="active").new_page()
    go_to(page, site.import_path(["Hello " * 400, "And more " * 400]))
    expect(page.locator("#status-line .meter-fill")).not_to_have_attribute("style", "width: 0%;")
    slider = page.locator("[data-parameter=temperature] .slider")
    number = page.locator("[data-parameter=temperature] .number")
    pictures = []
    for value in ("0", "5"):
        number.fill(value)
        number.press("Tab")
        page.mouse.move(0, 0)
        box = slider.bounding_box()
        track = {"x": box["x"] + 30, "y": box["y"], "width": box["width"] - 60, "height": box["height"]}
        pictures.append(page.screenshot(clip=track))  # without the thumb: the filled part tells the value
    assert pictures[0] != pictures[1]
    border = "one => getComputedStyle(one).borderTopWidth"
    assert page.eval_on_selector("#status-line .meter", border) == "1px"
    fill, ground = page.evaluate(
        """() => ["#status-line .meter-fill", "#status-line .meter"].map((one) =>
             getComputedStyle(document.querySelector(one)).backgroundColor)"""
    )
    assert fill != ground


def test_the_systems_wish_for_contrast_counts_and_bars_around_the_page_have_its_colour(new_context, site):
    page = new_context(contrast="more").new_page()
    go_to(page, site.session())

    def colours(background):
        bars = "() => document.querySelector('meta[name=theme-color]').content"
        page.wait_for_function(f"(colour) => ({bars})() === colour", arg=background)
        assert page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor") == background

    colours("rgb(255, 255, 255)")
    page.emulate_media(color_scheme="dark")
    colours("rgb(0, 0, 0)")
    page.evaluate("localStorage.setItem('parlor.theme', 'paper')")
    page.reload()
    colours("rgb(245, 236, 217)")
    page.evaluate("delete document.documentElement.dataset.theme")
    page.emulate_media(contrast="no-preference", color_scheme="light")
    colours("rgb(250, 248, 244)")
