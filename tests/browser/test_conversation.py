"""Talking: with one bot, in a room of two, stopping, going back, changing what was said."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, OTTO, go_to, say, stopping, texts, wait_until_quiet, wait_until_saved

pytestmark = pytest.mark.browser


def test_a_newcomer_is_invited_and_the_first_message_makes_the_session(page, site):
    before = len(site.api("GET", "/api/sessions")["sessions"])
    go_to(page)
    expect(page.locator("#welcome")).to_contain_text("Who would you like to talk with?")
    page.click(".bot-card:has-text('Otto')")
    page.click(".bot-card:has-text('Marlow')")
    assert len(site.api("GET", "/api/sessions")["sessions"]) == before, "looking around saves nothing"
    say(page, "Good evening")
    expect(page.locator(".from-bot .name")).to_have_text("Otto")
    wait_until_quiet(page)
    expect(page.locator(".session.is-active .session-title")).to_have_text("Good evening")
    assert len(site.api("GET", "/api/sessions")["sessions"]) == before + 1


def test_two_bots_answer_in_turn(page, open_session):
    open_session(MARLOW, OTTO)
    say(page, "One apple")
    expect(page.locator(".from-bot .name")).to_have_text(["Marlow"])
    wait_until_quiet(page)
    say(page, "Two pears")
    expect(page.locator(".from-bot .name")).to_have_text(["Marlow", "Otto"])
    wait_until_quiet(page)
    assert "One apple" in texts(page)[1]
    assert texts(page)[3].startswith("You said: User: One apple Marlow:"), "Otto sees who said what"


def test_everyone_once_lets_all_bots_answer(page, open_session):
    open_session(MARLOW, OTTO, turn_order="all")
    say(page, "Good morning")
    expect(page.locator(".from-bot .name")).to_have_text(["Marlow", "Otto"])
    wait_until_quiet(page)


def test_a_click_on_a_bot_lets_it_speak_and_a_muted_one_keeps_quiet(page, open_session, site):
    session_id = open_session(MARLOW, OTTO)
    page.click(".chip-main:has-text('Otto')")
    page.click(".menu >> text=Let Otto speak")
    expect(page.locator(".from-bot .name")).to_have_text(["Otto"])
    wait_until_quiet(page)
    page.click("[aria-label='Actions for Marlow']")
    page.click(".menu >> text=Mute")
    expect(page.locator(".chip.is-muted")).to_contain_text("Marlow")
    say(page, "Who is here?")
    expect(page.locator(".from-bot .name")).to_have_text(["Otto", "Otto"])
    wait_until_quiet(page)
    assert site.read(session_id)["bots"] == [{"id": MARLOW, "muted": True}, {"id": OTTO, "muted": False}]


def test_bots_are_added_moved_and_removed(page, open_session, site):
    session_id = open_session(MARLOW)
    page.click("text=+ Bot")
    page.click(".menu >> text=Otto")
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "OOtto"])
    page.locator(".chip-main").nth(1).focus()
    page.keyboard.press("Alt+ArrowLeft")
    expect(page.locator(".chip-main")).to_have_text(["OOtto", "MMarlow"])
    page.locator(".chip").nth(1).drag_to(page.locator(".chip").nth(0))
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "OOtto"])
    page.click("#tab-bot")
    page.click("[aria-label='Add Lin to this session']")
    page.click("[aria-label='Move Lin up']")
    page.click("[aria-label='More about Otto']")
    page.click(".menu >> text=Remove from this session")
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "LLin"])
    wait_until_saved(page, session_id)
    assert [entry["id"] for entry in site.read(session_id)["bots"]] == [MARLOW, LIN]


def test_bots_talk_among_themselves_until_they_are_stopped(page, open_session, site):
    open_session(MARLOW, OTTO)
    say(page, "Begin")
    wait_until_quiet(page)
    site.model.hold(after=60)
    page.click("text=Let them talk")
    page.click(".menu >> text=20 turns")
    expect(page.locator(".md.writing")).to_have_count(1)
    expect(page.locator(".from-bot >> nth=2")).to_be_visible()
    with stopping(page):
        page.click(".stop")
    site.model.release()
    wait_until_quiet(page)
    count = page.locator(".from-bot").count()
    page.wait_for_timeout(400)
    assert page.locator(".from-bot").count() == count < 21


def test_bots_among_themselves_wait_while_somebody_types(page, open_session, site, monkeypatch):
    monkeypatch.setattr("webui.routes.sessions.HOLD_SECONDS", 120.0)  # a busy machine reloads slowly
    session_id = open_session(MARLOW, OTTO)
    site.model.hold(after=2)
    page.click("text=Let them talk")
    page.click(".menu >> text=4 turns")
    expect(page.locator(".md.writing")).to_have_count(1)
    with page.expect_response("**/hold"):
        page.type("#text", "Wai")
    site.model.release()
    expect(page.locator(".note")).to_have_text("waiting while you write")
    assert len(site.read(session_id)["messages"]) == 1
    page.fill("#text", "")
    expect(page.locator(".from-bot")).to_have_count(4)
    wait_until_quiet(page)
    site.model.hold(after=2)
    page.click("text=Let them talk")
    page.click(".menu >> text=4 turns")
    expect(page.locator(".from-bot")).to_have_count(5)
    with page.expect_response("**/hold"):
        page.type("#text", "My turn")
    site.model.release()
    expect(page.locator(".note").last).to_have_text("waiting while you write")
    page.reload()
    expect(page.locator(".note").last).to_have_text("waiting while you write")
    assert texts(page)[-1] == site.read(session_id)["messages"][-1]["text"].strip()  # once, not twice
    page.press("#text", "End")
    page.press("#text", "Enter")
    expect(page.locator(".from-user .md")).to_have_text("My turn")
    wait_until_quiet(page)
    assert page.locator(".from-bot").count() == 6


def test_stop_keeps_what_was_written(page, open_session, site):
    session_id = open_session()
    site.model.hold(after=20)
    say(page, "a long one")
    expect(page.locator(".md.writing")).to_contain_text("word5")
    with stopping(page):
        page.keyboard.press("Escape")
        expect(page.locator(".note")).to_have_text(["", "stopping"])
    site.model.release()
    wait_until_quiet(page)
    expect(page.locator(".badge")).to_have_text("Stopped")
    kept = site.read(session_id)["messages"][-1]
    assert kept["finish_reason"] == "cancelled"
    assert texts(page)[-1] == kept["text"].strip()


def test_sending_while_a_bot_writes_keeps_its_words_and_comes_after_them(page, open_session, site):
    open_session()
    site.model.hold(after=20)
    say(page, "a long one")
    expect(page.locator(".md.writing")).to_contain_text("word3")
    page.fill("#text", "Wait, another question")
    page.press("#text", "Enter")
    page.wait_for_timeout(100)
    site.model.release()
    expect(page.locator(".from-user")).to_have_count(2)
    wait_until_quiet(page)
    said = texts(page)
    assert said[1].startswith("word0 word1") and said[2] == "Wait, another question"


def test_editing_ones_own_message_makes_a_branch_with_arrows(page, open_session, site):
    session_id = open_session()
    say(page, "Red wine")
    wait_until_quiet(page)
    page.press("#text", "ArrowUp")
    page.fill(".edit-text", "White wine")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".from-user .md")).to_have_text("White wine")
    wait_until_quiet(page)
    assert "White wine" in texts(page)[1]
    expect(page.locator(".from-user .versions")).to_contain_text("2 of 2")
    page.locator(".from-user").hover()
    page.click("[aria-label='Previous version']")
    expect(page.locator(".from-user .md")).to_have_text("Red wine")
    assert "Red wine" in texts(page)[1]
    assert len(site.read(session_id)["messages"]) == 4
    page.locator("#transcript").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".from-user .md")).to_have_text("White wine")


def test_correcting_a_reply_in_place_drops_nothing_after_it(page, open_session):
    open_session()
    for text in ("First", "Second"):
        say(page, text)
        wait_until_quiet(page)
    reply = page.locator(".from-bot").nth(0)
    reply.hover()
    reply.locator("text=Edit").click()
    reply.locator("textarea").fill("It **never** happened.")
    reply.locator("text=Save").click()
    expect(reply.locator(".md strong")).to_have_text("never")
    assert len(texts(page)) == 4
    expect(page.locator(".versions")).to_have_count(0)


def test_escape_leaves_an_edit_and_changes_nothing(page, open_session):
    open_session()
    say(page, "Keep this")
    wait_until_quiet(page)
    page.press("#text", "ArrowUp")
    page.fill(".edit-text", "something else")
    page.keyboard.press("Escape")
    expect(page.locator(".edit")).to_have_count(0)
    assert texts(page)[0] == "Keep this"


def test_regenerating_any_message_keeps_the_old_one_beside_it(page, open_session):
    open_session()
    for text in ("The first of many words", "Second"):
        say(page, text)
        wait_until_quiet(page)
    old = texts(page)
    reply = page.locator(".from-bot").nth(0)
    reply.hover()
    reply.locator("text=Regenerate").click()
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    wait_until_quiet(page)
    assert texts(page)[0] == old[0] and texts(page)[1] != old[1]
    page.locator(".from-bot").hover()
    page.click("[aria-label='Previous version']")
    expect(page.locator(".message")).to_have_count(4)
    assert texts(page) == old


def test_continue_writes_on_in_the_same_message(page, open_session):
    open_session()
    say(page, "A story")
    wait_until_quiet(page)
    before = texts(page)[1]
    page.keyboard.press("Alt+Enter")
    expect(page.locator(".from-bot .md")).to_contain_text("a little further.")
    wait_until_quiet(page)
    assert texts(page)[1].startswith(before) and len(texts(page)) == 2


def test_deleting_a_message_moves_the_rest_up_and_undo_brings_it_back(page, open_session):
    open_session()
    say(page, "First question")
    wait_until_quiet(page)
    say(page, "Second question")
    wait_until_quiet(page)
    before = texts(page)
    page.locator(".message").nth(1).locator("[aria-label=More]").click()
    page.click(".menu >> text=Delete")
    expect(page.locator(".message")).to_have_count(3)
    assert texts(page) == [before[0], *before[2:]]
    page.click(".toast >> text=Undo")
    expect(page.locator(".message")).to_have_count(4)
    assert texts(page) == before


def test_an_error_of_the_engine_is_a_badge_and_the_partial_text_stays(page, open_session):
    open_session()
    say(page, "please fail")
    expect(page.locator(".badge.serious")).to_contain_text("The engine ran out of pages.")
    wait_until_quiet(page)
    assert "You said" in texts(page)[1]
    page.reload()
    expect(page.locator(".badge.serious")).to_contain_text("The engine ran out of pages.")


def test_thoughts_are_folded_and_open_on_a_click(page, open_session):
    open_session()
    say(page, "think about it")
    wait_until_quiet(page)
    expect(page.locator(".think summary")).to_have_text(re.compile(r"Thought for \d+ s"))
    expect(page.locator(".from-bot .md")).to_have_text("After thinking: yes.")
    expect(page.locator(".thoughts")).to_be_hidden()
    page.click(".think summary")
    expect(page.locator(".thoughts")).to_contain_text("I should be brief.")


def test_markdown_code_and_tables_are_shown_and_copied(page, open_session, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_session()
    say(page, "show code")
    wait_until_quiet(page)
    expect(page.locator(".code-head span")).to_have_text("python")
    expect(page.locator(".code-block .hljs-keyword").first).to_have_text("def")
    page.evaluate("""() => {
      const button = [...document.querySelectorAll(".code-head button")].at(-1);
      const said = (resolve) => new MutationObserver(() => resolve(button.textContent));
      window.said = new Promise((resolve) => said(resolve).observe(button, { childList: true }));
    }""")
    page.click(".code-head >> text=Copy")
    assert page.evaluate("window.said") == "Copied"  # for a second and a half
    assert page.evaluate("navigator.clipboard.readText()").startswith(
        "def dark_seconds(hours, beam_degrees=2):\n    night"
    )
    say(page, "show a table")
    wait_until_quiet(page)
    expect(page.locator("td[align=right]")).to_have_text(["12", "7"])
    say(page, "show markdown")
    wait_until_quiet(page)
    expect(page.locator(".md a")).to_have_text("link (example.org)")
    expect(page.locator(".md").last).to_contain_text("It costs $5 and $10, not mathematics.")


def test_formulas_are_drawn_by_the_browser_and_katex_comes_only_for_them(page, open_session, site):
    loaded = []
    page.on("request", lambda request: loaded.append(request.url) if "math" in request.url
            or "katex" in request.url else None)
    open_session()
    site.model.scripts.append("It costs $5 and $10.")
    say(page, "How much?")
    wait_until_quiet(page)
    expect(page.locator(".from-bot .md").last).to_have_text("It costs $5 and $10.")
    assert loaded == []
    site.model.scripts.append(
        "So \\(a^2 + b^2\\) is\n\n$$\\frac{1}{2} \\sqrt{x}$$\n\nand \\(\\nonsense{\\) stays."
    )
    say(page, "And in numbers?")
    wait_until_quiet(page)
    expect(page.locator(".math math")).to_have_count(2)
    assert page.locator(".math-display mfrac").bounding_box()["height"] > 15
    expect(page.locator(".from-bot .md").last).to_contain_text("\\nonsense{ stays.")
    assert sorted(url.rpartition("/")[2] for url in loaded) == ["katex.min.js", "noto-sans-math.woff2"]
    fonts = page.evaluate("async () => [...await document.fonts.ready].map((font) => font.status)")
    assert fonts == ["loaded"]


def test_the_numbers_stay_with_the_reply(page, open_session):
    open_session()
    say(page, "Numbers please")
    wait_until_quiet(page)
    page.reload()
    page.click(".message.is-last [aria-label=More]")
    expect(page.locator(".menu-heading")).to_contain_text("tokens/s")
    page.click(".menu >> text=Details")
    facts = page.locator("dialog .facts").first
    expect(facts).to_contain_text("fake-1M")
    expect(facts).to_contain_text("First token")
    expect(facts).to_contain_text("4711")


def test_a_reply_without_a_word_says_so_and_so_does_a_continuation(page, open_session, site):
    open_session()
    site.model.scripts += ["", "One sentence.", ""]
    say(page, "Anything?")
    expect(page.locator(".badge")).to_have_text("Said nothing")
    wait_until_quiet(page)
    say(page, "And now?")
    wait_until_quiet(page)
    page.keyboard.press("Alt+Enter")
    expect(page.locator(".toast")).to_contain_text("Marlow had nothing to add.")
    assert texts(page)[-1] == "One sentence."


def test_what_is_said_and_read_again_costs_no_whole_session(page, open_session, site):
    open_session(MARLOW)
    say(page, "A first word")
    wait_until_quiet(page)
    answers = []

    def note(response):
        if re.search(r"/api/sessions/[0-9a-f]{16}(/messages|\?texts=near)?$", response.url):
            answers.append(response)

    page.on("response", note)
    with page.expect_response(lambda response: response.request.method == "GET" and response in answers):
        say(page, "A second word")
        wait_until_quiet(page)
    expect(page.locator(".message")).to_have_count(4)
    bodies = [answer.json() for answer in answers]
    assert {answer.request.method for answer in answers} == {"GET", "POST"}
    assert all("messages" not in body["session"] and len(body["delta"]["changed"]) <= 2 for body in bodies)
