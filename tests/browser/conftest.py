"""A real server with a scripted model, and Chromium in front of it.

The server runs in a thread of the test process, so that a test can put replies into the model's mouth.
Every page is watched: an error in its console, a breach of the content security policy or a request to
another host fails the test. Without Chromium the tests fail: they would else be forgotten.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.helpers.failing_disk import FastDisk
from tests.helpers.fake_model import FakeModel
from tests.helpers.fake_server import BOTS, write_bots
from tests.helpers.served import served

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
]
MARLOW, OTTO, LIN = (bot[0] for bot in BOTS)
SETTINGS_OPEN = """
    try { localStorage.getItem("parlor.panel.right") ?? localStorage.setItem("parlor.panel.right", "open"); }
    catch {}"""
NOTES_STAY = """
    const wait = window.setTimeout;
    window.setTimeout = (call, ms, ...more) =>
      wait(call, [6_000, 10_000].includes(ms) ? 1e9 : ms, ...more);"""
"""A script for a page whose notes are looked at: on a busy machine they would be gone meanwhile."""
PATIENCE_MS = 90_000  # a busy machine is slow; a test that passes never waits this long
HOLD_SECONDS = 120

expect.set_options(timeout=PATIENCE_MS)


class HeldModel(FakeModel):
    """A FakeModel that can stop before a token until it is released, so that no test depends on speed."""

    def __init__(self, **options: Any) -> None:
        self._free = threading.Event()
        self._free.set()
        self._before_hold: int | None = None
        self._is_of_each = False
        self._written: Counter[int] = Counter()  # since, by thread where each reply counts for itself
        super().__init__(**options)

    def hold(self, after: int, *, each: bool = False) -> None:
        """Write `after` more tokens, in all or of each reply, then wait."""
        self._free.clear()
        self._written.clear()
        self._is_of_each, self._before_hold = each, after

    def release(self) -> None:
        self._before_hold = None
        self._free.set()

    @property
    def delay(self) -> float:
        """Asked for before each token."""
        if self._before_hold is not None:
            counter = threading.get_ident() if self._is_of_each else 0
            if self._written[counter] >= self._before_hold:
                self._free.wait(HOLD_SECONDS)
            else:
                self._written[counter] += 1
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._delay = seconds


@dataclass
class Site:
    """The server under test and its model."""

    url: str
    model: HeldModel

    def api(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_MS / 1000) as answer:
            return json.loads(answer.read())

    def session(self, *bots: str, **changes: Any) -> str:
        """A new session; its id."""
        made = self.api("POST", "/api/sessions", {"bots": list(bots or (MARLOW,))})["session"]
        if changes:
            self.api("PATCH", f"/api/sessions/{made['id']}", {"revision": made["revision"], **changes})
        return made["id"]

    def read(self, session_id: str) -> dict[str, Any]:
        return self.api("GET", f"/api/sessions/{session_id}")["session"]

    def import_path(self, texts: list[str], *bots: str) -> str:
        """A session in which user and bot said `texts` in turn; its id."""
        room = list(bots or (MARLOW,))
        messages, parent = [], None
        for number, text in enumerate(texts):
            mid = f"{number:016x}"
            author = "user" if number % 2 == 0 else room[(number // 2) % len(room)]
            messages.append(
                {
                    "id": mid,
                    "parent": parent,
                    "author": author,
                    "name": "",
                    "text": text,
                    "thinking": "",
                    "created": 1_700_000_000.0 + number,
                }
            )
            parent = mid
        data = {
            "schema_version": 1,
            "id": "f" * 16,
            "revision": 1,
            "title": "Imported",
            "title_is_auto": False,
            "created": 1_700_000_000.0,
            "updated": 1_700_000_000.0,
            "leaf": parent,
            "bots": [{"id": bot, "muted": False} for bot in room],
            "user_name": "",
            "system_prompt": "",
            "turn_order": "in_turn",
            "sampling": {},
            "preset": "balanced",
            "messages": messages,
        }
        return self.api("POST", "/api/sessions/import", {"data": data})["session"]["id"]


@contextmanager
def site_in(folder: Path) -> Iterator[Site]:
    """A server whose sessions are kept in `folder`."""
    from model import ModelSlot
    from webui import create_app
    from webui.storage.store import Store

    write_bots(folder / "bots")
    model = HeldModel(delay=0.002, prompt_steps=3, prompt_delay=0.002)
    store = Store(folder, disk=FastDisk())
    app = create_app(ModelSlot.holding(model), store)
    with served(app, threads=48, outbuf_high_watermark=1 << 18) as address:
        yield Site(address, model)
    store.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    with site_in(tmp_path_factory.mktemp("browser")) as site:
        yield site


@pytest.fixture(autouse=True)
def usual_model(request):
    """Each test begins with a quick model that has nothing to say by heart."""
    if "site" in request.fixturenames or "page" in request.fixturenames:
        model = request.getfixturevalue("site").model
        model.delay, model.prompt_delay = 0.002, 0.002
        model.release()
        model.scripts.clear()
        model.started.clear()


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("There is no Chromium on the PATH. On Debian: sudo apt install chromium-headless-shell",
                    pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


def context_at(chromium: Any, url: str, **options: Any) -> Any:
    """A context for the server at `url`, as patient as all others; whoever makes it closes it."""
    context = chromium.new_context(base_url=url, **options)
    context.set_default_timeout(PATIENCE_MS)
    return context


@dataclass
class Watch:
    """What must not happen on a page."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()  # parts of console errors that this test causes on purpose

    def attach(self, context: Any, url: str) -> None:
        context.on(
            "request",
            lambda sent: (
                None if sent.url.startswith((url, "data:", "blob:")) else self.foreign.append(sent.url)
            ),
        )
        context.on(
            "console",
            lambda said: (
                self.errors.append(f"{said.text} {said.location.get('url')}")
                if said.type == "error"
                else None
            ),
        )
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def verdict(self) -> None:
        assert self.foreign == []
        assert [text for text in self.errors if not any(part in text for part in self.expected)] == []


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def new_context(chromium, site, watch):
    """Make browser contexts that are watched and closed."""
    made = []

    def make(first_visit: bool = False, **options: Any) -> Any:
        """With the settings open, as somebody has them who uses them, unless it is the first visit."""
        options = {
            "viewport": {"width": 1280, "height": 800},
            "color_scheme": "light",
            "reduced_motion": "reduce",
            **options,
        }
        context = context_at(chromium, site.url, **options)
        if not first_visit:
            context.add_init_script(SETTINGS_OPEN)
        watch.attach(context, site.url)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()
    watch.verdict()


@pytest.fixture
def context(new_context):
    return new_context()


@pytest.fixture
def page(context):
    return context.new_page()


@pytest.fixture
def open_session(page, site):
    """Open a new session with these bots; its id."""

    def open_(*bots: str, **changes: Any) -> str:
        session_id = site.session(*bots, **changes)
        go_to(page, session_id)
        return session_id

    return open_


def go_to(page: Any, session_id: str = "") -> None:
    page.goto(f"/#{session_id}")
    expect(page.locator("#text")).to_be_enabled()
    if session_id:
        expect(page.locator("#title")).to_have_attribute("data-id", session_id)


def say(page: Any, text: str) -> None:
    """Send, and wait until the server has it; the reply has begun by then."""
    page.fill("#text", text)
    page.press("#text", "Enter")
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("[data-id=outgoing]")).to_have_count(0)


def wait_until_quiet(page: Any) -> None:
    """No message is on its way, no reply is being written, and all of it is on the page."""
    expect(page.locator("[data-id=outgoing]")).to_have_count(0)
    expect(page.locator(".stop")).to_be_hidden()
    expect(page.locator(".md.writing")).to_have_count(0)


def wait_for_held(page: Any, held: list[Any]) -> None:
    """Until a route has put a request into `held`."""
    deadline = time.monotonic() + 60
    while not held:
        assert time.monotonic() < deadline, "the page has not asked for it"
        page.wait_for_timeout(20)


@contextmanager
def stopping(page: Any) -> Iterator[None]:
    """What is done within stops the reply; the server has been told by the end."""
    with page.expect_response("**/api/replies/*/stop"):
        yield


def wait_until_saved(page: Any, session_id: str, saved: bool = True) -> None:
    """What was changed in the panels is on the server (or is not)."""
    kept = "([id, saved]) => (localStorage.getItem(`parlor.unsaved.${id}`) === null) === saved"
    page.wait_for_function(kept, arg=[session_id, saved])


def texts(page: Any) -> list[str]:
    """What each message says. One that is not laid out (content-visibility) has no innerText."""
    return page.eval_on_selector_all(
        ".message .md", "all => all.map(one => (one.innerText || one.textContent).trim())")


@pytest.fixture
def call(page):
    """Call a function of a module in the page."""
    go_to(page)

    def call_(module, code, argument=None):
        body = (
            'const src = document.querySelector("script[type=module]").src;'
            'const bundles = await Promise.all(["page", "later", "asked"].map('
            "  (name) => import(new URL(`./${name}.js`, src))));"
            "const m = bundles.map(({ modules }) => modules[`${module}.js`]).find(Boolean);"
            "return (" + code + ")(m, argument);"
        )
        return page.evaluate("async ([module, argument]) => {" + body + "}", [module, argument])

    return call_
