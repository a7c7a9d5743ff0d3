"""The whole program as a newcomer meets it: app.py, the starter model, compiled kernels, Chromium."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import context_at, go_to, texts

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent
STARTER = ROOT / "starter" / "model.safetensors"
REPLY_MS = 120_000


@pytest.fixture
def parlor(tmp_path):
    """The address of app.py with the starter model, and a function that starts it again."""
    running = []

    def start():
        server = subprocess.Popen(
            [sys.executable, "app.py", "--port", "0", "--no-browser", "--sessions-dir", str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(server)
        lines = []
        for line in server.stdout:
            lines.append(line)
            if found := re.search(r"http://\S+", line):
                return found.group().rstrip("/")
        raise AssertionError("".join(lines))

    def stop():
        running[-1].terminate()
        running[-1].wait(timeout=20)

    yield start, stop
    for server in running:
        server.kill()
        server.wait()


def say_and_wait(page, text):
    page.fill("#text", text)
    page.press("#text", "Enter")
    expect(page.locator("[data-id=outgoing]")).to_have_count(0, timeout=REPLY_MS)
    expect(page.locator(".stop")).to_be_hidden(timeout=REPLY_MS)


def test_two_bots_talk_and_everything_is_there_after_a_restart(chromium, parlor):
    start, stop = parlor
    address = start()
    context = context_at(chromium, address, reduced_motion="reduce")
    page = context.new_page()
    go_to(page)
    expect(page.locator(".bot-card[data-bot]")).to_have_count(6)
    page.locator(".bot-card[data-bot]:not(.is-chosen)").first.click()
    expect(page.locator(".chip")).to_have_count(2)
    names = [text[1:] for text in page.locator(".chip-main").all_text_contents()]
    greetings = page.locator(".from-bot").count()
    say_and_wait(page, "Hello! What is your name?")
    say_and_wait(page, "And what is yours?")
    speakers = page.locator(".from-bot .name").all_text_contents()
    assert set(speakers) == set(names) and len(speakers) >= greetings + 2
    assert page.locator(".badge.serious").count() == 0
    said = texts(page)
    assert all(said), "nobody is silent"
    address = page.url
    page.reload()
    expect(page.locator(".message")).to_have_count(len(said))
    assert texts(page) == said
    session = address.partition("#")[2]
    stop()
    again = start()
    page.goto(f"{again}/#{session}")
    expect(page.locator(".message")).to_have_count(len(said))
    assert texts(page) == said
    context.close()
