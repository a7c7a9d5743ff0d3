"""What is written has room: in every language, with long names, beside what lies over the page."""

import pytest
from playwright.sync_api import expect

from webui.languages import LANGUAGES

from .conftest import MARLOW, NOTES_STAY, OTTO, go_to, say, wait_until_quiet
from .test_languages import OUTSIDE

pytestmark = pytest.mark.browser

TELEPHONE = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}
OVERFLOWS = """(selector) => [...document.querySelectorAll(selector)]
  .filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.className}: ${one.textContent.trim()} ${one.scrollWidth} > ${one.clientWidth}`)"""
WORDS = ".button, .tabs, .tab, .chip-add, .panel-foot, #composer-row, #composer-row span, #status-line .used"


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_in_each_language_every_word_of_the_controls_can_be_read(new_context, site, language):
    session_id = site.import_path(["Hello", "Hello to you"], MARLOW, OTTO)
    for options in ({}, TELEPHONE):
        page = new_context(locale=language, **options).new_page()
        go_to(page, session_id)
        expect(page.locator("#right [role=tab]")).to_have_count(4)
        if options:
            assert page.evaluate(OVERFLOWS, WORDS) == []
            page.tap("#open-right")
        for tab in ("sampling", "session", "bot", "model"):
            page.click(f"#tab-{tab}")
            assert page.evaluate(OVERFLOWS, WORDS) == [], tab
            assert page.evaluate(OUTSIDE) == [], tab


@pytest.fixture
def long_names(site):
    """Three bots, as many letters as somebody gives to one."""
    names = ("Bartholomew Featherstonehaugh", "Maximiliana von Hohenzollern", "Oberstudienrat Wackernagel")
    bots = [site.api("POST", "/api/bots", {"name": name})["bot"]["id"] for name in names]
    yield bots
    for bot in bots:
        site.api("DELETE", f"/api/bots/{bot}", {})


def test_long_names_of_bots_leave_the_title_its_room(new_context, site, long_names):
    """With the settings open and closed; of two short names nothing is left out."""
    readable = """([least]) => {
      const [title] = document.querySelectorAll(".title-button");
      const room = least * document.querySelector("#head").clientWidth;
      return title.clientWidth >= Math.min(title.scrollWidth, room);
    }"""
    for first_visit in (False, True):
        page = new_context(first_visit=first_visit).new_page()
        go_to(page, site.session(*long_names, title="The riddle of the lighthouse keeper and of the sea"))
        assert page.evaluate(readable, [0.4])
        assert page.evaluate("document.querySelector('.chip-row').scrollWidth <= "
                             "document.querySelector('.chip-row').clientWidth + 1")
        go_to(page, site.session(MARLOW, OTTO, title="Lamps"))
        expect(page.locator(".chip-main > span:nth-child(2):visible")).to_have_text(["Marlow", "Otto"])
        assert page.evaluate(readable, [1])


def test_on_a_telephone_versions_do_not_cut_the_name(new_context, site):
    page = new_context(**TELEPHONE).new_page()
    session_id = site.import_path(["One?", "Two."], OTTO)
    read = site.read(session_id)
    site.api("POST", f"/api/sessions/{session_id}/replies",
             {"revision": read["revision"], "kind": "regenerate", "message": read["messages"][1]["id"]})
    go_to(page, session_id)
    wait_until_quiet(page)
    expect(page.locator(".versions")).to_have_text("2 of 2")
    assert page.evaluate(OVERFLOWS, ".message .name") == []
    assert page.evaluate(OUTSIDE) == []


def test_before_a_session_names_of_any_length_and_direction_keep_their_place(page, site):
    bots = [site.api("POST", "/api/bots", {"name": name, "greeting": greeting})["bot"]["id"]
            for name, greeting in (("W" * 60, "Hello."), ("سلمى", "Hello."), ("Amir", "مرحبا"))]
    go_to(page)
    for bot in bots:
        page.click(f"[data-bot='{bot}']")
    greetings = page.locator(".greeting")
    expect(greetings).to_have_count(3)
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(OVERFLOWS, ".greeting, .greeting > span, .starter") == []
    directions = page.eval_on_selector_all(
        ".greeting > :last-child", "all => all.map((one) => getComputedStyle(one).direction)")
    assert directions == ["ltr", "ltr", "rtl"]  # as what is said, whatever the name is written in
    for bot in bots:
        site.api("DELETE", f"/api/bots/{bot}", {})


def test_a_whisper_to_a_name_without_a_place_to_break_stays_in_its_place(page, site):
    bot = site.api("POST", "/api/bots", {"name": "W" * 60})["bot"]["id"]
    go_to(page, site.session(MARLOW, bot))
    page.click(f"[aria-label='Actions for {'W' * 60}']")
    page.click(".menu >> text=Whisper to")
    expect(page.locator(".whisper-line")).to_be_visible()
    say(page, "psst")
    wait_until_quiet(page)
    page.locator(".whisper-line button").first.click()
    expect(page.locator("dialog .audience")).to_be_visible()
    places = ".whisper-line, .whisper-line button, .whispered, .audience, .audience .choice, .dialog-body"
    assert page.evaluate(OVERFLOWS, places) == []
    page.keyboard.press("Escape")
    site.api("DELETE", f"/api/bots/{bot}", {})


def test_on_a_telephone_the_way_out_of_a_full_context_is_in_sight(new_context, site):
    page = new_context(**TELEPHONE).new_page()
    session_id = site.import_path(["word " * 1_980, "Yes."])
    read = site.read(session_id)
    site.api("PATCH", f"/api/sessions/{session_id}",
             {"revision": read["revision"], "sampling": {"max_new_tokens": 1}})
    go_to(page, session_id)
    way, line = page.get_by_text("What now?"), page.locator("#status-line")
    expect(way).to_be_visible()
    inner, outer = way.bounding_box(), line.bounding_box()
    assert outer["y"] <= inner["y"] and inner["y"] + inner["height"] <= outer["y"] + outer["height"]
    assert inner["x"] + inner["width"] <= 360


def test_on_a_telephone_who_is_next_can_be_read_while_another_one_writes(new_context, site):
    page = new_context(**TELEPHONE).new_page()
    go_to(page, site.session(MARLOW, OTTO))
    site.model.hold(after=2)
    page.fill("#text", "Marlow, hello")
    page.tap(".send")
    expect(page.locator(".md.writing")).to_contain_text("You")
    page.fill("#text", "And now")
    expect(page.locator(".stop")).to_be_visible()
    assert page.evaluate(OVERFLOWS, "#composer-row, #composer-row span, #composer-row button") == []
    site.model.release()
    wait_until_quiet(page)


@pytest.mark.parametrize("options", [{}, TELEPHONE], ids=["wide", "telephone"])
def test_the_buttons_of_an_edit_come_into_sight_with_it(new_context, site, options):
    page = new_context(**options).new_page()
    go_to(page, site.import_path(["word " * 300, "Noted. " * 20]))
    page.locator(".is-last .actions >> text=Edit").click()
    expect(page.locator(".edit-text")).to_be_focused()
    page.wait_for_function("""() => {
      const row = document.querySelector(".edit-row").getBoundingClientRect();
      const over = [...document.querySelectorAll("#jump, #composer")].filter((one) => one.checkVisibility());
      return over.every((one) => row.bottom <= one.getBoundingClientRect().top);
    }""")


@pytest.mark.parametrize("first_visit", [True, False], ids=["settings closed", "settings open"])
def test_notes_stand_over_the_middle_of_the_composer_and_touch_it_not(new_context, site, first_visit):
    page = new_context(first_visit=first_visit).new_page()
    page.add_init_script(NOTES_STAY)
    go_to(page, site.session(MARLOW))
    page.set_input_files("input[accept]", {"name": "x.json", "mimeType": "application/json", "buffer": b"no"})
    expect(page.locator(".toast")).to_have_count(1)
    page.wait_for_function("() => document.querySelector('#bottom').style.paddingTop !== '0px'")
    note, composer = (page.locator(one).bounding_box() for one in (".toast", "#composer"))
    middle = [box["x"] + box["width"] / 2 for box in (note, composer)]
    assert abs(middle[0] - middle[1]) <= 1
    assert note["y"] + note["height"] + 4 <= composer["y"]
