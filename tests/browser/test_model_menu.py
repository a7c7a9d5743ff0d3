"""The menu of models: choosing, watching, cancelling, unloading, by mouse and by keys, in every open tab."""

import pytest
from playwright.sync_api import expect

from model import Downloads
from tests.helpers.adapters import random_products, write_peft
from tests.helpers.api import wait_until
from tests.helpers.failing_disk import FastDisk
from tests.helpers.fake_server import write_bots
from tests.helpers.gguf_models import write_llama
from tests.helpers.served import served
from tests.helpers.shelf import Shelf
from tests.helpers.stand_in_hub import StandInHub
from tests.helpers.tiny_models import TINY, random_tensors

from .conftest import MARLOW, HeldModel, Site, go_to, say, wait_until_quiet
from .test_accessibility import assert_accessible

pytestmark = pytest.mark.browser

NOW = ".dialog-body > .models-now"


@pytest.fixture
def shelf(tmp_path):
    (tmp_path / "models").mkdir()
    shelf = Shelf(tmp_path / "models")
    yield shelf
    shelf.close()


@pytest.fixture
def hub(tmp_path):
    hub = StandInHub()
    write_llama(tmp_path / "made.gguf", TINY, random_tensors(TINY))
    model = (tmp_path / "made.gguf").read_bytes()
    hub.repos["owner/Tiny-GGUF"] = {"Tiny-Q4_K_M.gguf": model, "Tiny-Q8_0.gguf": model + b"\0" * 64}
    with hub.running() as hub.address:
        yield hub


@pytest.fixture
def site(shelf, hub, tmp_path):
    from webui import create_app
    from webui.storage.store import Store

    write_bots(tmp_path / "sessions" / "bots")
    store = Store(tmp_path / "sessions", disk=FastDisk())
    downloads = Downloads(tmp_path / "models", lambda: 1 << 40, hub.address, done=shelf.slot.catalogue.add)
    app = create_app(shelf.slot, store, downloads=downloads)
    with served(app, threads=24) as address:
        yield Site(address, HeldModel())
    store.close()


def load(shelf, name="one"):
    shelf.slot.load(shelf.ids[name])
    assert shelf.slot.wait().name == name


def open_menu(page):
    open_menu_of(page, 2)


def open_menu_of(page, number):
    page.click(".machine-button")
    expect(page.locator("dialog p[role=status]")).to_have_text(f"{number} models")


def row(page, name):
    return page.locator(".model", has=page.get_by_text(name, exact=True))


def test_without_a_model_one_is_chosen_by_keys_alone(page, shelf, site):
    go_to(page)
    expect(page.locator("#model-line")).to_contain_text("No model is loaded.")
    page.locator("#model-line button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog p[role=status]")).to_have_text("2 models")
    expect(page.get_by_label("Search models")).to_be_focused()
    page.keyboard.type("TWO llama")
    expect(page.locator("dialog p[role=status]")).to_have_text("1 model")
    shelf.go_on.clear()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Load two")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(NOW)).to_contain_text("Loading two.")
    expect(page.locator(f"{NOW} [role=progressbar]")).to_have_attribute("aria-valuenow", "50")
    expect(page.locator(NOW).get_by_text("Cancel")).to_be_focused()
    shelf.go_on.set()
    expect(page.locator(NOW)).to_contain_text("two is loaded.")
    expect(page.get_by_label("Search models")).to_be_focused()  # there is nothing to cancel any more
    expect(row(page, "two")).to_contain_text("Loaded")
    page.keyboard.press("Escape")
    expect(page.locator("#model-line")).to_be_hidden()
    expect(page.locator(".machine-button")).to_contain_text("two")
    expect(page.locator("#status-line .used")).to_have_text("0 of 2,048 tokens")
    say(page, "Hello")
    wait_until_quiet(page)


def test_every_tab_sees_the_change_and_who_sends_meanwhile_waits_for_it(context, shelf, site):
    load(shelf)
    session = site.session(MARLOW)
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        go_to(tab, session)
    shelf.go_on.clear()
    open_menu(tabs[0])
    tabs[0].get_by_label("Load two").click()
    expect(tabs[1].locator("#model-line")).to_contain_text("Loading two")
    tabs[1].fill("#text", "Hello")
    tabs[1].press("#text", "Enter")
    expect(tabs[1].locator(".stop")).to_be_visible()
    shelf.go_on.set()
    expect(tabs[1].locator(".message.is-last")).to_contain_text("You said: Hello")
    for tab in tabs:
        expect(tab.locator(".machine-button")).to_contain_text("two")
        expect(tab.locator("#model-line")).to_be_hidden()
    assert site.read(session)["messages"][-1]["model"] == "two"


def test_loading_can_be_cancelled_from_the_line_above_the_composer(page, shelf, site):
    go_to(page)
    shelf.go_on.clear()
    shelf.slot.load(shelf.ids["one"])
    expect(page.locator("#model-line")).to_contain_text("Loading one")
    page.locator("#model-line").get_by_text("Cancel").click()
    expect(page.locator("#model-line")).to_contain_text("No model is loaded.")
    expect(page.locator(".toast")).to_contain_text("Loading was cancelled.")


def test_a_reply_that_is_being_written_is_asked_about(page, shelf, site, watch):
    watch.expected = ("409",)
    load(shelf)
    shelf.models[0].gate.clear()
    go_to(page, site.session(MARLOW))
    say(page, "Hello")
    open_menu(page)
    page.get_by_label("Load two").click()
    question = page.locator("dialog", has_text="A reply is being written")
    question.get_by_role("button", name="Cancel").click()
    expect(page.locator(NOW)).to_contain_text("one is loaded.")
    page.get_by_label("Load two").click()
    question.get_by_role("button", name="Stop it").click()
    expect(page.locator(NOW)).to_contain_text("two is loaded.")
    page.keyboard.press("Escape")
    expect(page.locator("#model-line")).to_contain_text("Written with one; two is loaded now.")


def test_a_session_says_which_model_it_was_written_with(page, shelf, site):
    load(shelf)
    session = site.session(MARLOW)
    go_to(page, session)
    say(page, "Hello")
    wait_until_quiet(page)
    load(shelf, "two")
    expect(page.locator("#model-line")).to_contain_text("Written with one; two is loaded now.")
    page.get_by_text("Load that one").click()
    expect(page.locator(".machine-button")).to_contain_text("one")
    expect(page.locator("#model-line")).to_be_hidden()


def test_a_model_that_sleeps_is_loaded_again_by_the_next_message(page, shelf, site):
    load(shelf)
    go_to(page, site.session(MARLOW))
    shelf.slot.unload(sleep=True)
    expect(page.locator(".machine-button")).to_contain_text("one · asleep")
    expect(page.locator("#model-line")).to_be_hidden()
    say(page, "Are you there?")
    expect(page.locator(".message.is-last")).to_contain_text("You said: Are you there?")
    expect(page.locator(".machine-button")).not_to_contain_text("asleep")
    assert len(shelf.models) == 2


def test_unloading_leaves_the_page_and_its_drafts_and_says_so(page, shelf, site, watch):
    watch.expected = ("409",)
    load(shelf)
    go_to(page, site.session(MARLOW))
    open_menu(page)
    page.locator("dialog").get_by_text("Unload").click()
    expect(page.locator(NOW)).to_contain_text("No model is loaded.")
    page.keyboard.press("Escape")
    page.fill("#text", "Hello?")
    page.press("#text", "Enter")
    expect(page.locator(".toast")).to_contain_text("No model is loaded. Choose one")
    expect(page.locator("#text")).to_have_value("Hello?")
    page.click("#open-right") if page.locator("#right").is_hidden() else None
    page.click("#tab-model")
    page.get_by_text("Choose a model").click()
    expect(page.get_by_label("Search models")).to_be_focused()


def test_what_cannot_be_loaded_says_why_and_errors_are_told_in_every_tab(context, page, shelf, site):
    load(shelf)
    go_to(page)
    other = context.new_page()
    go_to(other)
    open_menu(page)
    page.locator("dialog summary").click()
    expect(row(page, "broken")).to_contain_text("broken.gguf: the header goes on behind the file's end")
    expect(row(page, "broken").locator("button")).to_have_count(0)
    shelf.error = ValueError("the file is cut off")
    page.get_by_label("Load two").click()
    expect(page.locator(".dialog-body > .wrong")).to_have_text("two was not loaded: the file is cut off")
    expect(page.locator(".toast")).to_have_count(0)
    expect(other.locator(".toast")).to_contain_text("two was not loaded: the file is cut off")


def test_what_does_not_fit_says_what_would(page, shelf, site, monkeypatch):
    monkeypatch.setattr(shelf.slot.catalogue, "free_bytes", lambda: 1 << 20)
    go_to(page)
    open_menu(page)
    expect(row(page, "one")).to_contain_text("Does not fit. one: the weights need")
    expect(page.get_by_label("Load one")).to_have_count(0)


def test_a_model_is_got_from_a_hub_by_keys_alone_and_loaded(page, shelf, hub, site):
    go_to(page)
    open_menu(page)
    page.get_by_text("Get more").press("Enter")
    expect(page.get_by_label("Get a model from Hugging Face's hub")).to_be_focused()
    assert hub.requests == []
    page.keyboard.type("owner/Tiny-GGUF")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Q4_K_M")).to_be_checked()
    expect(page.get_by_label("Q4_K_M")).to_be_focused()
    hub.break_after = [1000]
    hub.go_on.clear()
    page.get_by_role("button", name="Download").press("Enter")
    running = page.locator(".models-now", has_text="Downloading Tiny-Q4_K_M.gguf")
    expect(running.locator("[role=progressbar]")).not_to_have_attribute("aria-valuenow", "0")
    page.keyboard.press("Escape")
    expect(page.locator("#model-line")).to_contain_text("Downloading Tiny-Q4_K_M.gguf")
    hub.go_on.set()
    page.locator(".toast", has_text="Tiny-Q4_K_M is downloaded.").get_by_text("Load it").click()
    expect(page.locator(".machine-button")).to_contain_text("Tiny-Q4_K_M")
    open_menu_of(page, 3)
    expect(row(page, "Tiny-Q4_K_M")).to_contain_text("Loaded")


def test_what_a_hub_does_not_give_is_told_and_a_download_can_be_cancelled(page, shelf, hub, site, watch):
    watch.expected = ("400", "502")
    go_to(page)
    open_menu(page)
    source = page.get_by_label("Get a model from Hugging Face's hub")
    for text, told in (("nonsense", "names no model of a hub"), ("owner/none", "The hub has no owner/none")):
        source.fill(text)
        page.get_by_role("button", name="Look", exact=True).click()
        expect(page.locator("dialog section [role=alert]")).to_contain_text(told)
    source.fill("owner/Tiny-GGUF:Q8_0")
    source.press("Enter")
    expect(page.get_by_label("Q8_0")).to_be_checked()
    hub.go_on.clear()
    page.get_by_role("button", name="Download").click()
    running = page.locator(".models-now", has_text="Downloading Tiny-Q8_0.gguf")
    with page.expect_response("**/api/models/downloads/cancel"):  # before the file can be whole
        running.get_by_role("button", name="Cancel").click()
    expect(running.get_by_role("button", name="Cancelling…")).to_be_disabled()  # the hub sends nothing now
    expect(source).to_be_focused()
    hub.go_on.set()
    expect(running).to_be_hidden()
    expect(page.locator("dialog p[role=status]")).to_have_text("2 models")


@pytest.mark.parametrize(("theme", "size"), [("light", (1280, 800)), ("dark", (360, 640))])
def test_nothing_in_it_hinders_anybody(new_context, shelf, site, theme, size):
    width, height = size
    page = new_context(viewport={"width": width, "height": height}, color_scheme=theme).new_page()
    go_to(page)
    assert_accessible(page, "no model")
    page.locator("#model-line button").click()
    expect(page.locator("dialog p[role=status]")).to_have_text("2 models")
    page.locator("dialog summary").click()
    page.get_by_label("Get a model from Hugging Face's hub").fill("owner/Tiny-GGUF")
    page.get_by_role("button", name="Look", exact=True).click()
    expect(page.get_by_label("Q4_K_M")).to_be_checked()
    assert_accessible(page, "the menu")
    shelf.go_on.clear()
    page.get_by_label("Load one").click()
    expect(page.locator(f"{NOW} [role=progressbar]")).to_be_visible()
    assert_accessible(page, "loading")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('.dialog-body').scrollWidth <= "
                         "document.querySelector('.dialog-body').clientWidth")
    page.keyboard.press("Escape")
    assert_accessible(page, "the line")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shelf.go_on.set()
    wait_until(lambda: shelf.slot.state.phase == "ready", 60)


def test_why_the_model_of_the_start_is_not_there_stands_above_the_composer(page, shelf, site):
    """Whoever opens the page after it has failed hears of it as well."""
    shelf.error = ValueError("the file is cut off")
    shelf.slot.load(shelf.ids["one"])
    shelf.slot.wait()
    go_to(page)
    expect(page.locator("#model-line")).to_contain_text(
        "No model is loaded. one was not loaded: the file is cut off")
    page.locator("#model-line button").click()
    expect(page.locator("dialog p[role=status]")).to_have_text("2 models")
    expect(page.get_by_role("alert")).to_contain_text("the file is cut off")


def test_adapters_that_fit_are_loaded_and_unloaded_in_the_menu(page, shelf, site, tmp_path):
    """Those of other models are not listed. The page knows at once what is loaded, and the focus stays."""
    products = random_products({"model.layers.0.self_attn.q_proj": (64, 64)})
    for name in ("tales", "of-other"):
        write_peft(tmp_path / "models" / name, products)
    load(shelf)
    go_to(page)
    open_menu(page)
    part = page.locator("dialog section", has_text="LoRA adapters")
    expect(part.locator(".model-name")).to_have_text(["tales"])
    assert_accessible(page, "the adapters")
    part.get_by_role("button", name="Load tales").click()
    unload = part.get_by_role("button", name="Unload tales")
    expect(unload).to_be_visible()
    expect(unload).to_be_focused()
    assert shelf.models[0].adapters == ["tales"]
    unload.press("Enter")
    expect(part.get_by_role("button", name="Load tales")).to_be_focused()
    assert shelf.models[0].adapters == []
