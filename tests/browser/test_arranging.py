"""Sessions in folders, with tags, pinned; several at once by mouse, touch, keys; the trash; marked words."""

import json

import pytest
from playwright.sync_api import expect

from .conftest import go_to
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser


@pytest.fixture
def three(site):
    """Only these three are in the list, the first of them at its top; their ids."""
    old = [entry["id"] for entry in site.api("GET", "/api/sessions")["sessions"]]
    if old:
        site.api("DELETE", "/api/sessions", {"sessions": old})
    return [site.session(title=title) for title in ("Letter", "Boat", "Garden")][::-1]


def titles(page):
    return page.locator(".session-title").all_text_contents()


def headings(page):
    return [text.strip() for text in page.locator(".group-name").all_text_contents()]


def open_menu(page, session_id):
    row = page.locator(f".session[data-key='{session_id}']")
    row.hover()
    row.locator(".session-more").click()


def ticked(page):
    return page.locator(".session:has(:checked) .session-title").all_text_contents()


def test_a_session_is_pinned_put_into_a_folder_and_tagged_from_its_menu(page, site, three):
    garden, boat, letter = three
    go_to(page)
    open_menu(page, letter)
    page.click(".menu >> text=Pin to the top")
    expect(page.locator(".group-name").first).to_have_text("Pinned")
    assert titles(page) == ["Letter", "Garden", "Boat"]
    open_menu(page, boat)
    page.click(".menu >> text=Folder")
    page.click(".menu >> text=New folder")
    page.fill("dialog input", "x" * 61)
    page.keyboard.press("Enter")
    expect(page.locator("dialog [role=alert]")).to_have_text("The name has more than 60 characters.")
    page.fill("dialog input", "The sea")
    page.keyboard.press("Enter")
    expect(page.locator(".folder-name")).to_contain_text("The sea")
    assert headings(page) == ["Pinned", "The sea1", "Today"] and titles(page) == ["Letter", "Boat", "Garden"]
    page.click(".folder-name")
    expect(page.locator(".folder-name")).to_have_attribute("aria-expanded", "false")
    assert titles(page) == ["Letter", "Garden"]
    page.reload()
    expect(page.locator(".folder-name")).to_have_attribute("aria-expanded", "false")
    page.locator(".folder").hover()
    page.click("[aria-label='Actions for the folder The sea']")
    page.click(".menu >> text=Rename")
    page.fill("dialog input", "Ocean")
    page.keyboard.press("Enter")
    expect(page.locator(".folder-name")).to_contain_text("Ocean")
    expect(page.locator(".folder-name")).to_have_attribute("aria-expanded", "false")  # it stays closed
    assert site.read(boat)["folder"] == "Ocean"
    page.click("[aria-label='Actions for the folder Ocean']")
    page.click(".menu >> text=Remove the folder")
    page.click("dialog .primary")
    expect(page.locator(".folder-name")).to_have_count(0)
    expect(page.locator("#list-tools >> text=Tags")).to_be_hidden()  # there is none yet
    open_menu(page, garden)
    page.click(".menu >> text=Tags")
    page.fill("dialog input", "fog, #Sea fog")
    page.keyboard.press("Enter")
    expect(page.locator(f"[data-key='{garden}'] .session-note")).to_have_text("#fog #Sea · 0 messages")
    page.click("#list-tools >> text=Tags")
    expect(page.locator(".menu")).to_contain_text("#Sea")
    assert_accessible(page, "menu of tags")
    page.click(".menu >> text=#fog")
    expect(page.locator("#search")).to_have_value("#fog")
    expect(page.locator(".session")).to_have_count(1)
    page.click("#list-tools >> text=Tags")
    page.click(".menu >> text=#fog")
    expect(page.locator(".session")).to_have_count(3)


def test_another_tab_sees_a_folder_at_once(page, context, site, three):
    go_to(page)
    other = context.new_page()
    go_to(other, three[0])
    site.api("PATCH", "/api/sessions", {"sessions": three[:2], "folder": "Both"})
    for tab in (page, other):
        expect(tab.locator(".folder-name")).to_contain_text("Both")
    other.fill("#text", "Still the same session")
    other.press("#text", "Enter")  # on top of the new revision
    expect(other.locator(".from-user .md")).to_have_text("Still the same session")


def test_several_are_selected_by_mouse_and_deleted_and_brought_back_together(page, site, three):
    boat = three[1]
    go_to(page, boat)
    page.click("#list-tools >> text=Select")
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("Select sessions")
    expect(page.locator("[role=toolbar] >> text=Delete")).to_be_disabled()
    page.click(".session >> nth=0")
    page.locator(".session").nth(2).click(modifiers=["Shift"])
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("3 selected")
    page.locator(".session").nth(0).click(modifiers=["Control"])
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("2 selected")
    assert ticked(page) == ["Boat", "Letter"]
    assert_accessible(page, "selecting")
    page.click("[role=toolbar] >> text=Delete")
    expect(page.locator(".toast")).to_contain_text("Deleted 2 sessions.")
    expect(page.locator("#welcome")).to_be_visible()
    assert titles(page) == ["Garden"]
    page.click(".toast >> text=Undo")
    expect(page.locator(".session")).to_have_count(3)
    expect(page.locator("#title")).to_have_attribute("data-id", boat)
    page.locator(".session-link").nth(1).click(modifiers=["Control"])  # begins, too
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("1 selected")
    page.click("[role=toolbar] >> text=Done")
    expect(page.locator("#list-tools")).to_be_visible()
    expect(page.locator(".session-link")).to_have_count(3)


def test_several_are_selected_by_keys(page, three):
    go_to(page)
    page.focus(".session-link >> nth=0")
    page.keyboard.press("Space")
    expect(page.locator(".session-check").first).to_be_focused()
    page.keyboard.press("Shift+ArrowDown")
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("2 selected")
    page.keyboard.press("Shift+ArrowDown")
    expect(page.locator(".session-check").nth(2)).to_be_focused()
    assert len(ticked(page)) == 3
    page.keyboard.press("Shift+ArrowUp")  # back: the last one goes again
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("2 selected")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("3 selected")
    page.keyboard.press("Space")
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("2 selected")
    expect(page.locator(".session-check").nth(2)).to_be_focused()
    page.keyboard.press("Control+a")
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("3 selected")
    page.keyboard.press("Escape")
    expect(page.locator("[role=toolbar]")).to_have_count(0)
    expect(page.locator(".session-link").nth(2)).to_be_focused()
    page.keyboard.press("Shift+ArrowUp")
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("2 selected")
    page.keyboard.press("Delete")
    expect(page.locator(".session-link")).to_have_count(1)


def test_a_long_press_selects_on_a_touch_screen(new_context, site, three):
    context = new_context(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    page = context.new_page()
    go_to(page)
    page.tap("#open-left")
    box = page.locator(".session").nth(1).bounding_box()
    fingers = context.new_cdp_session(page)
    place = {"x": box["x"] + 60, "y": box["y"] + 20}
    fingers.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [place]})
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("1 selected")
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.locator(".menu")).to_have_count(0)
    assert ticked(page) == ["Boat"]
    page.tap(".session >> nth=0")
    expect(page.locator("[role=toolbar] [role=status]")).to_have_text("2 selected")
    assert_accessible(page, "selecting on a phone")


def test_what_is_exported_together_can_be_imported_in_one_file(page, site, three, tmp_path):
    go_to(page)
    page.click("#list-tools >> text=Select")
    page.click("[role=toolbar] >> text=All")
    page.click("[role=toolbar] >> text=Folder")
    page.click(".menu >> text=New folder")
    page.fill("dialog input", "Kept")
    page.keyboard.press("Enter")
    expect(page.locator(".folder-name")).to_have_text("Kept3")
    page.click("[role=toolbar] >> text=Tags")
    page.fill("dialog input", "all")
    page.keyboard.press("Enter")
    expect(page.locator(".session-note", has_text="#all")).to_have_count(3)
    with page.expect_download() as download:
        page.click("[role=toolbar] >> text=Export")
    assert download.value.suggested_filename == "Parlor, 3 sessions.json"
    file = tmp_path / "all.json"
    download.value.save_as(file)
    assert len(json.loads(file.read_text(encoding="utf-8"))["sessions"]) == 3
    page.click("[role=toolbar] >> text=Delete")
    expect(page.locator(".session")).to_have_count(0)
    page.set_input_files("input[accept]", file)
    expect(page.locator(".toast", has_text="Imported")).to_contain_text("and 2 other sessions.")
    expect(page.locator(".folder-name")).to_have_text("Kept3")
    assert titles(page) == ["Garden", "Boat", "Letter"]  # in their order
    expect(page.locator(".session-note", has_text="#all")).to_have_count(3)


def test_the_trash_gives_back_and_lets_go_for_good(page, site, three):
    while gone := site.api("GET", "/api/trash")["entries"]:  # up to 200 at a time
        assert not site.api("DELETE", "/api/trash", {"undo": [entry["undo"] for entry in gone]})["failed"]
    garden, boat, _ = three
    site.api("DELETE", "/api/sessions", {"sessions": [garden, boat]})
    go_to(page)
    page.click("#list-tools >> text=Trash")
    expect(page.locator(".trash-entry")).to_have_count(2)
    expect(page.locator(".trash-entry").first).to_contain_text("kept for 30 more days")
    assert_accessible(page, "trash")
    page.click(".trash-entry >> text=Garden")
    page.click("dialog >> text=Restore")
    expect(page.locator(f".session[data-key='{garden}']")).to_have_count(1)
    expect(page.locator(".trash-entry")).to_have_count(1)
    page.check(".trash-all input")
    page.click("dialog >> text=Delete for good")
    page.click("dialog >> nth=1 >> text=Cancel")
    expect(page.locator(".trash-entry")).to_have_count(1)
    page.click("dialog >> text=Delete for good")
    page.click("dialog >> nth=1 >> .primary")
    expect(page.locator("dialog[open]")).to_contain_text("The trash is empty.")
    assert site.api("GET", "/api/trash") == {"entries": [], "number": 0}
    page.keyboard.press("Escape")
    assert titles(page) == ["Garden", "Letter"]


def test_words_that_were_searched_for_are_marked_in_the_list_and_lead_to_their_messages(page, site, three):
    """Also where they stand in different messages; a word of the title alone opens no search bar."""
    session_id = site.import_path(["The stork stands here.", "Reeds and water.", "A third one."])
    site.api("PATCH", "/api/sessions", {"sessions": [session_id], "add_tags": ["birds"]})
    go_to(page)
    page.fill("#search", "#birds STORK reeds")
    expect(page.locator(".session")).to_have_count(1)
    expect(page.locator(".session mark")).to_have_text(["stork"])
    page.click(".session-link")
    expect(page.locator(".find [role=status]")).to_have_text("1 of 2")
    found = "() => [...(CSS.highlights.get('found-now') ?? [])].map(String).join() === 'stork'"
    page.wait_for_function(found)
    page.keyboard.press("Escape")
    page.fill("#search", "garden")
    expect(page.locator(".session mark")).to_have_text(["Garden"])
    page.click(".session-link")
    expect(page.locator("#title")).to_have_attribute("data-id", three[0])
    page.fill("#search", "")
    expect(page.locator(".session")).to_have_count(4)
    expect(page.locator(".find")).to_have_count(0)
