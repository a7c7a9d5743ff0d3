"""Make the README's pictures: a real conversation with the model, in Chromium, into docs/.

    python -m tools.screenshots                     starts app.py with the starter model and talks with it
    python -m tools.screenshots --url http://127.0.0.1:5005/      uses a Parlor that runs already

Needs requirements-dev.txt (playwright) and a Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.options import path_option

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TALK = ["Hello! My name is Mina. What is the capital of France?", "Tell me a joke.", "What is my name?"]
WIDE = {"width": 1440, "height": 900}
TELEPHONE = {"width": 390, "height": 844}
REPLY_MS = 120_000


@contextmanager
def running_parlor(model: Path | None) -> Iterator[str]:
    """The address of a Parlor of our own, with an empty folder of sessions."""
    with tempfile.TemporaryDirectory() as sessions:
        command = [
            sys.executable,
            str(ROOT / "app.py"),
            "--port",
            "0",
            "--no-browser",
            "--sessions-dir",
            sessions,
        ]
        server = subprocess.Popen(
            command + (["-d", str(model)] if model else []), stdout=subprocess.PIPE, text=True
        )
        try:
            for line in server.stdout or ():
                if found := re.search(r"http://\S+", line):
                    yield found.group()
                    return
            raise SystemExit("Parlor did not start; its message stands above.")
        finally:
            server.terminate()
            server.wait()


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.locator("[data-id=outgoing]").wait_for(state="detached")  # the server has it


def wait_until_quiet(page: Page) -> None:
    page.locator(".stop").wait_for(state="hidden", timeout=REPLY_MS)


def converse(page: Page, url: str) -> str:
    """Two bots in a room, a few words with them; the address of the session."""
    page.goto(url)
    page.locator(".bot-card[data-bot]").first.wait_for()
    cards = page.locator(".bot-card[data-bot]:not(.is-chosen)")
    if cards.count():
        cards.first.click()
    for text in TALK:
        say(page, text)
        page.locator(".message.from-user", has_text=text).wait_for()
        wait_until_quiet(page)
    return page.url


def picture(
    browser: Browser, address: str, target: Path, theme: str, size: dict[str, int], act: Any = None
) -> None:
    context = browser.new_context(
        viewport=size, color_scheme=theme, device_scale_factor=2 if size is TELEPHONE else 1
    )
    context.add_init_script("localStorage['parlor.panel.right'] ??= 'open'")
    page = context.new_page()
    page.goto(address)
    page.locator(".message, .bot-card").first.wait_for()
    page.locator("#right .slider").first.wait_for(state="attached")  # the settings come after the chat
    if act:
        act(page)
    page.wait_for_timeout(400)
    page.screenshot(path=target)
    context.close()
    print(target, flush=True)


def streaming(page: Page) -> None:
    say(page, "Tell me a short story.")
    page.locator(".md.writing", has_text=" ").wait_for(timeout=REPLY_MS)
    page.wait_for_timeout(300)


def looking_at_tokens(page: Page) -> None:
    """The lens on the longest reply, at its most uncertain word."""
    replies = page.locator(".message.from-bot")
    lengths = [len(reply.inner_text()) for reply in replies.all()]
    reply = replies.nth(lengths.index(max(lengths)))
    reply.hover()
    reply.get_by_role("button", name="Tokens").click()
    page.get_by_role("button", name="Underline what was uncertain").click()
    level = next(level for level in (4, 3, 2, 1, 0) if page.locator(f".lens-token.level-{level}").count())
    page.locator(f".lens-token.level-{level}").last.hover()
    page.locator(".lens-others").wait_for()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a Parlor that runs already")
    parser.add_argument("-d", "--model", type=path_option, help="another model than the starter")
    parser.add_argument("--out", type=path_option, default=ROOT / "docs")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no chromium on the PATH; install Debian's package chromium.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        if arguments.url:
            take_all(browser, arguments.url, arguments.out)
        else:
            with running_parlor(arguments.model) as url:
                take_all(browser, url, arguments.out)
        browser.close()


def take_all(browser: Browser, url: str, out: Path) -> None:
    page = browser.new_page(viewport=WIDE)
    picture(browser, url, out / "welcome.png", "light", WIDE)
    address = converse(page, url)
    picture(browser, address, out / "desktop-light.png", "light", WIDE, streaming)
    wait_until_quiet(page)
    picture(browser, address, out / "lens.png", "light", WIDE, looking_at_tokens)
    picture(browser, address, out / "desktop-dark.png", "dark", WIDE)
    picture(browser, address, out / "phone-light.png", "light", TELEPHONE)
    picture(browser, address, out / "phone-dark.png", "dark", TELEPHONE)


if __name__ == "__main__":
    main()
