"""Whatever is typed anywhere stays until it is sent, saved or thrown away on purpose."""

import pytest
from playwright.sync_api import expect

from tests.helpers.server_process import Server

from .conftest import (
    LIN,
    MARLOW,
    OTTO,
    SETTINGS_OPEN,
    Site,
    context_at,
    go_to,
    say,
    wait_for_held,
    wait_until_quiet,
    wait_until_saved,
)

pytestmark = pytest.mark.browser

MINE = "MY REWRITE, not finished"


def begin_edit(page, message, text=MINE):
    message.hover()
    message.locator(".actions").get_by_text("Edit").click()
    page.fill(".edit-text", text)


@pytest.fixture
def editing(page, site):
    """A session in which a reply is being edited; its id."""
    session_id = site.import_path(["hello", "first reply"], MARLOW, OTTO)
    go_to(page, session_id)
    begin_edit(page, page.locator(".from-bot").first)
    return session_id


def test_an_open_edit_stays_when_another_tab_starts_a_reply(page, site, editing):
    revision = site.read(editing)["revision"]
    site.api("POST", f"/api/sessions/{editing}/messages", {"revision": revision, "text": "from elsewhere"})
    expect(page.locator(".message")).to_have_count(4)
    wait_until_quiet(page)
    expect(page.locator(".edit-text")).to_have_value(MINE)
    expect(page.locator(".edit-text")).to_be_focused()


def test_an_open_edit_stays_when_a_bot_speaks_and_when_the_users_name_changes(page, editing):
    page.click("#chips .chip-main >> nth=1")
    page.click(".menu >> text=speak")
    expect(page.locator(".message")).to_have_count(3)
    wait_until_quiet(page)
    expect(page.locator(".edit-text")).to_have_value(MINE)
    page.click("#tab-session")
    page.fill("#user-name", "Ada")
    page.press("#user-name", "Tab")
    expect(page.locator(".from-user .name")).to_have_text("Ada")
    expect(page.locator(".edit-text")).to_have_value(MINE)


def test_an_open_edit_is_there_again_after_another_session_and_after_a_reload(page, site, editing):
    page.click("#new-session")
    expect(page.locator(".edit-text")).to_have_count(0)
    page.click(f"[href='./#{editing}']")
    expect(page.locator(".edit-text")).to_have_value(MINE)
    page.reload()
    expect(page.locator(".edit-text")).to_have_value(MINE)
    page.click("text=Save")
    expect(page.locator(".from-bot .md")).to_have_text(MINE)
    page.reload()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".edit-text")).to_have_count(0)
    assert site.read(editing)["messages"][1]["text"] == MINE


def test_an_edit_that_was_left_comes_back_when_asked_for_and_cancel_drops_it(page, editing):
    page.press(".edit-text", "Escape")
    expect(page.locator(".edit-text")).to_have_count(0)
    page.reload()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".edit-text")).to_have_count(0)
    reply = page.locator(".from-bot")
    reply.hover()
    reply.locator(".actions").get_by_text("Edit").click()
    expect(page.locator(".edit-text")).to_have_value(MINE)
    expect(page.locator(".edit .help")).to_contain_text("your words from before")
    page.click(".edit >> text=Cancel")
    reply.hover()
    reply.locator(".actions").get_by_text("Edit").click()
    expect(page.locator(".edit-text")).to_have_value("first reply")


def test_a_branch_is_sent_once_however_often_the_button_is_pressed(page, open_session, site):
    session_id = open_session()
    say(page, "Red wine")
    wait_until_quiet(page)
    begin_edit(page, page.locator(".from-user"), "White wine")
    page.eval_on_selector(".edit .primary", "button => { button.click(); button.click(); }")
    expect(page.locator(".from-user .md")).to_have_text("White wine")
    wait_until_quiet(page)
    assert len(site.read(session_id)["messages"]) == 4


def test_what_is_typed_in_the_panels_while_the_server_restarts_is_saved_then(chromium, tmp_path):
    server = Server(tmp_path)
    context = context_at(chromium, server.url, viewport={"width": 1280, "height": 800})
    context.add_init_script(SETTINGS_OPEN)
    page = context.new_page()
    site = Site(server.url, None)
    try:
        session_id = site.import_path(["hello", "reply"])
        go_to(page, session_id)
        page.click("#tab-session")
        server.kill()
        page.fill("#system-prompt", "Speak only in rhymes.")
        page.locator("#system-prompt").blur()
        page.fill("#user-name", "Ada")
        expect(page.locator("#banner")).to_be_visible()
        server.start()
        expect(page.locator("#banner")).to_be_hidden()
        wait_until_saved(page, session_id)
        saved = site.read(session_id)
        assert saved["system_prompt"] == "Speak only in rhymes." and saved["user_name"] == "Ada"
        expect(page.locator("#system-prompt")).to_have_value("Speak only in rhymes.")
        server.kill()
        page.fill("#system-prompt", "Whisper.")
        page.locator("#system-prompt").blur()
        wait_until_saved(page, session_id, saved=False)
        page.goto("about:blank")  # the tab is closed before the server is back
        server.start()
        go_to(page, session_id)
        expect(page.locator("#system-prompt")).to_have_value("Whisper.")
        wait_until_saved(page, session_id)
        assert site.read(session_id)["system_prompt"] == "Whisper."
    finally:
        context.close()
        server.kill()


def test_two_tabs_never_overwrite_each_others_other_fields(page, context, open_session, site, watch):
    """Not even other parameters and other bots, while one of them hears nothing of the other."""
    watch.expected = ("409 (CONFLICT)",)
    session_id = open_session(MARLOW)
    page.route("**/api/changes**", lambda route: None)  # never answered
    page.click("#tab-session")
    page.fill("#system-prompt", "From the first tab.")
    wait_until_saved(page, session_id)
    before = site.read(session_id)
    bots = [*before["bots"], {"id": OTTO, "muted": True}]
    changes = {"user_name": "Ada", "sampling": {"top_k": 7}, "bots": bots}
    site.api("PATCH", f"/api/sessions/{session_id}", {"revision": before["revision"], **changes})
    page.click("#tab-sampling")
    page.fill("[data-parameter=temperature] .number", "1.5")
    page.press("[data-parameter=temperature] .number", "Tab")
    page.click("#chips .chip-add")
    page.get_by_role("menuitem", name="Lin").click()
    expect(page.locator("#chips .chip")).to_have_count(3)
    wait_until_saved(page, session_id)
    after = site.read(session_id)
    assert after["sampling"] == {"top_k": 7, "temperature": 1.5}
    assert after["user_name"] == "Ada" and after["system_prompt"] == "From the first tab."
    there = [(bot["id"], bot["muted"]) for bot in after["bots"]]
    assert there == [(MARLOW, False), (OTTO, True), (LIN, False)]


def test_a_change_that_the_server_cannot_keep_is_tried_again_and_told_once(page, open_session, site, watch):
    watch.expected = ("507",)
    session_id = open_session()
    refuse = {"error": {"message": "The disk is full.", "code": "disk_full"}}
    page.route(
        f"**/api/sessions/{session_id}",
        lambda route: (
            route.fulfill(status=507, json=refuse) if route.request.method == "PATCH" else route.continue_()
        ),
    )
    page.click("#tab-session")
    page.fill("#system-prompt", "Keep this.")
    expect(page.locator(".toast.serious")).to_have_text(["The disk is full."])
    page.locator("#system-prompt").blur()
    page.unroute(f"**/api/sessions/{session_id}")
    page.fill("#user-name", "Ada")
    wait_until_saved(page, session_id)
    assert site.read(session_id)["system_prompt"] == "Keep this."
    assert site.read(session_id)["user_name"] == "Ada"


def test_a_new_session_keeps_its_bots_and_settings_over_a_reload(page, site):
    go_to(page)
    page.click(f".bot-card[data-bot='{OTTO}']")
    page.click("#tab-session")
    page.fill("#system-prompt", "Everybody is at sea.")
    page.fill("#user-name", "Ada")
    page.check("input[name=turn-order][value=all]")
    page.fill("#text", "Ahoy")
    page.reload()
    expect(page.locator(".bot-card.is-chosen")).to_have_count(2)
    expect(page.locator("#text")).to_have_value("Ahoy")
    expect(page.locator("#system-prompt")).to_have_value("Everybody is at sea.")
    page.press("#text", "Enter")
    expect(page.locator(".from-user .name")).to_have_text("Ada")
    wait_until_quiet(page)
    saved = site.read(page.evaluate("location.hash.slice(1)"))
    assert saved["system_prompt"] == "Everybody is at sea." and len(saved["bots"]) == 2
    page.click("#new-session")
    expect(page.locator(".bot-card.is-chosen")).to_have_count(2)
    expect(page.locator("#user-name")).to_have_value("Ada")  # one's name lasts, and who answers
    expect(page.locator("input[name=turn-order]:checked")).to_have_value("all")
    expect(page.locator("#system-prompt")).to_have_value("")  # what was this session's own does not


def test_what_is_typed_stays_when_a_new_session_begins_with_a_bots_words(page):
    go_to(page)
    page.click(f".bot-card[data-bot='{OTTO}']")
    page.fill("#text", "Not yet sent")
    page.click("text=Let them talk")
    page.click(".menu >> text=2 turns")
    page.wait_for_function("() => location.hash.length > 1")  # it is a session of the server's
    wait_until_quiet(page)
    expect(page.locator("#text")).to_have_value("Not yet sent")
    page.reload()
    expect(page.locator("#text")).to_have_value("Not yet sent")
    page.click("#new-session")
    expect(page.locator("#text")).to_have_value("")


@pytest.mark.parametrize("way", ["Escape", "a click beside it", "the cross"])
def test_a_bot_that_is_being_written_is_kept_when_its_dialog_closes(page, open_session, site, way):
    open_session(MARLOW)
    page.click("#tab-bot")
    page.click("[aria-label='Edit Marlow']")
    page.fill("dialog textarea >> nth=0", "You are a captain now.")
    page.click("dialog label:has([aria-label='Rose'])")
    if way == "Escape":
        page.keyboard.press("Escape")
    elif way == "the cross":
        page.click("dialog [aria-label=Close]")
    else:
        page.mouse.click(5, 5)
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".toast")).to_contain_text("What you changed of Marlow is kept, but not saved.")
    page.reload()
    page.click("[aria-label='Edit Marlow']")
    expect(page.locator("dialog textarea >> nth=0")).to_have_value("You are a captain now.")
    expect(page.locator("dialog [aria-label='Rose']")).to_be_checked()
    page.click("dialog >> text=Start over")
    expect(page.locator("dialog textarea >> nth=0")).to_have_value(
        "You are {{char}}, a lighthouse keeper. You talk to {{user}}."
    )
    page.fill("dialog textarea >> nth=0", "Something else")
    page.click("dialog >> text=Cancel")
    page.click("[aria-label='Edit Marlow']")
    expect(page.locator("dialog .kept")).to_have_count(0)
    assert site.api("GET", f"/api/bots/{MARLOW}")["bot"]["persona"].startswith("You are {{char}}")


def test_the_bot_editor_shows_its_error_and_keeps_what_another_tab_changed(page, open_session, site, watch):
    watch.expected = ("409 (CONFLICT)", "500")
    page.set_viewport_size({"width": 1280, "height": 420})  # its body must be scrolled
    made = site.api("POST", "/api/bots", {"name": "Nina", "persona": "You sing."})["bot"]
    open_session(made["id"])
    page.click("#tab-bot")
    page.click("[aria-label='Edit Nina']")
    page.fill("dialog input[type=text]", "Nino")
    site.api("PATCH", f"/api/bots/{made['id']}", {"revision": made["revision"], "greeting": "La la."})
    failure = {"error": {"message": "Something broke.", "code": "internal"}, "id": "1"}
    page.route("**/api/bots/*", lambda route: route.fulfill(status=500, json=failure))
    page.click("dialog >> text=Save")
    expect(page.locator("dialog .wrong")).to_have_text("Something broke.")
    box, foot = page.locator("dialog .wrong").bounding_box(), page.locator("dialog").bounding_box()
    assert foot["y"] < box["y"] and box["y"] + box["height"] <= foot["y"] + foot["height"]
    middle = [box["x"] + 5, box["y"] + box["height"] / 2]
    assert page.evaluate("(at) => document.elementFromPoint(...at).matches('.wrong')", middle)
    page.unroute("**/api/bots/*")
    page.click("dialog >> text=Save")
    expect(page.locator("dialog")).to_have_count(0)
    bot = site.api("GET", f"/api/bots/{made['id']}")["bot"]
    assert (bot["name"], bot["greeting"], bot["persona"]) == ("Nino", "La la.", "You sing.")
    site.api("DELETE", f"/api/bots/{made['id']}", {})


def held_route(page, pattern):
    """Let requests of that kind wait until the list is emptied with release()."""
    waiting = []
    page.route(pattern, lambda route: waiting.append(route))
    return waiting


def wait_for_one(page, waiting):
    wait_for_held(page, waiting)
    return waiting.pop()


def test_a_message_is_shown_at_once_and_typing_ahead_is_not_sent_with_it(page, open_session, site):
    session_id = open_session()
    waiting = held_route(page, "**/messages")
    page.fill("#text", "  first")
    page.press("#text", "Enter")
    expect(page.locator(".from-user .md")).to_have_text("first")
    expect(page.locator(".from-user .note")).to_have_text("sending")
    expect(page.locator("#text")).to_have_value("")
    page.focus("#text")
    page.keyboard.type("second")
    assert page.evaluate(f"localStorage.getItem('parlor.draft.{session_id}')") == "  first\n\nsecond"
    wait_for_one(page, waiting).continue_()
    expect(page.locator(".from-user .note")).to_have_text("")
    expect(page.locator("#text")).to_have_value("second")
    wait_until_quiet(page)
    page.keyboard.press("Enter")
    wait_for_one(page, waiting).continue_()
    expect(page.locator(".from-user .md")).to_have_text(["first", "second"])
    wait_until_quiet(page)
    assert [one["text"] for one in site.read(session_id)["messages"] if one["author"] == "user"] == [
        "  first",
        "second",
    ]


def test_enter_while_a_message_is_on_its_way_sends_what_was_typed_after_it(page, open_session, watch):
    watch.expected = ("409 (CONFLICT)",)  # the first reply may end before the second message is there
    open_session()
    waiting = []  # the first alone is held
    page.route("**/messages", lambda route: route.continue_() if waiting else waiting.append(route))
    page.fill("#text", "first")
    page.press("#text", "Enter")
    page.fill("#text", "second")
    page.press("#text", "Enter")
    page.press("#text", "Enter")
    wait_for_held(page, waiting)
    waiting[0].continue_()
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator(".from-user .md")).to_have_text(["first", "second"])
    wait_until_quiet(page)


def test_a_message_that_fails_comes_back_before_what_was_typed_after_it(page, open_session, watch):
    watch.expected = ("500",)
    open_session()
    waiting = held_route(page, "**/messages")
    page.fill("#text", "first")
    page.press("#text", "Enter")
    page.fill("#text", "second")
    failure = {"error": {"message": "Something broke.", "code": "internal"}, "id": "1"}
    wait_for_one(page, waiting).fulfill(status=500, json=failure)
    expect(page.locator("#text")).to_have_value("first\n\nsecond")
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator(".toast.serious")).to_contain_text("Something broke.")


def test_a_message_on_its_way_from_a_session_that_is_left_arrives_there_or_stays_its_draft(page, site):
    first, second = site.session(), site.session()
    go_to(page, first)
    waiting = held_route(page, "**/messages")
    page.fill("#text", "for the first")
    page.press("#text", "Enter")
    page.fill("#text", "typed ahead")
    page.click(f"[href='./#{second}']")
    expect(page.locator("#title")).to_have_attribute("data-id", second)
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator(".message")).to_have_count(0)
    wait_for_one(page, waiting).continue_()
    draft = "(id) => localStorage.getItem(`parlor.draft.${id}`)"
    page.wait_for_function(f"{draft} === 'typed ahead'", arg=first)
    page.click(f"[href='./#{first}']")
    expect(page.locator(".from-user .md")).to_have_text("for the first")
    expect(page.locator("#text")).to_have_value("typed ahead")


def test_what_was_typed_for_a_deleted_session_comes_back_with_it_if_that_does(page, open_session, site):
    session_id = open_session(title="Typed into")
    page.fill("#text", "half a sentence")
    gone = site.api("DELETE", f"/api/sessions/{session_id}")["undo"]  # by another tab
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#text")).to_have_value("")
    site.api("POST", "/api/sessions/restore", {"undo": gone})
    page.click(f"[href='./#{session_id}']")
    expect(page.locator("#text")).to_have_value("half a sentence")
    site.api("DELETE", f"/api/sessions/{session_id}")
    expect(page.locator("#welcome")).to_be_visible()
    page.click("#list-tools >> text=Trash")
    page.locator(".trash-entry", has_text="Typed into").first.click()
    for _sure in range(2):
        page.locator("dialog").last.get_by_role("button", name="Delete for good").click()
    page.wait_for_function("(id) => !localStorage.getItem(`parlor.draft.${id}`)", arg=session_id)
