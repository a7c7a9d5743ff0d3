"""axe-core finds nothing to object to in any dialog and menu, on 320 px and in forced colours, and what is
touched in them is large enough for fingers.

WAYS says how each is opened; a test holds that it has every place in the sources that opens one.
"""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Error, expect

from tests.helpers.stand_in_engine import StandInEngine

from .conftest import MARLOW, OTTO, go_to, say, wait_until_quiet
from .test_accessibility import assert_accessible
from .test_touch import SMALL, TOUCHED_IN_DIALOGS

pytestmark = pytest.mark.browser

STATIC = Path(__file__).resolve().parents[2] / "webui" / "static"
OPENS = re.compile(r"(?<!function )(?<!\.)\b(?:open(?:Dialog|Menu)|(?:prompt|confirm|choose)Dialog)\((?!\))")
NARROW, WIDE, BETWEEN = 320, 1280, 1000
CARD = {"spec": "chara_card_v2", "spec_version": "2.0",
        "data": {"name": "Ada", "description": "A cook.", "first_mes": "Hello.", "creator": "somebody"}}
CHAT = '{"user_name": "Mina", "character_name": "Ada"}\n{"name": "Ada", "is_user": false, "mes": "Hello."}\n'


def drawer(page, side):
    button = page.locator(f"#open-{side}")
    if button.is_visible():
        button.click()


def tab(page, name):
    if not page.locator(f"#tab-{name}").is_visible():
        drawer(page, "right")
    page.click(f"#tab-{name}")


def item(page, entry):
    page.locator(".menu-item", has_text=entry).first.click()


def main_menu(page, entry=""):
    drawer(page, "left")
    page.click("#brand-buttons [aria-label=Menu]")
    if entry:
        item(page, entry)


def session_menu(page, entry=""):
    drawer(page, "left")
    row = page.locator(".session.is-shown, .session:has([aria-current])").first
    row.hover()
    row.locator(".session-more").click()
    if entry:
        item(page, entry)


def folder_menu(page, entry=""):
    drawer(page, "left")
    page.click("[aria-label='Actions for the folder Ocean']")
    if entry:
        item(page, entry)


def tag_menu(page):
    drawer(page, "left")
    page.click("#list-tools >> text=Tags")


def message_menu(page, entry=""):
    page.locator(".is-last [aria-label=More]").click()
    if entry:
        item(page, entry)


def summary(page):
    message = page.locator(".message").first
    message.hover()
    message.locator("[aria-label=More]").click()
    item(page, "Summarize up to here")


def bot_menu(page, entry=""):
    page.click("[aria-label='Actions for Otto']")
    if entry:
        item(page, entry)


def edit_bot(page, then):
    tab(page, "bot")
    page.click("#panel-bot [aria-label='Edit Otto']")
    if then:
        page.click(then)


def bring(page, name, content):
    page.set_input_files("input[accept]", {"name": name, "mimeType": "", "buffer": content.encode()})


def trash(page, erase):
    page.click("#list-tools >> text=Trash")
    if erase:
        page.locator(".trash-entry input").first.check()
        page.click("dialog >> text=Delete for good")


def preset_menu(page, entry=""):
    tab(page, "sampling")
    page.click("#right >> text=Save as preset")
    if entry:
        item(page, entry)


def engines(page, name):
    page.click(".machine-button")
    page.get_by_label(name).click()


def use_a_model(page):
    error = {"message": "A reply is being written.", "code": "writing"}
    page.route("**/api/models/*/load", lambda route: route.fulfill(
        status=409, json={"error": error, "replies": 1}))
    engines(page, "Use small (Box)")


def timeline(page, *presses):
    tab(page, "session")
    page.click("#panel-session >> text=Timeline")
    for press in presses:
        page.click(press)


def full_context(page):
    say(page, "word " * 1_960)
    wait_until_quiet(page)
    page.click("text=What now?")


def locked(page):
    page.route("**/api/bots", lambda route: route.fulfill(
        status=401, json={"error": {"message": "The password is needed.", "code": "login"}}))
    page.reload()


COMPARE = ".dialog-foot >> text=Compare"
OTHER_VERSION = ".map-line[aria-level='2'] >> nth=0"
WAYS = {
    "app-menu 1": (NARROW, main_menu),
    "bots/bot-actions 1": (NARROW, lambda page: edit_bot(page, "dialog [aria-label=More]")),
    "bots/bot-editor 1": (NARROW, lambda page: edit_bot(page, "dialog >> text=Add a value")),
    "bots/bot-editor 2": (WIDE, lambda page: edit_bot(page, "")),
    "bots/bot-menus 1": (BETWEEN, bot_menu),
    "bots/bot-menus 2": (BETWEEN, lambda page: page.click(".chip-add")),
    "branches/compare-branches 1": (WIDE, lambda page: timeline(page, OTHER_VERSION, COMPARE)),
    "branches/side-by-side 1": (WIDE, lambda page: main_menu(page, "Side by side")),
    "branches/timeline 1": (WIDE, lambda page: timeline(page, ".dialog-foot >> text=Name")),
    "branches/timeline 2": (WIDE, timeline),
    "library/arranging 1": (NARROW, lambda page: session_menu(page, "Folder")),
    "library/arranging 2": (WIDE, lambda page: (session_menu(page, "Folder"), item(page, "New folder"))),
    "library/arranging 3": (NARROW, folder_menu),
    "library/arranging 4": (WIDE, lambda page: folder_menu(page, "Rename")),
    "library/arranging 5": (WIDE, lambda page: folder_menu(page, "Remove the folder")),
    "library/arranging 6": (NARROW, tag_menu),
    "library/arranging 7": (WIDE, lambda page: session_menu(page, "Tags")),
    "library/importing 1": (WIDE, lambda page: bring(page, "chat.jsonl", CHAT)),
    "library/importing 2": (WIDE, lambda page: bring(page, "ada.json", json.dumps(CARD))),
    "library/library 1": (WIDE, lambda page: session_menu(page, "Rename")),
    "library/session-menu 1": (NARROW, session_menu),
    "library/session-menu 2": (NARROW, lambda page: session_menu(page, "Export for other programs")),
    "library/trash 1": (WIDE, lambda page: trash(page, True)),
    "library/trash 2": (WIDE, lambda page: trash(page, False)),
    "memory/audience 1": (WIDE, lambda page: message_menu(page, "Whom it is for")),
    "memory/knowledge 1": (WIDE, lambda page: bot_menu(page, "What it knows")),
    "memory/lore 1": (WIDE, lambda page: (tab(page, "session"), page.click("text=Lore book"))),
    "memory/summary 1": (WIDE, summary),
    "message-menu 1": (WIDE, lambda page: message_menu(page, "Details")),
    "message-menu 2": (NARROW, message_menu),
    "models/engines 1": (WIDE, lambda page: engines(page, "Remove Box")),
    "models/engines 2": (WIDE, lambda page: engines(page, "Edit Box")),
    "models/models 1": (WIDE, use_a_model),
    "models/models 2": (WIDE, lambda page: page.click(".machine-button")),
    "overlays/appearance 1": (WIDE, lambda page: main_menu(page, "Appearance")),
    "overlays/key-list 1": (WIDE, lambda page: page.keyboard.press("Control+/")),
    "overlays/other-devices 1": (WIDE, lambda page: main_menu(page, "On another device")),
    "panels/you 1": (WIDE, lambda page: main_menu(page, "You")),
    "sampling/preset-menu 1": (NARROW, preset_menu),
    "sampling/preset-menu 2": (WIDE, lambda page: preset_menu(page, "Save as a new preset")),
    "sampling/preset-menu 3": (WIDE, lambda page: preset_menu(page, "Delete “Mine”")),
    "sampling/xray 1": (WIDE, lambda page: (tab(page, "sampling"), page.click(".xray-open"))),
    "tokens/inspector 1": (WIDE, lambda page: bot_menu(page, "What it is sent")),
    "tokens/lens 1": (WIDE, lambda page: page.click(".is-last .actions >> text=Tokens")),
    "tokens/replay 1": (WIDE, lambda page: message_menu(page, "Replay")),
    "writing/turn-menus 1": (NARROW, lambda page: page.click("#composer .next")),
    "writing/turn-menus 2": (NARROW, lambda page: page.click("#composer .talk")),
    "writing/writing 1": (NARROW, lambda page: page.click("#composer [aria-label='What helps to write']")),
    "writing/writing 2": (WIDE, lambda page: message_menu(page, "Regenerate, beginning with")),
    "chat/way-out 1": (NARROW, full_context),
    "overlays/login 1": (WIDE, locked),
}
"""By module and number of the call in it: how wide the page is then, and how it is opened."""


def test_every_place_that_opens_a_dialog_or_menu_is_in_the_list():
    found = set()
    for path in STATIC.rglob("*.js"):
        name = path.relative_to(STATIC).with_suffix("").as_posix()
        if name.startswith("vendor/") or name in ("overlays/dialogs", "overlays/menu"):
            continue
        code = re.sub(r"^(?:import .*|\s*(?:async )?open\w+\(\) \{.*)$", "", path.read_text(), flags=re.M)
        found |= {f"{name} {number + 1}" for number, _ in enumerate(OPENS.findall(code))}
    assert found == set(WAYS)


@pytest.fixture
def furnished(site):
    """A session in which there is something for every dialog; its id."""
    preset = site.api("POST", "/api/presets", {"name": "Mine", "sampling": {"temperature": 1.5}})["preset"]
    gone = site.session(title="Gone")
    site.api("DELETE", "/api/sessions", {"sessions": [gone]})
    session = site.session(MARLOW, OTTO, title="A session with a name that is long enough to be cut off",
                           preset=preset["id"], sampling={"max_new_tokens": 1})
    site.api("PATCH", "/api/sessions", {"sessions": [session], "folder": "Ocean", "add_tags": ["fog", "sea"]})
    with StandInEngine("small").running() as engine:
        body = {"url": engine.url, "name": "Box", "key": "secret"}
        made = site.api("POST", "/api/engines", body)["engine"]
        yield session
        site.api("DELETE", f"/api/engines/{made['id']}", {})
    site.api("DELETE", f"/api/presets/{preset['id']}", {})


def resize(page, width):
    """Until the page has heard of it."""
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_function("(width) => innerWidth === width", arg=width)
    page.evaluate("() => new Promise((heard) => requestAnimationFrame(() => requestAnimationFrame(heard)))")


def close_all(page):
    for _ in range(6):
        if page.locator("dialog[open], [role=menu]").count() == 0 and page.locator("#backdrop").is_hidden():
            return
        page.keyboard.press("Escape")
        page.wait_for_timeout(50)


def with_an_address(page):
    """As where other devices can reach the server."""
    def settings(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "address_for_others": "http://192.168.1.5:5005/"})

    page.route("**/api/settings", settings)
    picture = '<svg xmlns="http://www.w3.org/2000/svg" width="220" height="220"/>'
    page.route("**/api/other-devices.svg", lambda route: route.fulfill(
        content_type="image/svg+xml", body=picture))


def small_under_fingers(page):
    """What would be too small in the dialog or menu that is open, and in its closed parts, on a telephone."""
    fingers = page.context.new_cdp_session(page)
    fingers.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    assert page.evaluate("matchMedia('(pointer: coarse)').matches")
    opened = page.locator("dialog[open], [role=menu]").last
    opened.evaluate("(one) => one.querySelectorAll('details').forEach((part) => (part.open = true))")
    touched = ", ".join(f":is(dialog[open], [role=menu]) {one}" for one in TOUCHED_IN_DIALOGS.split(", "))
    small = page.evaluate(SMALL, touched)
    fingers.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
    fingers.detach()
    return small


def test_every_dialog_and_menu_is_accessible_on_320_pixels_and_under_fingers(new_context, furnished, watch):
    watch.expected = ("401", "409")
    page = new_context(forced_colors="active").new_page()
    page.set_default_timeout(20_000)
    with_an_address(page)
    go_to(page, furnished)
    for text in ("Marlow, hello", "Otto, and you?"):
        say(page, text)
        wait_until_quiet(page)
    message_menu(page, "Regenerate")
    wait_until_quiet(page)
    failed = []
    for name, (width, way) in WAYS.items():
        try:
            resize(page, width)
            way(page)
            opened = page.locator("dialog[open], [role=menu]").last
            expect(opened).to_be_visible(timeout=20_000)
            if width == WIDE:
                page.set_viewport_size({"width": NARROW, "height": 640})
            expect(opened).to_be_visible(timeout=20_000)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert_accessible(page, name)
            assert small_under_fingers(page) == []
        except (AssertionError, Error) as error:
            failed.append(f"{name}: {str(error)[:700]}")
        close_all(page)
    assert not failed, "\n".join(failed)
