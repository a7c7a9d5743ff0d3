"""A session of 1,000 messages (2 MB) costs no more than a short one. Times are only reported."""

import pytest
from playwright.sync_api import expect

from .conftest import go_to, say, wait_until_quiet

pytestmark = pytest.mark.browser

MAX_NODES = 5000


def nodes(page):
    return page.evaluate("document.querySelectorAll('*').length")


def scroll(page, change):
    """Change the transcript's scrollTop, and wait until the page has drawn what is there now."""
    page.evaluate("""(change) => new Promise((drawn) => {
      const one = document.querySelector("#transcript");
      one.scrollTop += change;
      const frames = (left) => (left ? requestAnimationFrame(() => frames(left - 1)) : drawn());
      frames(3); // the event comes with the next one
    })""", change)


def long_texts():
    """User lines are short; replies have lists, code and tables, about 4 kB each."""
    reply = (
        "Some **words** about number {n} and `code`.\n\n- one\n- two\n- three\n\n"
        "```python\nprint({n})\n```\n\n| a | b |\n|---|---|\n| 1 | {n} |\n\n"
        + "A paragraph that goes on for a while so that the message has a proper length. " * 45
    )
    return [f"Question {n}" if n % 2 == 0 else reply.replace("{n}", str(n)) for n in range(1000)]


def test_a_thousand_messages_stay_within_the_budget(page, site, record_property):
    session_id = site.import_path(long_texts())
    page.add_init_script("""
      window.longTasks = [];
      const note = (entry) => window.longTasks.push(entry.duration);
      new PerformanceObserver((list) => list.getEntries().forEach(note))
        .observe({ type: "longtask", buffered: true });""")
    go_to(page)
    opened = page.evaluate(
        """(id) => new Promise((resolve) => {
      const start = performance.now();
      const look = () => document.querySelector("#messages").textContent.includes("number 999")
        ? resolve(performance.now() - start) : requestAnimationFrame(look);
      location.hash = id;
      look();
    })""",
        session_id,
    )
    expect(page.locator(".message").last).to_contain_text("number 999")
    at_end = nodes(page)
    assert at_end <= MAX_NODES
    for _ in range(12):
        scroll(page, -1_000_000)
    scrolled = nodes(page)
    assert scrolled <= MAX_NODES
    first_seen = page.locator(".message").first.text_content()
    assert "999" not in first_seen
    page.click("#jump")
    expect(page.locator(".message").last).to_contain_text("number 999")
    site.model.delay = 0.01
    page.evaluate("window.longTasks.length = 0")
    site.model.scripts.append("\n\n".join(f"A streamed paragraph, number {number}." for number in range(40)))
    say(page, "go on")
    wait_until_quiet(page)
    expect(page.locator(".from-bot").last).to_contain_text("number 39")
    assert nodes(page) <= MAX_NODES
    long_tasks = [round(task) for task in page.evaluate("window.longTasks")]
    report = (
        f"open {opened:.0f} ms, nodes {at_end} at the end, {scrolled} after scrolling up, "
        f"long tasks while streaming {long_tasks}"
    )
    record_property("long_session", report)
    print(report)


def test_every_message_can_be_reached_by_scrolling(page, site):
    session_id = site.import_path([f"Message {n} " + "and some more words " * 12 for n in range(160)])
    go_to(page, session_id)
    expect(page.locator(".message").last).to_contain_text("Message 159")
    seen = set()
    for _ in range(80):
        seen.update(page.eval_on_selector_all(".message", "all => all.map(one => one.dataset.id)"))
        if page.evaluate("document.querySelector('#messages').textContent.includes('Message 0 ')"):
            break
        scroll(page, -900)
    assert len(seen) == 160
    for _ in range(80):
        if page.evaluate("document.querySelector('#messages').textContent.includes('Message 159 ')"):
            break
        scroll(page, 900)
    expect(page.locator(".message").last).to_contain_text("Message 159")


def test_the_line_where_the_models_memory_begins(page, site):
    session_id = site.import_path([f"Message {n} " + "word " * 100 for n in range(41)])
    go_to(page, session_id)
    expect(page.locator(".memory-line")).to_contain_text("The model's memory begins here")
    context = site.api("GET", f"/api/sessions/{session_id}")["context"]
    first = context["first_message"]
    earlier = int(first, 16)
    expect(page.locator(".memory-line")).to_contain_text(f"{earlier} earlier messages are kept, not read")
    assert page.locator(".memory-line + .message").get_attribute("data-id") == first
