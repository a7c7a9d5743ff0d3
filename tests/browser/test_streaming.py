"""Replies belong to the server: tabs that reload, join, leave or lose the line see the same text, once."""

import time

import pytest
from playwright.sync_api import expect

from tests.helpers.server_process import Server

from .conftest import context_at, go_to, say, texts, wait_until_quiet

pytestmark = pytest.mark.browser


def test_reloading_in_mid_stream_shows_the_same_text(page, open_session, site):
    session_id = open_session()
    site.model.hold(after=100)
    say(page, "a long one")
    expect(page.locator(".md.writing")).to_contain_text("word20")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/events?" in request.url else None)
    page.reload()
    expect(page.locator(".md.writing")).to_contain_text("word0 word1")
    assert len(asked) == 1, "before there are modules, and taken up by them"
    site.model.release()
    wait_until_quiet(page)
    stored = site.read(session_id)["messages"][-1]["text"]
    assert stored == " ".join(f"word{number}" for number in range(400))
    assert texts(page) == ["a long one", stored]


def test_a_reply_is_asked_for_once_however_late_its_first_reader_is(page, open_session, site):
    """The early script reads a copy of the list of sessions, and may be the later one to have it."""
    page.add_init_script("""
        const clone = Response.prototype.clone;
        Response.prototype.clone = function () {
            const copy = clone.call(this);
            const json = copy.json.bind(copy);
            copy.json = () => new Promise((resolve) => setTimeout(() => resolve(json()), 500));
            return copy;
        };
    """)
    open_session()
    site.model.hold(after=100)
    say(page, "a long one")
    expect(page.locator(".md.writing")).to_contain_text("word20")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/events?" in request.url else None)
    page.reload()
    expect(page.locator(".md.writing")).to_contain_text("word0 word1")
    page.wait_for_timeout(600)
    site.model.release()
    wait_until_quiet(page)
    assert len(asked) == 1, asked


def test_markdown_that_was_streamed_is_the_same_as_markdown_that_was_loaded(page, open_session, site):
    """Every block boundary arrives in pieces here; the reload builds the whole at once."""
    site.model.scripts.append(
        "# Title\n\nA paragraph\nof two lines.\n\n1. one\n\n2. two\n   - nested\n\n   more of two\n\n"
        "3. three\n\n"
        "```python\nx = 1\n\n"
        "y = [link]\n```\n\nSetext\n======\n\n| a | b |\n|---|---:|\n| 1 | 2 |\n\n"
        "> quote\nlazy\n\n- a\n- b\n\n"
        "Text with [ref][r].\n\n"
        "[r]: https://example.org/r\n\n---\n\nEnd 👩‍👩‍👧‍👦."
    )
    open_session()
    site.model.delay = 0.01
    site.model.hold(after=60)
    say(page, "go")
    expect(page.locator(".md.writing .heading-1").first).to_have_text("Title")
    site.model.release()
    wait_until_quiet(page)
    expect(page.locator(".from-bot .hljs-number")).to_have_count(1)
    streamed = page.locator(".from-bot .md").evaluate("one => one.innerHTML")
    page.reload()
    expect(page.locator(".from-bot .md")).to_contain_text("End")
    expect(page.locator(".from-bot .hljs-number")).to_have_count(1)
    assert page.locator(".from-bot .md").evaluate("one => one.innerHTML") == streamed
    assert page.locator(".from-bot .md > ol > li").count() == 3


def test_only_the_last_blocks_are_touched_while_a_reply_is_written(page, open_session, site):
    site.model.scripts.append("\n\n".join(f"Paragraph number {number} of the reply." for number in range(30)))
    open_session()
    site.model.hold(after=60)
    say(page, "go")
    first = page.locator(".md.writing > p").first
    expect(first).to_contain_text("number 0")
    first.evaluate("one => { one.marked = true; }")
    site.model.release()
    expect(page.locator(".from-bot .md > p")).to_have_count(30)
    wait_until_quiet(page)
    assert page.locator(".from-bot .md > p").first.evaluate("one => one.marked === true"), (
        "still the same element"
    )


def test_a_second_tab_follows_a_reply_and_new_messages(page, context, open_session, site):
    session_id = open_session()
    say(page, "Hello")
    wait_until_quiet(page)
    other = context.new_page()
    go_to(other, session_id)
    site.model.hold(after=50)
    say(page, "a long one")
    expect(other.locator(".md.writing")).to_contain_text("word5")
    site.model.release()
    wait_until_quiet(page)
    wait_until_quiet(other)
    assert texts(other) == texts(page)
    say(other, "And from here")
    wait_until_quiet(other)
    expect(page.locator(".message")).to_have_count(6)
    wait_until_quiet(page)
    assert texts(other) == texts(page)


def test_closing_the_tab_does_not_stop_the_reply(page, context, open_session, site):
    session_id = open_session()
    site.model.hold(after=50)
    say(page, "a long one")
    page.close()
    site.model.release()
    deadline = time.monotonic() + 20
    while len(site.read(session_id)["messages"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    reply = site.read(session_id)["messages"][-1]
    assert reply["finish_reason"] == "eos" and reply["text"].endswith("word399")


def test_leaving_a_session_and_coming_back_finds_the_reply_running(page, open_session, site):
    site.model.hold(after=30)
    first = open_session()
    say(page, "a long one")
    expect(page.locator(".md.writing")).to_contain_text("word2")
    page.click("#new-session")
    expect(page.locator(".md.writing")).to_have_count(0)
    expect(page.locator(f".session:has([href='./#{first}']) .session-note")).to_have_text("Marlow is writing")
    page.click(f"[href='./#{first}']")
    expect(page.locator(".md.writing")).to_contain_text("word0 word1 word2")
    site.model.release()
    wait_until_quiet(page)
    assert texts(page)[1].endswith("word399")


def test_a_stale_tab_loses_nothing(page, open_session, site, watch):
    """The first tab does not know yet what the second one did: it is told, and its draft stays."""
    watch.expected = ("409 (CONFLICT)",)
    session_id = open_session()
    page.route("**/api/changes**", lambda route: None)  # never answered: this tab hears nothing
    session = site.read(session_id)
    site.api(
        "POST",
        f"/api/sessions/{session_id}/messages",
        {"revision": session["revision"], "text": "From elsewhere", "reply": False},
    )
    page.fill("#text", "From the stale tab")
    page.press("#text", "Enter")
    expect(page.locator(".toast")).to_contain_text("changed in another tab")
    expect(page.locator(".from-user .md")).to_have_text(["From elsewhere"])
    expect(page.locator("#text")).to_have_value("From the stale tab")
    page.press("#text", "Enter")
    expect(page.locator(".from-user .md")).to_have_text(["From elsewhere", "From the stale tab"])


def test_a_message_that_meets_the_end_of_a_reply_is_sent_all_the_same(page, open_session, site, watch):
    """The page does not know yet that the reply which it watches has ended; nobody else changed anything."""
    watch.expected = ("409 (CONFLICT)",)
    session_id = open_session()
    for path in ("**/api/changes**", "**/events**"):
        page.route(path, lambda route: None)  # never answered: the reply seems to go on
    say(page, "First")
    deadline = time.monotonic() + 60
    while len(site.read(session_id)["messages"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    say(page, "Second")
    expect(page.locator(".toast")).to_have_count(0)
    said = [message["text"] for message in site.read(session_id)["messages"] if message["author"] == "user"]
    assert said == ["First", "Second"]


def test_scrolling_up_lets_go_at_once_and_the_end_takes_hold_again(page, open_session, site):
    site.model.scripts.append(
        "\n\n".join(f"Line {number} of a reply that is longer than the window." for number in range(90))
    )
    open_session()
    site.model.hold(after=500)
    say(page, "go")
    expect(page.locator(".md.writing")).to_contain_text("Line 30")
    page.locator("#transcript").hover()
    page.mouse.wheel(0, -300)
    expect(page.locator("#jump")).to_be_visible()
    before = where_it_comes_to_rest(page)
    site.model.release()
    wait_until_quiet(page)
    assert page.eval_on_selector("#transcript", "one => one.scrollTop") == before, "the reader is left alone"
    page.click("#jump")
    expect(page.locator("#jump")).to_be_hidden()
    assert distance_to_end(page) <= 4


def where_it_comes_to_rest(page):
    """The transcript's scrollTop, once the wheel has moved it and it has not changed for some frames."""
    return page.evaluate("""() => new Promise((resolve) => {
      const one = document.querySelector("#transcript");
      const isAway = () => one.scrollHeight - one.clientHeight - one.scrollTop > 200;
      const look = (before, same) => requestAnimationFrame(() => {
        if (same === 10) resolve(before);
        else look(one.scrollTop, isAway() && one.scrollTop === before ? same + 1 : 0);
      });
      look(-1, 0);
    })""")


def distance_to_end(page):
    return page.eval_on_selector("#transcript", "one => one.scrollHeight - one.clientHeight - one.scrollTop")


def test_a_server_that_dies_in_mid_reply_is_announced_and_all_is_there_again(chromium, tmp_path):
    server = Server(tmp_path, "--delay", "0.2")  # 80 s altogether
    context = context_at(chromium, server.url)
    page = context.new_page()
    try:
        go_to(page)
        say(page, "a long one")
        expect(page.locator(".md.writing")).to_contain_text("word5")
        server.kill()
        expect(page.locator("#banner")).to_contain_text("does not answer")
        expect(page.locator(".stop")).to_be_hidden()
        expect(page.locator(".from-bot .note")).to_have_text("waiting for the server")
        page.fill("#text", "typed in the meantime")
        server.start()
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator(".badge.serious")).to_contain_text("Interrupted")
        expect(page.locator(".from-bot .md")).to_contain_text("word0 word1")
        expect(page.locator("#text")).to_have_value("typed in the meantime")
    finally:
        context.close()
        server.kill()
