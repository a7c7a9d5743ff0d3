"""The X-ray of the next token: what each sampler leaves, live under its slider, and for fingers and axe."""

import pytest
from playwright.sync_api import expect

from .conftest import MARLOW, OTTO, go_to, say, wait_until_quiet, wait_until_saved
from .test_accessibility import assert_accessible
from .test_touch import SMALL, TOUCHED

pytestmark = pytest.mark.browser

MOVE = """async (name) => {
  const slider = document.querySelector(`dialog [data-parameter=${name}] .slider`);
  slider.value = 850;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const stage = slider.closest("li");
  return [stage.querySelector(":scope > .help").textContent, stage.querySelector(".xray-left").textContent];
}"""


def stage(page, name):
    return page.locator(f"dialog [data-stage={name}]")


def table(page):
    """Its rows as they are read: the first cell's spoken text, then what was before and what is after."""
    return page.eval_on_selector_all(
        "dialog tbody tr",
        """(rows) => rows.map((row) => [
          (row.querySelector(".visually-hidden") || row.cells[0]).textContent,
          ...[...row.cells].slice(1).map((cell) => cell.textContent)])""",
    )


def test_each_sampler_says_what_it_leaves_and_does_so_in_the_frame_in_which_its_slider_moves(page, site):
    session_id = site.import_path(["Hello", "Hello yourself."])
    go_to(page, session_id)
    revision = site.read(session_id)["revision"]
    site.model.looked.clear()
    page.click("text=See what they do to the next token")
    expect(stage(page, "all").locator(".xray-left")).to_have_text("6 left")
    names = page.locator("dialog h3 > button > span:first-child").all_inner_texts()
    assert names == ["All together", "The model alone", "Penalties", "DRY", "Top-n-sigma", "Temperature",
                     "Top-k", "Top-p", "Min-p", "Typical", "XTC", "Mirostat"]
    rows = table(page)
    assert rows[0] == ["alpha", "33%", "41%"] and len(rows) == 11
    page.click("text=Show 200 tokens")
    rows = table(page)
    assert ["1 line break", "0.6%", "Top-p"] in rows and rows[-1] == ["300 other tokens", "<0.1%", "cut"]
    expect(stage(page, "top_k").locator(".xray-left")).to_have_text("off")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "GET" else None)
    stage(page, "min_p").locator("button").first.click()
    expect(page.locator("dialog caption")).to_have_text("The likeliest tokens before and after Min-p")
    said, left = page.evaluate(MOVE, "min_p")
    assert left == "1 left" and said.startswith("Keeps tokens at least 85% as likely as the likeliest: 1 of ")
    assert table(page)[:2] == [["alpha", "41%", "100%"], ["beta", "25%", "cut"]]
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"]["min_p"] == 0.85
    assert not [url for url in asked if "next-token" in url], "the model is asked once"
    assert len(site.model.looked) == 1 and site.read(session_id)["messages"][-1]["text"] == "Hello yourself."
    assert site.read(session_id)["revision"] > revision  # of the setting alone
    stage(page, "min_p").locator("text=Do it earlier").click()
    expect(page.locator("dialog h3 > button > span:first-child").nth(7)).to_have_text("Min-p")
    expect(page.locator(":focus")).to_have_text("Do it earlier")
    assert table(page)[0] == ["alpha", "39%", "100%"], "Top-p comes behind it now"
    wait_until_saved(page, session_id)
    assert site.read(session_id)["sampling"]["samplers"][5:7] == ["min_p", "top_p"]
    expect(page.locator(".xray-outdated")).to_be_hidden()
    site.api("POST", f"/api/sessions/{session_id}/messages",
             {"revision": site.read(session_id)["revision"], "text": "News", "reply": False})
    expect(page.locator(".xray-outdated")).to_contain_text("The conversation has changed since.")
    page.click("dialog >> text=Look again")
    expect(page.locator("dialog tbody tr").first).to_be_visible()
    assert site.model.looked[-1]["messages"][-1].content == "News"
    assert_accessible(page, "the X-ray")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(":focus")).to_have_text("See what they do to the next token")


def test_on_a_phone_it_can_be_touched_and_nothing_is_to_object_to(new_context, site):
    options = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}
    page = new_context(color_scheme="dark", **options).new_page()
    go_to(page, site.session(MARLOW, OTTO))
    page.tap("#open-right")
    page.tap("text=See what they do to the next token")
    expect(page.locator("dialog tbody tr").first).to_be_visible()
    page.select_option("dialog select", label="Otto")
    stage(page, "xtc").locator("button").first.tap()
    expect(page.locator("dialog [data-parameter=xtc_threshold]")).to_be_visible()
    assert site.model.looked[-1]["reply_name"] == "Otto"
    stage(page, "temperature").locator("button").first.tap()
    expect(page.locator("dialog tbody tr")).to_have_count(11)
    assert page.evaluate(SMALL, TOUCHED) == []
    assert_accessible(page, "the X-ray")
    page.keyboard.press("Escape")
    go_to(page, site.session(sampling={"temperature": 0}))
    page.tap("#open-right")
    page.tap("text=See what they do to the next token")
    expect(page.locator("dialog tbody td", has_text="Temperature").first).to_be_visible()
    assert page.locator("dialog .dialog-body").evaluate("body => body.scrollWidth - body.clientWidth") == 0


def test_the_lens_shows_what_the_samplers_do_in_a_tokens_place(page, site):
    go_to(page, site.session())
    site.model.scripts.append("gamma alpha beta gamma")
    say(page, "Count.")
    wait_until_quiet(page)
    page.click(".is-last .actions >> text=Tokens")
    page.click(".lens-token >> nth=2")
    page.click(".lens-others >> text=See what the samplers do here")
    expect(page.locator("dialog h2").last).to_have_text("What samplers do in Marlow's reply")
    expect(page.locator("dialog tr.is-chosen")).to_contain_text("beta (this one came)")
    page.keyboard.press("Escape")
    expect(page.locator(":focus")).to_have_attribute("aria-label", "beta, 50%")
