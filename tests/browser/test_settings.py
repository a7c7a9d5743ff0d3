"""The settings panel: what is set there is what the model is asked for."""

import pytest
from playwright.sync_api import expect

from tests.helpers.png_cards import as_base64, png

from .conftest import MARLOW, OTTO, go_to, say, texts, wait_until_quiet, wait_until_saved

pytestmark = pytest.mark.browser


def field(page, name):
    return page.locator(f"[data-parameter={name}]")


def set_number(page, name, value):
    number = field(page, name).locator(".number")
    number.fill(str(value))
    number.press("Enter")


def test_what_is_set_is_what_the_model_is_asked_for(page, open_session, site):
    open_session()
    set_number(page, "temperature", 0.35)
    set_number(page, "seed", 99)
    say(page, "tell me your temperature")
    wait_until_quiet(page)
    assert texts(page)[1] == "temperature 0.35 top_p 0.95 seed 99"
    params = site.model.started[-1]["params"]
    assert (params.temperature, params.seed) == (0.35, 99)


def test_temperature_zero_twice_is_the_same_reply(page, open_session):
    open_session()
    set_number(page, "temperature", 0)
    say(page, "Say some of these many different words in any order")
    wait_until_quiet(page)
    first = texts(page)[1]
    page.locator(".from-bot").locator("text=Regenerate").click()
    expect(page.locator(".versions")).to_contain_text("2 of 2")
    wait_until_quiet(page)
    assert texts(page)[1] == first


def test_the_slider_moves_the_number_and_arrow_keys_go_by_steps(page, open_session, site):
    session_id = open_session()
    slider = field(page, "temperature").locator(".slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(field(page, "temperature").locator(".number")).to_have_value("0.81")
    assert slider.get_attribute("aria-valuetext") == "0.81"
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    value = float(field(page, "temperature").locator(".number").input_value())
    assert 4.5 < value <= 5
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {"temperature": value}


def test_a_changed_value_is_marked_and_reset(page, open_session, site):
    session_id = open_session()
    set_number(page, "top_k", 40)
    expect(field(page, "top_k")).to_have_class("field is-changed")
    expect(page.locator("#preset-changes")).to_have_text("One change from “Balanced”")
    page.click("[aria-label='Reset Top-k']")
    expect(field(page, "top_k").locator(".number")).to_have_value("0")
    expect(page.locator("#preset-changes")).to_have_text("")
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {}


def test_more_samplers_are_folded_and_their_order_is_checked(page, open_session, site):
    session_id = open_session()
    expect(field(page, "xtc_probability")).to_be_hidden()
    page.click("summary:text('More samplers')")
    set_number(page, "xtc_probability", 0.5)
    order, wrong = field(page, "samplers").locator("textarea"), field(page, "samplers").locator(".wrong")
    names = "penalties, dry, top_n_sigma, temperature, top_k, top_p, min_p, typical_p, xtc"
    place = "penalties and dry stand before the others"
    for text, said in (("top_k\ntop_q", f"“top_q” is not one of {names}."),
                       ("xtc\nxtc", "“xtc” is not a name that stands once."),
                       ("dry\nxtc\npenalties", f"“penalties” is not in its place: {place}.")):
        order.fill(text)
        order.press("Tab")
        expect(wrong).to_have_text(said)
    order.fill("dry\npenalties\nxtc\ntemperature")
    expect(wrong).to_be_hidden()
    wait_until_saved(page, session_id)
    saved = ["dry", "penalties", "xtc", "temperature"]
    assert site.read(session_id)["sampling"] == {"xtc_probability": 0.5, "samplers": saved}
    page.click("[aria-label='Reset Order of the samplers']")
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {"xtc_probability": 0.5}


def test_a_negative_prompt_is_asked_for_once_there_is_guidance(page, open_session, site):
    session_id = open_session()
    page.click("summary:text('Guidance')")
    expect(field(page, "guidance_scale")).to_be_visible()
    expect(field(page, "negative_prompt")).to_be_hidden()
    set_number(page, "guidance_scale", 1.5)
    prompt = field(page, "negative_prompt").get_by_label("Negative prompt", exact=True)
    prompt.press_sequentially("{{char}} is rude.\nVery.")
    expect(prompt).to_be_focused()
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {
        "guidance_scale": 1.5, "negative_prompt": "{{char}} is rude.\nVery."}
    page.click("[aria-label='Reset Guidance']")
    expect(prompt).to_be_visible(), "what was typed is not lost out of sight"
    page.click("[aria-label='Reset Negative prompt']")
    expect(prompt).to_be_hidden()
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {}


@pytest.mark.parametrize("key", ["Tab", "Enter"])
def test_values_out_of_range_are_brought_into_it_and_that_is_said(page, open_session, key):
    open_session()
    number = field(page, "temperature").locator(".number")
    said = field(page, "temperature").locator(".wrong")
    number.fill("99")
    number.press(key)
    expect(number).to_have_value("5.00")
    expect(said).to_have_text("99 is outside 0.00 to 5.00; 5.00 is set.")
    number.fill("warm")
    number.press(key)
    expect(number).to_have_value("5.00")
    expect(said).to_have_text("“warm” is not a number.")
    number.fill("1")
    number.press(key)
    expect(said).to_be_hidden()
    number.fill("")
    number.press(key)
    expect(number).to_have_value("0.80")
    expect(said).to_be_hidden()


@pytest.mark.parametrize("key", ["Tab", "Enter"])
def test_a_number_that_is_emptied_has_its_default_again_also_once_it_was_saved(page, open_session, site, key):
    session_id = open_session()
    number = field(page, "temperature").locator(".number")
    for value in ("1.00", "0.80"):
        number.fill("")
        number.press(key)
        expect(number).to_have_value("0.80")
        number.fill(value)
        number.press(key)
        wait_until_saved(page, session_id)
    number.fill("")
    number.press(key)
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {}


def test_a_comma_is_a_decimal_point_and_parts_thousands(page, open_session, site):
    session_id = open_session()
    for name, typed, shown in (
        ("temperature", "0,7", "0.70"),
        ("top_p", ",5", "0.50"),
        ("max_new_tokens", "1,024", "1024"),
    ):
        number = field(page, name).locator(".number")
        number.click()
        number.press("Control+a")
        page.keyboard.type(typed)
        number.press("Tab")
        expect(number).to_have_value(shown)
        expect(field(page, name).locator(".wrong")).to_be_hidden()
    wait_until_saved(page, session_id)
    saved = {"temperature": 0.7, "top_p": 0.5, "max_new_tokens": 1024}
    assert site.read(session_id)["sampling"] == saved


def test_the_presets_that_ship_can_be_neither_overwritten_nor_deleted(page, open_session):
    open_session()
    page.select_option(".select", label="Creative")
    page.click("text=Save as preset")
    expect(page.locator(".menu [role=menuitem]")).to_have_text(["Save as a new preset"])


def test_presets_are_chosen_saved_and_deleted(page, open_session, site):
    session_id = open_session()
    page.select_option(".select", label="Greedy")
    expect(field(page, "temperature").locator(".number")).to_have_value("0.00")
    set_number(page, "top_k", 7)
    page.click("text=Save as preset")
    page.click(".menu >> text=Save as a new preset")
    page.fill("dialog input", "Mine")
    page.keyboard.press("Enter")
    expect(page.locator(".select option:checked")).to_have_text("Mine")
    expect(page.locator("#preset-changes")).to_have_text("")
    wait_until_saved(page, session_id)
    saved = next(preset for preset in site.api("GET", "/api/settings")["presets"] if preset["name"] == "Mine")
    assert saved["sampling"] == {"temperature": 0.0, "top_k": 7}
    assert site.read(session_id)["preset"] == saved["id"]
    set_number(page, "top_k", 9)
    page.click("text=Save as preset")
    page.click(".menu >> text=Save into “Mine”")
    expect(page.locator("#preset-changes")).to_have_text("")
    page.locator(".toast", has_text="Saved “Mine”").get_by_text("Undo").click()
    expect(page.locator("#preset-changes")).not_to_have_text("")
    expect(field(page, "top_k").locator(".number")).to_have_value("9")
    assert site.api("GET", "/api/settings")["presets"][-1]["sampling"] == {"temperature": 0.0, "top_k": 7}
    field(page, "top_k").locator(".reset").click()
    page.click("text=Save as preset")
    page.click(".menu >> text=Delete “Mine”")
    page.click("dialog >> .primary")
    expect(page.locator(".select option:checked")).to_have_text("Balanced")
    expect(field(page, "top_k").locator(".number")).to_have_value("7")


def test_a_bots_own_value_is_in_force_until_something_is_set(page, site):
    bot = site.api(
        "POST",
        "/api/bots",
        {
            "name": "Strict",
            "color": "#123456",
            "persona": "You are Strict.",
            "greeting": "",
            "sampling": {"temperature": 0.1},
        },
    )["bot"]
    session_id = site.session(bot["id"])
    go_to(page, session_id)
    temperature = field(page, "temperature").locator(".number")
    note = field(page, "temperature").locator(".override")
    expect(temperature).to_have_value("0.10")
    expect(note).to_have_text("Of their own: Strict 0.10, unless it is set here.")
    say(page, "your temperature?")
    wait_until_quiet(page)
    assert texts(page)[1].startswith("temperature 0.1 ")
    set_number(page, "temperature", 0.8)  # the default is a value like others here
    expect(note).to_have_text("Set here; of their own: Strict 0.10.")
    wait_until_saved(page, session_id)
    say(page, "your temperature?")
    wait_until_quiet(page)
    assert texts(page)[3].startswith("temperature 0.8 ")
    page.click("[aria-label='Reset Temperature']")
    expect(temperature).to_have_value("0.10")
    page.click("#chips .chip-add")
    page.get_by_role("menuitem", name="Marlow").click()
    expect(temperature).to_have_value("0.80")  # what the others have
    expect(note).to_have_text("Of their own: Strict 0.10, unless it is set here.")
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {}
    page.select_option(".select", label="Greedy")
    expect(temperature).to_have_value("0.00")
    say(page, "Strict, your temperature?")
    wait_until_quiet(page)
    assert texts(page)[5].startswith("temperature 0.0 ")
    site.api("DELETE", f"/api/bots/{bot['id']}")


def test_system_prompt_name_and_stop_strings_reach_the_model(page, open_session, site):
    open_session()
    page.click("#tab-session")
    page.fill("#system-prompt", "Everybody is at sea.")
    page.fill("#user-name", "Ishmael")
    page.click("#tab-sampling")
    field(page, "stop").locator("textarea").fill("The end\n\\n\\n")
    field(page, "stop").locator("textarea").blur()
    say(page, "Who am I?")
    wait_until_quiet(page)
    asked = site.model.started[-1]
    assert asked["messages"][0].content.endswith("Ishmael.\nEverybody is at sea.")
    assert asked["params"].stop == ("The end", "\n\n")
    expect(page.locator(".from-user .name")).to_have_text("Ishmael")


def test_the_turn_order_is_explained_and_kept(page, open_session, site):
    session_id = open_session(MARLOW, OTTO)
    page.click("#composer .next")
    expect(page.locator(".menu")).to_contain_text("The model picks whose turn is the likeliest.")
    page.click(".menu >> text=By mention")
    expect(page.locator("#composer .next")).to_have_text("Next: Marlow")  # until somebody is named
    say(page, "Otto, what do you think?")
    expect(page.locator(".from-bot .name")).to_have_text(["Otto"])
    wait_until_quiet(page)
    assert site.read(session_id)["turn_order"] == "mention"


def test_a_bot_is_made_changed_and_deleted_with_undo(page, open_session, site):
    open_session(MARLOW)
    page.click("text=+ Bot")
    page.click(".menu >> text=New bot")
    page.fill("dialog input[type=text]", "Nemo")
    page.locator("dialog textarea").nth(0).fill("You are {{char}}, captain of a submarine.")
    page.click("dialog >> text=Add a value")
    page.click(".menu >> text=Temperature")
    page.locator("dialog .number").fill("0.2")
    page.click("dialog >> text=Create")
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "NNemo"])
    bot = next(one for one in site.api("GET", "/api/bots")["bots"] if one["name"] == "Nemo")
    assert bot["sampling"] == {"temperature": 0.2} and bot["persona"].endswith("captain of a submarine.")
    page.click("[aria-label='Actions for Nemo']")
    page.click(".menu >> text=Edit")
    page.fill("dialog input[type=text]", "Captain")
    page.click("dialog >> text=Save")
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "CCaptain"])
    page.locator(".toast", has_text="Saved “Captain”").get_by_text("Undo").click()
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "NNemo"])
    page.click("[aria-label='Actions for Nemo']")
    page.click(".menu >> text=Edit")
    page.fill("dialog input[type=text]", "Captain")
    page.click("dialog >> text=Save")
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "CCaptain"])
    page.click("[aria-label='Actions for Captain']")
    page.click(".menu >> text=Edit")
    page.click("dialog >> text=Delete")
    page.locator(".toast", has_text="Deleted Captain").get_by_text("Undo").click()
    expect(page.locator(".chip-main")).to_have_text(["MMarlow", "CCaptain"])
    assert any(one["name"] == "Captain" for one in site.api("GET", "/api/bots")["bots"])
    site.api("DELETE", f"/api/bots/{bot['id']}")


def test_undoing_an_edit_of_a_bot_puts_back_that_alone_and_its_picture(page, open_session, site, watch):
    watch.expected = ("409 (CONFLICT)",)
    made = site.api("POST", "/api/bots", {"name": "Nina", "persona": "You sing.", "greeting": "La.",
                                          "picture": as_base64(png())})["bot"]
    open_session(made["id"])
    page.click("#tab-bot")
    page.click("[aria-label='Edit Nina']")
    page.locator("dialog textarea").first.fill("You hum.")
    page.get_by_label("Nickname").fill("Ni")
    page.click("dialog >> text=Remove the picture")
    page.click("dialog >> text=Save")
    expect(page.locator(".toast")).to_contain_text("Saved “Nina”")
    page.hover(".toast")  # it stays as long
    saved = site.api("GET", f"/api/bots/{made['id']}")["bot"]
    assert (saved["persona"], saved["picture"]) == ("You hum.", "")
    site.api("PATCH", f"/api/bots/{made['id']}", {"revision": saved["revision"], "greeting": "Hm."})
    page.click(".toast >> text=Undo")
    expect(page.locator("#panel-bot .monogram img")).to_have_count(1)
    undone = site.api("GET", f"/api/bots/{made['id']}")["bot"]
    assert (undone["persona"], undone["greeting"]) == ("You sing.", "Hm.") and undone["picture"]
    assert "nickname" not in undone.get("card", {})
    site.api("DELETE", f"/api/bots/{made['id']}", {})


def test_a_bot_chooses_among_the_adapters_that_are_loaded(page, open_session, site):
    """Where there are none, there is no such field; one that is gone is told at the bot."""
    open_session(MARLOW)
    page.click("[aria-label='Actions for Marlow']")
    page.click(".menu >> text=Edit")
    expect(page.locator("dialog textarea").first).to_be_visible()
    assert page.locator("dialog select").count() == 0
    page.click("dialog >> text=Cancel")
    site.model.adapters = ["tales", "verse"]
    try:
        page.reload()
        page.click("[aria-label='Actions for Marlow']")
        page.click(".menu >> text=Edit")
        select = page.get_by_label("Adapter")
        expect(select.locator("option")).to_have_text(["None", "tales", "verse"])
        select.select_option("verse")
        page.click("dialog >> text=Save")
        expect(page.locator("dialog")).to_have_count(0)
        assert site.api("GET", f"/api/bots/{MARLOW}")["bot"]["adapter"] == "verse"
        site.model.adapters = []
        page.reload()
        page.click("[role=tab] >> text=Bot")
        expect(page.locator(".bot-row .wrong")).to_have_text("Its adapter verse is not loaded.")
    finally:
        site.model.adapters = []
        now = site.api("GET", f"/api/bots/{MARLOW}")["bot"]
        site.api("PATCH", f"/api/bots/{MARLOW}", {"revision": now["revision"], "adapter": ""})


def test_two_bots_or_presets_of_one_name_are_refused_in_words(page, open_session, site):
    open_session()
    before = site.api("GET", "/api/bots")["bots"]
    page.click("text=Save as preset")
    page.click(".menu >> text=Save as a new preset")
    page.fill("dialog input", "balanced ")
    page.click("dialog .primary")
    expect(page.locator("dialog .wrong")).to_have_text("There is a preset of that name already.")
    page.fill("dialog input", "n" * 61)
    page.press("dialog input", "Enter")
    expect(page.locator("dialog .wrong")).to_have_text("The name has more than 60 characters.")
    page.click("dialog >> text=Cancel")
    page.click("#tab-bot")
    page.click("text=New bot")
    page.fill("dialog input[type=text]", "MARLOW")
    page.click("dialog >> text=Create")
    expect(page.locator("dialog .wrong")).to_contain_text("There is a bot called Marlow already")
    page.click("dialog >> text=Cancel")
    assert site.api("GET", "/api/bots")["bots"] == before
