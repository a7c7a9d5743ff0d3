"""The prompt inspector: opened from the meter, a chip and a message; whatever is in it is text."""

import pytest
from playwright.sync_api import expect

from tests.helpers.fake_model import XSS

from .conftest import MARLOW, OTTO, go_to, say, wait_until_quiet
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser

NAMES = ".prompt-name"


def test_what_a_bot_is_sent_is_shown_in_parts_and_leads_to_what_can_be_changed(page, site, open_session):
    open_session(MARLOW, OTTO, system_prompt=XSS, user_name="Ann")
    site.model.scripts.append(XSS)
    say(page, f"Otto, {XSS}")
    wait_until_quiet(page)
    page.click("#status-line .used")
    names = ["Persona", "System prompt", "Who is in the room", "Ann", "Otto",
             "What it is asked, as it spoke last"]
    expect(page.locator(NAMES)).to_have_text(names)
    texts = page.locator(".prompt-text")
    assert texts.nth(1).text_content() == XSS
    assert texts.nth(3).text_content().startswith(f"Ann: Otto, {XSS[:100]}")  # a line is in the rest
    assert page.evaluate("window.__xss") is None
    assert page.locator(".prompt-parts :is(img, iframe, form, style, a, script)").count() == 0
    expect(page.locator(".prompt-sum")).to_contain_text("of 2,048 tokens")
    expect(page.locator("dialog [role=status]")).to_contain_text("From the cache")
    expect(page.locator(".prompt .memory-line")).to_contain_text("read anew")
    page.select_option("dialog select", label="Marlow")
    expect(page.locator(NAMES)).to_have_text([*names[:5]])
    expect(texts.first).to_contain_text("You are Marlow")
    assert_accessible(page, "the prompt inspector")
    page.click("dialog [aria-label^='Edit System prompt']")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator("#system-prompt")).to_be_visible()
    page.click(f"[data-bot='{OTTO}'] .chip-main")
    page.click("text=What it is sent")
    expect(texts.first).to_contain_text("You are Otto")
    page.click("dialog [aria-label^='Edit Ann']")
    expect(page.locator(".edit-text")).to_be_focused()
    page.keyboard.press("Escape")
    page.click(".is-last [aria-label=More]")
    page.click("text=What it was made from")
    expect(page.locator(NAMES)).to_have_text(names[:4])
    expect(page.locator(".prompt > .help")).to_contain_text("When it was written, the prompt had")


def test_a_long_prompt_is_put_on_a_small_page_in_steps_from_where_memory_begins(new_context, site):
    page = new_context(color_scheme="dark", has_touch=True, is_mobile=True,
                       viewport={"width": 360, "height": 740}).new_page()
    go_to(page, site.import_path([f"{number} " + "word " * 20 for number in range(701)]))
    site.model.max_seq_len = 16_000
    try:
        page.reload()
        page.tap("#status-line .used")
        expect(page.locator(".prompt .memory-line").first).to_contain_text("memory begins here")
        assert page.locator("dialog *").count() < 2_500
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("dialog button:visible").evaluate_all(
            "all => all.filter(one => one.getBoundingClientRect().height < 44).length") == 0
        assert_accessible(page, "a long prompt on a small page")
        before = page.locator(".prompt-part").count()
        page.locator("text=more parts").press("Enter")  # it moves while what is above it gets its height
        expect(page.locator(".prompt-part").nth(before)).to_be_attached()
    finally:
        site.model.max_seq_len = 2_048


def test_with_guidance_the_negative_prompt_is_shown_and_counted(page, open_session, site):
    session_id = open_session(MARLOW)
    site.api("POST", f"/api/sessions/{session_id}/messages",
             {"revision": site.read(session_id)["revision"], "text": "Hello", "reply": False})
    sampling = {"guidance_scale": 1.5, "negative_prompt": "{{char}} is rude."}
    site.api("PATCH", f"/api/sessions/{session_id}",
             {"revision": site.read(session_id)["revision"], "sampling": sampling})
    page.reload()
    expect(page.locator("#status-line .used")).to_contain_text("for guidance")
    page.click("#status-line .used")
    guide = page.locator(".prompt-guide")
    guide.locator("summary").click()
    expect(guide).to_contain_text("Marlow is rude.")
    expect(guide).to_contain_text("the conversation is read twice")
