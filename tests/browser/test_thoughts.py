"""Thoughts on the page: how long one took, the answer at once, and how much the model is to think."""

import re

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, go_to, say, wait_until_quiet, wait_until_saved
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser


@pytest.fixture
def thinker(site):
    site.model.thinks, site.model.efforts = True, ("none", "low", "medium", "high")
    yield site.model
    site.model.thinks, site.model.efforts = False, ()


def test_a_folded_thought_shows_its_time_and_tokens_after_a_reload_too(page, open_session):
    open_session()
    say(page, "think about it")
    wait_until_quiet(page)
    label = re.compile(r"^Thought for \d+ s · \d+ tokens$")
    expect(page.locator(".think summary")).to_have_text(label)
    shown = page.inner_text(".think summary")
    page.reload()
    expect(page.locator(".think summary")).to_have_text(shown)


@pytest.mark.parametrize("width", [1280, 320])
def test_answer_now_ends_the_thought(new_context, site, thinker, width):
    page = new_context(viewport={"width": width, "height": 700}).new_page()
    go_to(page, site.session(MARLOW))
    site.model.hold(after=4)
    say(page, "think about it")
    expect(page.locator(".think summary")).to_contain_text("Thinking…")
    assert_accessible(page, "a thought goes on")
    button = page.get_by_role("button", name="Answer now")
    box = button.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    with page.expect_response("**/answer") as answered:
        button.click()
    assert answered.value.status == 200
    site.model.release()
    wait_until_quiet(page)
    expect(button).to_have_count(0)
    expect(page.locator(".from-bot .md")).to_have_text("After thinking: yes.")
    page.click(".think summary")
    expect(page.locator(".thoughts")).not_to_contain_text("two")


def test_effort_and_budget_are_there_where_the_model_thinks(page, open_session, site, thinker):
    session_id = open_session()
    effort, budget = (page.locator(f"[data-parameter={name}]") for name in (
        "reasoning_effort", "thinking_budget"))
    page.click("#tab-sampling")
    expect(effort.locator("option")).to_have_text(["As the model does", "Off", "Low", "Medium", "High"])
    effort.locator("select").select_option("low")
    expect(effort).to_have_class(re.compile("is-changed"))
    budget.locator("input").fill("64")
    budget.locator("input").press("Enter")
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {"reasoning_effort": "low", "thinking_budget": 64}
    effort.locator(".reset").click()
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"] == {"thinking_budget": 64}
    assert_accessible(page, "the settings of a model that thinks")


def test_only_what_the_models_template_can_tell_is_offered(page, open_session, site, thinker):
    thinker.efforts = ("none",)
    open_session()
    page.click("#tab-sampling")
    options = page.locator("[data-parameter=reasoning_effort] option")
    expect(options).to_have_text(["As the model does", "Off"])


def test_a_model_that_does_not_think_has_neither(page, open_session, site):
    open_session()
    page.click("#tab-sampling")
    expect(page.locator("[data-parameter=temperature]")).to_be_visible()
    for name in ("reasoning_effort", "thinking_budget"):
        expect(page.locator(f"[data-parameter={name}]")).to_have_count(0)
