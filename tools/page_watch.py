"""What is done in the page while Chromium is watched, for tools/measure_page.py: the server and its sessions,
the trace of the renderer's main thread, and one function for each thing that people do.

Times are milliseconds. Knows no budget.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
BOT = "a0a0a0a0a0a0a001"
REPLY = ("Some **words** about number {n} and `code`.\n\n- one\n- two\n- three\n\n"
         "```python\nprint({n})\n```\n\n| a | b |\n|---|---|\n| 1 | {n} |\n\n"
         + "A paragraph that goes on for a while so that the message has a proper length. " * 45)
TOKENS_A_SECOND = 100
LENS_TOKENS = 4000
WATCH = """
  window.paints = [];
  window.keys = [];
  const begun = Number(sessionStorage.getItem("seen")); // what the page had shown before it was reloaded
  new PerformanceObserver((list) => list.getEntries().forEach((one) => keys.push(one.duration)))
    .observe({ type: "event", durationThreshold: 16 });
  const written = document.getElementsByClassName("md writing");
  let reply = null; // once found: what looks on is work of the main thread too
  const newest = () => { // of the last piece of text only
    if (!reply?.isConnected || !reply.classList.contains("writing")) reply = written[written.length - 1];
    const data = reply?.lastElementChild?.lastChild?.data || "";
    return data.slice(data.trimEnd().lastIndexOf(" ") + 1).trim();
  };
  document.addEventListener("DOMContentLoaded", () => {
    const painted = new MessageChannel();
    let waiting = null;
    painted.port1.onmessage = () => {
      paints.push([performance.timeOrigin + performance.now(), waiting]);
      waiting = null;
    };
    new MutationObserver(() => {
      if (waiting || !(waiting = newest())) return;
      performance.mark("flush");
      if (begun && !window.complete && reply.textContent.length >= begun) {
        requestAnimationFrame(() => (window.complete = performance.now()));
      }
      painted.port2.postMessage(0);
    }).observe(document.querySelector("#messages"), { childList: true, subtree: true, characterData: true });
  });
"""
WAIT = """new Promise((done, fail) => {{
  const late = () => (performance.now() > 20000 ? fail("it never came") : setTimeout(look, 5));
  const look = () => ({0} ? done({0}) : late());
  look();
}})"""


AFTER = """() => {{
  window.after = new Promise((done) => {{
    const begin = ({{ type }}) => {{
      const start = performance.now();
      for (const other of ["keydown", "input"]) removeEventListener(other, begin, true);
      const look = () => ({0} ? requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)))
                              : requestAnimationFrame(look));
      look();
    }};
    for (const type of ["keydown", "input"]) addEventListener(type, begin, true);
  }});
  return true;
}}"""
"""Has `after` be how long it takes from the next key until what is asked for is there and painted."""


class Parlor:
    """The server, and the requests that fill it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def api(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"},
                                         method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def long_session(self, count: int) -> str:
        """The id of a session of `count` messages: short questions, replies with lists, code and tables."""
        messages: list[dict[str, Any]] = []
        for number in range(count):
            is_reply = number % 2 == 1
            messages.append({
                "id": f"{number:016x}", "parent": messages[-1]["id"] if messages else None,
                "author": BOT if is_reply else "user", "name": "", "thinking": "",
                "text": REPLY.replace("{n}", str(number)) if is_reply else f"Question {number}",
                "created": 1_700_000_000.0 + number})
        session = self.api("POST", "/api/sessions", {"bots": [BOT]})["session"]
        data = {**session, "messages": messages, "leaf": messages[-1]["id"], "title": "Long",
                "sampling": {"max_new_tokens": 4096}}
        data.pop("replies")
        data.pop("read_only")
        return self.api("POST", "/api/sessions/import", {"data": data})["session"]["id"]

    def say(self, session_id: str, text: str) -> dict[str, str]:
        revision = self.api("GET", f"/api/sessions/{session_id}")["session"]["revision"]
        return self.api("POST", f"/api/sessions/{session_id}/messages",
                        {"revision": revision, "text": text})["reply"]

    def stop(self, reply: dict[str, str]) -> None:
        self.api("POST", f"/api/replies/{reply['reply_id']}/stop", {})


@contextmanager
def running_parlor(checkout: Path = ROOT, *, delay: float = 1 / TOKENS_A_SECOND) -> Iterator[Parlor]:
    """The server of a checkout of this project; its model takes `delay` seconds for a token."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.helpers.fake_server", "--port", "0", "--sessions-dir", folder,
                   "--delay", str(delay), "--seq-len", "400000"]
        server = subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True)
        try:
            for line in server.stdout or ():
                if found := re.search(r"http://[^\s/]+", line):
                    yield Parlor(found.group())
                    return
            raise SystemExit("The server did not start; its message stands above.")
        finally:
            server.terminate()
            server.wait()


class Trace:
    """The renderer's main thread while it is recorded, in milliseconds."""

    def __init__(self, browser: Browser, page: Page) -> None:
        self._browser = browser
        # No more of them than are read: each is felt in the times.
        categories = ["disabled-by-default-devtools.timeline", "blink.user_timing"]
        browser.start_tracing(page=page, categories=categories)

    def stop(self) -> Recorded:
        events = json.loads(self._browser.stop_tracing())["traceEvents"]
        told = [event for event in events if "user_timing" in event["cat"]]
        marks = [event for event in told if event["name"] == "flush"]
        navigations = [event for event in told if event["name"] == "navigationStart"
                       and event["args"]["data"]["documentLoaderURL"].startswith("http")]
        renderers = {(event["pid"], event["tid"]) for event in events
                     if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"}
        chosen = {(mark["pid"], mark["tid"]) for mark in navigations[-1:] or marks} or renderers
        tasks = [(event["ts"] / 1000, event.get("tdur", 0) / 1000) for event in events
                 if event["name"] == "RunTask" and (event["pid"], event["tid"]) in chosen]
        return Recorded(sorted(tasks), sorted(mark["ts"] / 1000 for mark in marks),
                        navigations[-1]["ts"] / 1000 if navigations else 0.0)


@dataclass(frozen=True)
class Recorded:
    """Tasks as (start, milliseconds of work), when there was a flush, and when the page was begun."""

    tasks: list[tuple[float, float]]
    marks: list[float]
    begun: float

    def longest(self) -> float:
        return max(length for _, length in self.tasks)

    def work_until(self, after: float) -> float:
        """Of the main thread, from the beginning of the page until so many milliseconds after it."""
        return sum(length for at, length in self.tasks if self.begun <= at <= self.begun + after)

    def flushes(self) -> list[float]:
        """Of each flush but the last: all work from the task in which it was made to the one of the next."""
        starts = [at for at, _ in self.tasks]
        begun = [bisect.bisect_right(starts, mark) - 1 for mark in self.marks]
        return [sum(length for _, length in self.tasks[first:after])
                for first, after in itertools.pairwise(begun)]


def new_page(browser: Browser, parlor: Parlor, foreign: list[str]) -> Page:
    context = browser.new_context(base_url=parlor.url, viewport={"width": 1440, "height": 900})
    context.on("request", lambda sent: (
        None if sent.url.startswith(parlor.url) else foreign.append(sent.url)))
    context.add_init_script(WATCH)
    return context.new_page()


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def first_paint(browser: Browser, page: Page, address: str = "/") -> tuple[float, float]:
    """Milliseconds until it, and those of them in which the main thread worked."""
    page.wait_for_timeout(1000)  # the window is drawn by Chromium itself first, on the same processors
    trace = Trace(browser, page)
    page.goto(address)
    if address == "/":
        page.locator("#text:enabled").wait_for()
    took = page.evaluate(WAIT.format("performance.getEntriesByName('first-contentful-paint')[0]?.startTime"))
    return took, trace.stop().work_until(took)


def opening(browser: Browser, page: Page, session_id: str) -> tuple[float, float, int]:
    """Milliseconds from the click's effect to the painted end of the session; longest task; DOM nodes."""
    trace = Trace(browser, page)
    opened = page.evaluate(
        """(id) => new Promise((resolve) => {
          const start = performance.now();
          const list = document.querySelector("#messages");
          const look = () => list.querySelector(".is-last") && list.scrollHeight > innerHeight
            ? requestAnimationFrame(() => resolve(performance.now() - start)) : requestAnimationFrame(look);
          location.hash = id;
          look();
        })""", session_id)
    page.wait_for_timeout(500)
    return opened, trace.stop().longest(), page.evaluate("document.querySelectorAll('*').length")


def streaming(browser: Browser, page: Page, parlor: Parlor, session_id: str) -> dict[str, Any]:
    """A long reply is watched for two seconds, and for one more while somebody types; then it is stopped."""
    reply = parlor.say(session_id, "clock 3000")
    page.locator(".md.writing").wait_for()
    trace = Trace(browser, page)
    page.evaluate("paints.length = keys.length = 0")
    page.wait_for_timeout(1800)
    recorded = trace.stop()
    stamps = page.evaluate("paints")
    typing = type_keys(page)
    parlor.stop(reply)
    page.locator(".stop").wait_for(state="hidden")
    page.fill("#text", "")
    return {"work": recorded.flushes(), "longest": recorded.longest(), "typing": typing, "stamps": stamps}


def type_keys(page: Page) -> float:
    """Some keys, one after the other: the longest time from one to the paint that shows it."""
    page.evaluate("keys.length = 0")
    page.focus("#text")
    cdp = page.context.new_cdp_session(page)
    for letter in "while a reply is written":
        cdp.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": letter, "key": letter})
        cdp.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": letter})
        page.wait_for_timeout(35)
    return max(page.evaluate("keys"), default=16.0)  # none is told that took less


def sending(page: Page) -> float:
    """From Enter until what was said stands in the chat; nobody answers it for longer than a moment."""
    page.fill("#text", "A question at the end.")
    page.evaluate(AFTER.format("document.querySelector('.message.is-last.from-user, [data-id=outgoing]')"))
    page.press("#text", "Enter")
    took = page.evaluate("after")
    page.locator(".stop").wait_for(state="hidden")
    page.locator("[data-id=outgoing]").wait_for(state="detached")
    return took


def scrolling(browser: Browser, page: Page) -> tuple[float, int]:
    """Up through fifty screens by the wheel: the longest task, and the DOM nodes by then."""
    cdp = page.context.new_cdp_session(page)
    trace = Trace(browser, page)
    for _ in range(50):
        cdp.send("Input.dispatchMouseEvent", {"type": "mouseWheel", "x": 700, "y": 400, "deltaX": 0,
                                              "deltaY": -800})
        page.wait_for_timeout(30)
    longest = trace.stop().longest()
    nodes = page.evaluate("document.querySelectorAll('*').length")
    page.keyboard.press("Control+End")
    page.wait_for_timeout(300)
    return longest, nodes


def all_texts(page: Page) -> float:
    """Until the page has every text of the session, from when it was opened: to its beginning and back."""
    page.evaluate(AFTER.format("document.querySelector('.message')?.textContent.includes('Question 0')"))
    page.keyboard.press("Control+Home")
    took = page.evaluate("after")
    page.keyboard.press("Control+End")
    page.wait_for_timeout(300)
    return took


def finding(page: Page) -> float:
    """From the last key of a word until its place, far above, is marked in sight."""
    page.keyboard.press("Control+f")
    page.locator(".find input:focus").wait_for()
    page.evaluate(AFTER.format("CSS.highlights.get('found-now')?.size"))
    page.keyboard.insert_text("about number 7 and")
    took = page.evaluate("after")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+End")
    page.wait_for_timeout(300)
    return took


def mapping(page: Page) -> float:
    """From the key until the lines of the timeline are drawn."""
    page.evaluate(AFTER.format("document.querySelector('.map-line')"))
    page.keyboard.press("Control+.")
    took = page.evaluate("after")
    page.keyboard.press("Escape")
    page.locator("dialog.timeline").wait_for(state="detached")
    return took


def bare_appends(browser: Browser, page: Page) -> float:
    """What Chromium takes to lay out and paint a growing paragraph; the page only keeps its end in view."""
    trace = Trace(browser, page)
    page.evaluate(
        """() => new Promise((resolve) => {
          const text = [...document.querySelectorAll(".md > p")].at(-1).firstChild;
          let left = 100;
          const append = () => {
            performance.mark("flush");
            text.appendData("1234567.8 ");
            left -= 1;
            requestAnimationFrame(left ? append : resolve);
          };
          requestAnimationFrame(append);
        })""")
    return p95(trace.stop().flushes())


def delays(stamps: list[list[Any]], text: str, wall: float) -> list[float]:
    """Of every token: when it was first painted, less when the model made it, in milliseconds.

    stamps  (wall clock, the newest token on the page) of each paint
    text    the whole reply; its tokens are the moments at which they were made, by the monotonic clock
    wall    what the wall clock is ahead of that one
    """
    tokens = [float(stamp) for stamp in text.split()]
    shown = [(at - wall, float(stamp)) for at, stamp in stamps if isinstance(stamp, str)]
    found = []
    for token in tokens:
        at = next((at for at, newest in shown if newest >= token), None)
        if at is not None and token >= shown[0][1]:
            found.append(at - token)
    return found


def reloading(browser: Browser, page: Page, parlor: Parlor, session_id: str) -> tuple[float, float]:
    """Milliseconds from the start of the reload until the text that had been there is there again, and those
    of them in which the main thread worked."""
    reply = parlor.say(session_id, "clock 2000")
    page.locator(".md.writing").wait_for()
    page.wait_for_timeout(1500)
    page.evaluate("""() => sessionStorage.setItem("seen",
        [...document.querySelectorAll(".md.writing")].at(-1).textContent.length)""")
    trace = Trace(browser, page)
    page.reload()
    took = page.evaluate(WAIT.format("window.complete"))
    work = trace.stop().work_until(took)
    parlor.stop(reply)
    page.locator(".stop").wait_for(state="hidden")
    kept = parlor.api("GET", f"/api/sessions/{session_id}")["session"]["messages"][-1]["text"]
    seen = page.locator(".message .md").last.text_content() or ""
    if seen.split() != kept.split():
        raise SystemExit(f"The reloaded page shows another text: {seen[:200]!r} instead of {kept[:200]!r}")
    return took, work


def forking(page: Page, parlor: Parlor) -> float:
    """From the choice of another token, the last but 100 of a reply of LENS_TOKENS, until the first one after
    it is painted; what a model takes for it is not in it (tools/measure_forks.py)."""
    session = parlor.api("POST", "/api/sessions", {"bots": [BOT]})["session"]
    parlor.api("PATCH", f"/api/sessions/{session['id']}",
               {"revision": session["revision"], "sampling": {"max_new_tokens": 4096}})
    parlor.say(session["id"], f"clock {LENS_TOKENS}")
    page.goto(f"/#{session['id']}")
    page.locator(".is-last .actions >> text=Tokens").click(timeout=120_000)  # once it is written
    page.locator("dialog >> text=more tokens").click()
    index = LENS_TOKENS - 100
    page.locator(f".lens-token[data-index='{index}']").click()
    page.locator(".lens-others button.menu-item").first.wait_for()
    took = page.evaluate(
        """(words) => new Promise((resolve) => {
          const last = () => [...document.querySelectorAll(".message")].at(-1);
          const before = last().dataset.id;
          const start = performance.now();
          const look = () => {
            const text = last().dataset.id === before ? "" : last().querySelector(".md")?.textContent;
            const said = text || "";
            if (said.trim().split(" ").length <= words) requestAnimationFrame(look);
            else requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
          };
          document.querySelector(".lens-others button.menu-item").click();
          requestAnimationFrame(look);
        })""", index + 1)
    page.locator("button.stop").wait_for(state="hidden")
    return took


def first_visit(page: Page) -> tuple[int, float]:
    """Requests of somebody who was never here, and the kilobytes that cross the wire, the settings included;
    without the list of sessions, which is empty then."""
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    urls: dict[str, str] = {}
    sizes: dict[str, float] = {}
    network.on("Network.requestWillBeSent",
               lambda sent: urls.update({sent["requestId"]: sent["request"]["url"]}))
    network.on("Network.loadingFinished",
               lambda done: sizes.update({urls[done["requestId"]]: done["encodedDataLength"]}))
    page.goto("/")
    page.locator("#right [role=tab]").first.wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    return len(urls), sum(size for url, size in sizes.items() if not url.endswith("/api/sessions")) / 1000


def critical_kilobytes(page: Page) -> float:
    """The page and all that it names for its first view (what comes later is imported later), gzipped."""
    page.goto("/")
    page.locator(".bot-card, .message").first.wait_for()
    links = "all => all.map((one) => one.href || one.src)"
    named = page.eval_on_selector_all("link[href]:not([rel=icon]), script[src]", links)
    size = 0
    for url in [page.url, *named]:
        request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            size += len(answer.read())
    return size / 1000
