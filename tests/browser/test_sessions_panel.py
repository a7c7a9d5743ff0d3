"""The list at the left: rename, duplicate, delete with undo, search, export and import."""

import json

import pytest
from playwright.sync_api import expect

from .conftest import go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser


def open_menu(page, session_id):
    row = page.locator(f".session:has([href='./#{session_id}'])")
    row.hover()
    row.locator(".session-more").click()


def test_rename_duplicate_delete_and_undo(page, open_session, site):
    session_id = open_session()
    say(page, "Names for a boat")
    wait_until_quiet(page)
    open_menu(page, session_id)
    page.click(".menu >> text=Rename")
    page.fill("dialog input", "Boats")
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("Boats")
    expect(page.locator(f"[href='./#{session_id}'] .session-title")).to_have_text("Boats")
    open_menu(page, session_id)
    page.click(".menu >> text=Duplicate")
    expect(page.locator("#title")).not_to_have_attribute("data-id", session_id)
    expect(page.locator(".message")).to_have_count(2)
    copy = page.get_attribute("#title", "data-id")
    open_menu(page, copy)
    page.click(".menu >> text=Delete")
    expect(page.locator(f"[href='./#{copy}']")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()
    page.click(".toast >> text=Undo")
    expect(page.locator("#title")).to_have_attribute("data-id", copy)
    expect(page.locator(".message")).to_have_count(2)
    assert site.read(copy)["title"] == site.read(session_id)["title"] or site.read(copy)["title"].startswith(
        "Boats"
    )


def test_search_finds_words_in_messages(page, open_session):
    session_id = open_session()
    say(page, "The heron stands in the reeds")
    wait_until_quiet(page)
    page.keyboard.press("Control+k")
    page.keyboard.type("heron")
    expect(page.locator(".session")).to_have_count(1)
    expect(page.locator(".session-link")).to_have_attribute("href", f"./#{session_id}")
    expect(page.locator(".session-note")).to_contain_text("heron")
    page.fill("#search", "no such words at all")
    expect(page.locator(".empty")).to_have_text("No session has these words.")
    page.locator("#search").press("Escape")
    expect(page.locator(f"[href='./#{session_id}']")).to_have_count(1)


def test_what_is_exported_can_be_imported(page, open_session, site, tmp_path):
    session_id = open_session()
    say(page, "Take me with you")
    wait_until_quiet(page)
    open_menu(page, session_id)
    with page.expect_download() as download:
        page.click(".menu >> text=Export as JSON")
    file = tmp_path / "session.json"
    download.value.save_as(file)
    assert "Take me with you" in json.dumps(json.loads(file.read_text(encoding="utf-8")))
    with page.expect_file_chooser() as chooser:
        page.click("[aria-label=Menu]")
        page.click(".menu >> text=Import")
    chooser.value.set_files(file)
    expect(page.locator(".toast")).to_contain_text("Imported")
    expect(page.locator(".from-user .md")).to_have_text("Take me with you")
    assert page.get_attribute("#title", "data-id") != session_id
    open_menu(page, session_id)
    with page.expect_download() as download:
        page.click(".menu >> text=Export as Markdown")
    download.value.save_as(tmp_path / "session.md")
    assert "Take me with you" in (tmp_path / "session.md").read_text()


EXLLAMA = {"participants": ["Ann", "Chatbort"], "history": [{"author": "Chatbort", "text": "It is blue."}]}


def test_whoever_imports_is_asked_before_strangers_become_bots(page, tmp_path):
    file = tmp_path / "My old chat.json"
    file.write_text(json.dumps(EXLLAMA))
    go_to(page)
    page.set_input_files("input[accept]", file)
    expect(page.locator("dialog")).to_contain_text("not among your bots: Chatbort")
    page.click("dialog >> text=Cancel")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("#title")).not_to_have_text("My old chat")
    page.set_input_files("input[accept]", file)
    page.click("dialog button >> text=Only what they said")
    expect(page.locator(".toast")).to_have_text("Imported “My old chat”.")
    expect(page.locator(".chip", has_text="Chatbort")).to_have_count(0)
    page.set_input_files("input[accept]", file)
    page.click("dialog >> text=Make them")
    expect(page.locator(".chip", has_text="Chatbort")).to_have_count(1)


def test_lines_of_a_chat_come_in_and_a_file_that_is_no_session_is_refused_in_words(page, tmp_path):
    file = tmp_path / "holiday.json"
    file.write_text("not json at all")
    go_to(page)
    page.set_input_files("input[accept]", file)
    expect(page.locator(".toast")).to_have_text("holiday.json is not a JSON file.")
    lines = [{"user_name": "Ann", "character_name": "Lin"}, {"name": "Ann", "is_user": True, "mes": "Hi"},
             {"name": "Lin", "mes": "Two", "swipes": ["One", "Two"], "swipe_id": 1}]
    text = "\n".join(map(json.dumps, lines))
    chat = {"name": "Lin - chat.jsonl", "mimeType": "", "buffer": text.encode()}
    page.set_input_files("input[accept]", [{**chat, "buffer": f"{text}\n{{".encode()}, chat])
    expect(page.locator(".toast", has_text="Line 4 of Lin - chat.jsonl is not JSON.")).to_be_visible()
    expect(page.locator("#title")).to_have_text("Lin - chat")
    expect(page.locator(".from-bot .md")).to_have_text("Two")
    expect(page.locator(".from-bot .versions")).to_contain_text("2 of 2")


def test_a_session_that_another_tab_deletes_is_left(page, open_session, site):
    session_id = open_session()
    site.api("DELETE", f"/api/sessions/{session_id}")
    expect(page.locator(".toast")).to_contain_text("deleted in another tab")
    expect(page.locator("#welcome")).to_be_visible()


def test_an_address_of_a_session_that_is_not_there_opens_a_new_one(page, watch):
    watch.expected = ("404",)  # it is asked for together with the list
    page.goto("/#0123456789abcdef")
    expect(page.locator("#welcome")).to_be_visible()


def title_of(page):
    return page.get_attribute("#title", "data-id")


def test_back_and_forward_show_what_the_address_names(page, site):
    first, second = site.session(), site.session()
    go_to(page, first)
    page.click(f"[href='./#{second}']")
    expect(page.locator("#title")).to_have_attribute("data-id", second)
    page.click("#new-session")
    expect(page.locator("#title")).to_have_attribute("data-id", "")
    say(page, "Hello there")
    expect(page.locator("#title")).not_to_have_attribute("data-id", "")
    third = title_of(page)
    assert page.url.endswith(f"#{third}")
    wait_until_quiet(page)
    for way, shown in ((-1, second), (-1, first), (1, second), (1, third)):
        page.evaluate("(way) => history.go(way)", way)
        expect(page.locator("#title")).to_have_attribute("data-id", shown)
        assert page.url.endswith(f"#{shown}")
    page.click("#new-session")
    page.go_back()
    expect(page.locator("#title")).to_have_attribute("data-id", third)
    page.go_forward()
    expect(page.locator("#title")).to_have_attribute("data-id", "")


def test_the_last_of_several_sessions_that_were_asked_for_is_shown(page, site):
    """Whichever answer comes first."""
    slow, quick = site.session(), site.session()
    go_to(page)
    held = []
    page.route(f"**/api/sessions/{slow}", lambda route: held.append(route))
    page.click(f"[href='./#{slow}']")
    page.click(f"[href='./#{quick}']")
    expect(page.locator("#title")).to_have_attribute("data-id", quick)
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert title_of(page) == quick and page.url.endswith(f"#{quick}")


def test_the_skip_link_leads_to_the_box_and_leaves_the_address_alone(page, open_session):
    session_id = open_session()
    page.focus(".skip")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    assert page.url.endswith(f"#{session_id}")
    page.goto(f"{page.url.partition('#')[0]}#text")
    page.reload()
    expect(page.locator("#title")).to_have_attribute("data-id", session_id)  # the last one


def test_an_address_of_a_session_that_is_gone_changes_back(page, open_session, site, watch):
    watch.expected = ("404",)
    session_id = open_session()
    page.evaluate("location.hash = 'deadbeefdeadbeef'")
    expect(page.locator(".toast")).to_be_visible()
    expect(page.locator("#title")).to_have_attribute("data-id", session_id)
    page.wait_for_function("(id) => location.hash === `#${id}`", arg=session_id)
