"""What is in sight and what is not: as much as is needed, and nothing over what is being read or written."""

import pytest
from playwright.sync_api import expect

from .conftest import LIN, MARLOW, NOTES_STAY, OTTO, go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser
CODE = "```python\n" + "\n".join(f"value_{number} = {number}" for number in range(80)) + "\n```"


def box(page, selector):
    return page.locator(selector).last.bounding_box()


def test_the_settings_are_closed_at_the_first_visit_and_stay_as_they_are_left(new_context):
    page = new_context(first_visit=True).new_page()
    go_to(page)
    expect(page.locator("#right")).to_be_hidden()
    page.click("#open-right")
    expect(page.locator("#right")).to_be_visible()
    page.reload()
    expect(page.locator("#right")).to_be_visible()
    page.click("[aria-label='Hide settings']")
    page.reload()
    expect(page.locator("#text")).to_be_enabled()
    expect(page.locator("#right")).to_be_hidden()


def test_a_chip_opens_its_menu_with_let_speak_first(page, open_session):
    open_session(MARLOW, OTTO)
    page.locator(".chip-main").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator(".menu [role=menuitem]").first).to_contain_text("Let Otto speak")
    expect(page.locator(".from-bot")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator(".from-bot .name")).to_have_text(["Otto"])
    wait_until_quiet(page)


def test_a_greeting_stands_on_the_welcome_page_before_the_first_words(page):
    go_to(page)
    page.click(f".bot-card[data-bot='{LIN}']")
    expect(page.locator(".greeting")).to_have_text("LLin Hello User, I am Lin.")
    page.click(f".bot-card[data-bot='{LIN}']")
    expect(page.locator(".greeting")).to_have_count(0)
    page.click(f".bot-card[data-bot='{LIN}']")
    say(page, "Good evening")
    expect(page.locator(".message .md").first).to_have_text("Hello User, I am Lin.")
    wait_until_quiet(page)


def test_versions_are_in_sight_and_the_actions_take_no_room(page, site):
    session = site.import_path(["One?", "Two.", "Three?", "Four."])
    read = site.read(session)
    site.api("POST", f"/api/sessions/{session}/replies",
             {"revision": read["revision"], "kind": "regenerate", "message": read["messages"][1]["id"]})
    go_to(page, session)
    wait_until_quiet(page)
    site.api("PATCH", f"/api/sessions/{session}",
             {"revision": site.read(session)["revision"], "leaf": read["messages"][3]["id"]})
    page.reload()
    expect(page.locator(".message")).to_have_count(4)
    page.mouse.move(5, 5)
    expect(page.locator(".message").nth(1).locator(".versions")).to_be_visible()
    expect(page.locator(".message").nth(1).locator(".versions")).to_have_text("1 of 2")
    actions = page.locator(".message").nth(1).locator(".actions")
    assert actions.evaluate("one => getComputedStyle(one).opacity") == "0"
    assert page.locator(".message").nth(1).bounding_box()["height"] <= 66  # 86 with a row of its own
    page.locator(".message").nth(1).hover()
    assert actions.evaluate("one => getComputedStyle(one).opacity") == "1"
    page.locator(".message").nth(1).locator("[aria-label='Next version']").click()
    expect(page.locator(".message").nth(1).locator(".versions")).to_have_text("2 of 2")


def test_language_and_copy_stay_in_sight_in_long_code_which_wraps_and_folds(page, open_session, site):
    open_session()
    site.model.scripts.append(CODE)
    say(page, "code please")
    wait_until_quiet(page)
    for top in (0.3, 0.6):
        page.eval_on_selector("#transcript", "(all, at) => { all.scrollTop = all.scrollHeight * at; }", top)
        expect(page.locator(".code-head >> text=Copy")).to_be_in_viewport()
        expect(page.locator(".code-head span")).to_be_in_viewport()
    tall = box(page, ".code-block")["height"]
    page.click(".code-head >> text=Fold")
    assert box(page, ".code-block")["height"] < tall / 3
    page.click(".code-head >> text=Fold")
    assert box(page, ".code-block")["height"] == tall
    wrap = page.locator(".code-head >> text=Wrap")
    wrap.click()
    expect(wrap).to_have_attribute("aria-pressed", "true")
    assert page.eval_on_selector(".code-block pre", "one => getComputedStyle(one).whiteSpace") == "pre-wrap"


def test_a_full_context_is_red_and_offers_a_way_out(page, open_session):
    open_session(sampling={"max_new_tokens": 1})
    expect(page.locator("#status-line.is-full")).to_have_count(0)
    expect(page.locator("text=What now?")).to_be_hidden()
    say(page, "word " * 2_000)
    expect(page.locator("#status-line.is-full .used")).to_be_visible()
    wait_until_quiet(page)
    page.click("text=What now?")
    page.click(".menu >> text=New session")
    expect(page.locator("#welcome")).to_be_visible()


def test_what_is_left_out_offers_a_way_out_until_a_summary_stands_for_it(page, site):
    """The room that is kept for the reply leaves the context far from full."""
    session = site.import_path(["word " * 400, "Yes."] * 4)
    go_to(page, session)
    expect(page.locator(".memory-line")).to_contain_text("The model's memory begins here")
    expect(page.locator("#status-line.is-full")).to_have_count(0)
    site.model.scripts.append("Words were said.")
    page.click("text=What now?")
    page.click(".menu >> text=Summarize the older half")
    expect(page.locator("dialog textarea")).to_have_value("Words were said.")
    page.click("dialog .primary")
    expect(page.locator("text=What now?")).to_be_hidden()


def test_notes_cover_neither_the_conversation_nor_the_composer(page, site):
    session = site.import_path([f"message {number} " + "word " * 60 for number in range(12)])
    page.add_init_script(NOTES_STAY)
    go_to(page, session)
    page.set_input_files("input[accept]", {"name": "x.json", "mimeType": "application/json", "buffer": b"no"})
    expect(page.locator(".toast")).to_have_count(1)
    page.set_input_files("input[accept]", {"name": "x.json", "mimeType": "application/json", "buffer": b"no"})
    page.wait_for_timeout(100)
    expect(page.locator(".toast")).to_have_count(1)  # the same is not said twice
    page.click("#text")
    page.wait_for_function(
        "() => document.querySelector('#bottom').style.paddingTop !== '0px'")
    note, transcript, composer = box(page, ".toast"), box(page, "#transcript"), box(page, "#composer")
    assert transcript["y"] + transcript["height"] <= note["y"]
    assert note["y"] + note["height"] <= composer["y"]
    page.click(".toast [aria-label=Dismiss]")
    page.wait_for_function("() => document.querySelector('#bottom').style.paddingTop === '0px'")


def test_notes_stand_in_an_open_dialog_and_outlive_it(page, open_session):
    """What is outside of a modal dialog can neither be clicked nor heard."""
    def refuse(name):
        page.set_input_files("input[accept]", {"name": name, "mimeType": "application/json", "buffer": b"no"})

    page.add_init_script(NOTES_STAY)
    open_session()
    refuse("before.json")
    expect(page.locator("#toasts .toast")).to_have_count(1)
    page.keyboard.press("Control+/")
    expect(page.locator("dialog .toast")).to_contain_text("before.json")
    expect(page.locator("dialog #announcer")).to_have_count(1)
    expect(page.locator("dialog [role=status]")).to_have_count(0)  # which is what dialogs say themselves
    refuse("meanwhile.json")
    expect(page.locator("dialog .toast")).to_have_count(2)
    page.locator(".toast", has_text="before.json").get_by_label("Dismiss").click()
    expect(page.locator("dialog .toast")).to_have_count(1)
    note, body = box(page, ".toast"), box(page, ".dialog-body")
    assert body["y"] + body["height"] <= note["y"]
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("body > #toasts > .toast")).to_contain_text("meanwhile.json")
    page.click(".toast [aria-label=Dismiss]")
    expect(page.locator(".toast")).to_have_count(0)
