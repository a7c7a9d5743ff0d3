"""Other engines in the page: adding one, using its model, where text goes, bots on engines of their own."""

import threading

import pytest
from playwright.sync_api import expect
from waitress.server import create_server

from tests.helpers.failing_disk import FastDisk
from tests.helpers.fake_server import write_bots
from tests.helpers.shelf import Shelf
from tests.helpers.stand_in_engine import CLOSE, STALL, StandInEngine, end, text

from .conftest import MARLOW, OTTO, HeldModel, Site, go_to, say, wait_until_quiet
from .test_accessibility import assert_accessible
from .test_model_menu import open_menu_of, row

pytestmark = pytest.mark.browser

SECRET = "sk-nobody-else-knows"


@pytest.fixture
def engine():
    with StandInEngine("qwen3-8b", "gemma-3-27b").running() as engine:
        yield engine


@pytest.fixture
def second():
    with StandInEngine("llama-70b").running() as engine:
        yield engine


@pytest.fixture
def site(tmp_path):
    from webui import create_app
    from webui.routes.parlor import parlor
    from webui.storage.store import Store

    (tmp_path / "models").mkdir()
    shelf = Shelf(tmp_path / "models")
    shelf.slot.load(shelf.ids["one"])
    assert shelf.slot.wait().name == "one"
    write_bots(tmp_path / "sessions" / "bots")
    store = Store(tmp_path / "sessions", disk=FastDisk())
    app = create_app(shelf.slot, store)
    server = create_server(app, host="127.0.0.1", port=0, threads=24, channel_request_lookahead=1)
    threading.Thread(target=server.run, daemon=True).start()
    yield Site(f"http://127.0.0.1:{server.effective_port}", HeldModel())
    parlor(app).close("the test is over", 1.0)
    server.close()
    shelf.close()
    store.close()


def add(site, engine, name="Box"):
    return site.api("POST", "/api/engines", {"url": engine.url, "name": name})["engine"]["id"]


def give(site, bot, engine_id, model):
    known = site.api("GET", f"/api/bots/{bot}")["bot"]
    chosen = {"id": engine_id, "model": model}
    site.api("PATCH", f"/api/bots/{bot}", {"revision": known["revision"], "engine": chosen})


def test_an_engine_is_added_in_the_menu_and_its_model_is_used(page, site, engine, watch):
    watch.expected = ("400",)  # what is no address is refused
    engine.models[0]["max_model_len"] = 4096
    engine.echoes = engine.continues = False
    go_to(page, site.session(MARLOW, OTTO))
    expect(page.locator("#host-line")).to_be_hidden()
    open_menu_of(page, 2)
    page.get_by_text("Add an engine").click()
    dialog = page.get_by_role("dialog", name="Add an engine")
    expect(dialog.get_by_label("Address")).to_be_focused()
    assert_accessible(page, "engines")
    dialog.get_by_label("Address").fill("ftp://box")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("begins with http://")
    dialog.get_by_label("Address").fill(engine.url)
    dialog.get_by_label("Name").fill("Box")
    dialog.get_by_label("Key", exact=True).fill(SECRET)
    dialog.get_by_label("Further headers").fill("no header")
    dialog.get_by_text("Add", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("no colon")
    dialog.get_by_label("Further headers").fill("X-Team: red")
    dialog.get_by_text("Add", exact=True).click()
    expect(page.get_by_role("list", name="Other engines")).to_contain_text("2 models")
    expect(row(page, "qwen3-8b (Box)")).to_contain_text(f"Text goes to {engine.host}")
    assert_accessible(page, "engines")
    page.get_by_label("Use qwen3-8b (Box)").click()
    expect(row(page, "qwen3-8b (Box)")).to_contain_text(f"In use, at {engine.host}")
    page.keyboard.press("Escape")
    expect(page.locator("#host-line")).to_have_text(f"What is said here goes to {engine.host}.")
    expect(page.locator(".machine-button")).to_contain_text(f"at {engine.host}")
    say(page, "Hello")
    wait_until_quiet(page)
    expect(page.locator(".message.is-last")).to_contain_text("You said: User: Hello")
    expect(page.locator("#status-line .used")).to_contain_text("about ")
    page.get_by_role("tab", name="Session").click()
    expect(page.get_by_label("Model decides")).to_be_disabled()
    expect(page.locator("[role=radiogroup]", has=page.get_by_label("Model decides"))).to_contain_text(
        "the model cannot decide who speaks")
    page.get_by_role("tab", name="Model").click()
    expect(page.locator("#right")).to_contain_text("replies cannot be continued")
    expect(page.locator("#right")).to_contain_text(f"goes to {engine.host}")
    expect(page.locator("#right")).not_to_contain_text("Everything stays")
    assert engine.requests[-1][1]["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in page.content()


def test_an_engine_that_does_not_answer_is_told_asked_again_and_removed(page, site, engine):
    nobody = StandInEngine("late")
    with nobody.running():
        pass
    add(site, nobody, "Late")
    go_to(page)
    page.click(".machine-button")
    engines = page.get_by_role("list", name="Other engines")
    expect(engines).to_contain_text("cannot be reached")
    with nobody.running():
        page.get_by_label("Ask Late again").click()
        expect(engines).to_contain_text("1 model")
        expect(row(page, "late (Late)")).to_be_visible()
    page.get_by_label("Remove Late").click()
    page.get_by_role("dialog", name="Remove Late?").get_by_text("Remove", exact=True).click()
    expect(row(page, "late (Late)")).to_have_count(0)
    expect(page.get_by_text("Add an engine")).to_be_focused()


def test_an_engine_is_edited_and_its_key_goes_to_no_other_host(page, site, engine, second, watch):
    watch.expected = ("400",)  # the old key for a new host
    body = {"url": engine.url, "name": "Box", "key": SECRET, "headers": {"X-Team": "red"}}
    site.api("POST", "/api/engines", body)
    go_to(page)
    page.click(".machine-button")
    page.get_by_label("Edit Box").click()
    dialog = page.get_by_role("dialog", name="Edit Box")
    expect(dialog.get_by_label("Address")).to_have_value(engine.url)
    expect(dialog.get_by_label("Key", exact=True)).to_have_value("")
    expect(dialog.get_by_label("Further headers")).to_have_value("X-Team: ••••••")
    assert_accessible(page, "engines")
    dialog.get_by_label("Name").fill("Cellar")
    dialog.get_by_label("Further headers").fill("X-Team: ••••••\nX-More: blue")
    dialog.get_by_text("Save", exact=True).click()
    engines = page.get_by_role("list", name="Other engines")
    expect(engines).to_contain_text("Cellar")
    expect(engines).to_contain_text("2 models")
    sent = engine.requests[-1][1]
    assert (sent["authorization"], sent["x-team"], sent["x-more"]) == (f"Bearer {SECRET}", "red", "blue")
    page.get_by_label("Edit Cellar").click()
    dialog = page.get_by_role("dialog", name="Edit Cellar")
    dialog.get_by_label("Address").fill(second.url)
    dialog.get_by_text("Save", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text(f"give them again for {second.host}")
    dialog.get_by_label("Delete the key").check()
    dialog.get_by_label("Further headers").fill("")
    dialog.get_by_text("Save", exact=True).click()
    expect(engines).to_contain_text(second.host)
    expect(engines).to_contain_text("1 model")
    assert SECRET not in str(second.requests) + page.content()


def test_two_bots_speak_by_two_engines_and_the_line_says_where_text_goes(page, site, engine, second):
    one, two = add(site, engine), add(site, second, "Two")
    give(site, OTTO, two, "llama-70b")
    session = site.session(MARLOW, OTTO)
    go_to(page, session)
    expect(page.locator("#host-line")).to_have_text(f"What is said here goes to {second.host} (Otto).")
    page.get_by_role("tab", name="Bot").click()
    page.get_by_label("Edit Marlow").click()
    choice = page.locator("#bot-model")
    expect(choice.locator("option")).to_have_count(4)
    choice.select_option(label="qwen3-8b (Box)")
    expect(page.locator("#bot-model-help")).to_contain_text(f"goes to {engine.host}")
    assert_accessible(page, "engines")
    page.get_by_role("dialog").get_by_text("Save", exact=True).click()
    expect(page.locator("#host-line")).to_have_text(
        f"What is said here goes to {engine.host} (Marlow) and {second.host} (Otto).")
    assert site.api("GET", f"/api/bots/{MARLOW}")["bot"]["engine"] == {"id": one, "model": "qwen3-8b"}
    engine.script, second.script = [text("Ahoy."), end()], [text("def"), STALL]
    say(page, "Marlow, and then Otto?")
    wait_until_quiet(page)
    expect(page.locator(".message.is-last")).to_contain_text("Ahoy.")
    expect(page.locator("#model-line")).to_be_hidden()  # it is the bot's, whichever is loaded
    say(page, "Otto?")
    expect(page.locator(".message.is-last")).to_contain_text("def")
    expect(page.locator("#host-line")).to_be_visible()  # while it goes, too
    page.click(".stop")
    wait_until_quiet(page)
    assert second.closed.wait(10)
    second.script = [text("Half a"), CLOSE]
    say(page, "Otto, again?")
    wait_until_quiet(page)
    expect(page.locator(".message.is-last")).to_contain_text("Half a")
    expect(page.locator(".message.is-last")).to_contain_text("closed the connection")
