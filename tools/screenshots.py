"""Make the pictures of README and docs/page.md: a real conversation with the model, in Chromium, into docs/.

    python -m tools.screenshots                     starts app.py with the starter model and talks with it
    python -m tools.screenshots --url http://127.0.0.1:5005/      uses a Parlor that runs already

Needs requirements-dev.txt (playwright) and a Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import base64
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
QUALITY = 88  # of WebP: a picture is below 150 kB, and no letter is blurred
WIDE = {"width": 1440, "height": 900}
WINDOW = {"width": 1280, "height": 760}  # for one dialog
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
    page.locator("#model-line").wait_for(state="hidden", timeout=REPLY_MS)  # the model is loaded
    if act:
        act(page)
    page.wait_for_timeout(400)
    how = {"format": "webp", "quality": QUALITY}
    taken = context.new_cdp_session(page).send("Page.captureScreenshot", how)
    target.write_bytes(base64.b64decode(taken["data"]))
    context.close()
    print(f"{target} {target.stat().st_size / 1000:.0f} kB", flush=True)


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


def entry(page: Page, text: str) -> None:
    page.locator(".menu-item", has_text=text).first.click()


def regenerate(page: Page) -> None:
    page.locator(".is-last").hover()
    page.locator(".is-last .actions >> text=Regenerate").click()
    page.locator(".versions").wait_for()
    wait_until_quiet(page)


def side_by_side(page: Page) -> None:
    """A blind vote between two bots, after it."""
    page.click("#brand-buttons [aria-label=Menu]")
    entry(page, "Side by side")
    dialog = page.locator("dialog")
    dialog.locator("textarea").fill("Tell me a story about the sea.")
    dialog.get_by_text("Ask them", exact=True).click()
    dialog.locator(".compare-vote:enabled").first.wait_for(timeout=REPLY_MS)
    page.keyboard.press("1")
    dialog.locator(".is-winner").wait_for()


def inspecting(page: Page) -> None:
    page.click("#status-line .used")
    page.locator(".prompt-parts").wait_for()


def xray(page: Page) -> None:
    page.click("#tab-sampling")
    page.click(".xray-open")
    page.locator(".xray-stage").first.wait_for(timeout=REPLY_MS)


def timeline(page: Page) -> None:
    page.keyboard.press("Control+.")
    page.locator(".map-line").first.wait_for()


def knowing(page: Page) -> None:
    page.locator(".chip-main").last.click()
    entry(page, "What it knows")
    page.locator("dialog [value=nothing]").check()
    page.fill("dialog textarea", "I know where the key is, and tell nobody.")


PICTURES: list[tuple[str, str, dict[str, int], Any]] = [
    ("lens", "light", WIDE, looking_at_tokens),
    ("desktop-dark", "dark", WIDE, None),
    ("phone-light", "light", TELEPHONE, None),
    ("phone-dark", "dark", TELEPHONE, None),
    ("inspector", "light", WINDOW, inspecting),
    ("xray", "light", WINDOW, xray),
    ("timeline", "light", WINDOW, timeline),
    ("knowledge", "light", WINDOW, knowing),
    ("side-by-side", "light", WINDOW, side_by_side),
]
"""Of the conversation, in this order: the last ones change it."""


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
    picture(browser, url, out / "welcome.webp", "light", WIDE)
    address = converse(page, url)
    picture(browser, address, out / "desktop-light.webp", "light", WIDE, streaming)
    wait_until_quiet(page)
    regenerate(page)
    for name, theme, size, act in PICTURES:
        picture(browser, address, out / f"{name}.webp", theme, size, act)


if __name__ == "__main__":
    main()
