"""Measure what the page costs in Chromium, through the DevTools protocol, against its budgets.

    python -m tools.measure_page --json bench/page.json

Starts the real server with the tests' scripted model (so that a token's time is known), fills a session of
1,000 messages (2 MB) and watches Chromium open it, show a streamed reply of 100 tokens a second in it, take
keys while it does, and reload in the middle. Tasks are read from a trace of the renderer's main thread, as
processor time. Wants a machine that does nothing else. Needs requirements-dev.txt (playwright) and a Chromium
on the PATH.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from model.options import path_option

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                      "--disable-component-update", "--disable-sync"]
BOT = "a0a0a0a0a0a0a001"
MESSAGES = 1000
REPLY = ("Some **words** about number {n} and `code`.\n\n- one\n- two\n- three\n\n"
         "```python\nprint({n})\n```\n\n| a | b |\n|---|---|\n| 1 | {n} |\n\n"
         + "A paragraph that goes on for a while so that the message has a proper length. " * 45)
TOKENS_A_SECOND = 100
BUDGETS = {
    "first contentful paint, ms": 200,
    "critical path, kB gzipped": 100,
    "requests to another host": 0,
    "open a session of 1,000 messages, ms": 300,
    "longest task while opening it, ms": 50,
    "DOM nodes in it": 5000,
    "main-thread work for each flush of a reply in it, ms (p95)": 4,
    "longest task while a reply is written, ms": 50,
    "key to paint while a reply is written, ms (worst)": 100,
    "token sampled to painted, ms (p95)": 50,
    "reload in the middle of a reply until all of it is there, ms": 300,
}
FLOORS = ("first contentful paint of one line of text from the same server, ms",
          "main-thread work of a frame that only appends to such a text, in the same page, ms (p95)")
WATCH = """
  window.paints = [];
  window.keys = [];
  const begun = Number(sessionStorage.getItem("seen")); // what the page had shown before it was reloaded
  new PerformanceObserver((list) => list.getEntries().forEach((one) => keys.push(one.duration)))
    .observe({ type: "event", durationThreshold: 16 });
  const written = document.getElementsByClassName("md writing");
  const newest = () => { // of the last piece of text only: what looks on is work of the main thread too
    const text = written[written.length - 1]?.lastElementChild?.lastChild;
    return text?.data?.slice(-24).match(/[\\d.]+\\s*$/)?.[0].trim();
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
      if (begun && !window.complete && written[written.length - 1].textContent.length >= begun) {
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

    def long_session(self) -> str:
        """The id of a session of 1,000 messages: short questions, replies with lists, code and tables."""
        messages: list[dict[str, Any]] = []
        for number in range(MESSAGES):
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
def running_parlor() -> Iterator[Parlor]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.helpers.fake_server", "--port", "0", "--sessions-dir", folder,
                   "--delay", str(1 / TOKENS_A_SECOND), "--seq-len", "400000"]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
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
    """The renderer's main thread while it is recorded: tasks as (start, milliseconds of work), and marks."""

    def __init__(self, browser: Browser, page: Page) -> None:
        self._browser = browser
        # No more of them than are read: each is felt in the times.
        categories = ["disabled-by-default-devtools.timeline", "blink.user_timing"]
        browser.start_tracing(page=page, categories=categories)

    def stop(self) -> tuple[list[tuple[float, float]], list[float]]:
        events = json.loads(self._browser.stop_tracing())["traceEvents"]
        marks = [event for event in events if event["name"] == "flush" and "user_timing" in event["cat"]]
        renderers = {(event["pid"], event["tid"]) for event in events
                     if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"}
        chosen = {(mark["pid"], mark["tid"]) for mark in marks} or renderers
        tasks = [(event["ts"] / 1000, event.get("tdur", 0) / 1000) for event in events
                 if event["name"] == "RunTask" and (event["pid"], event["tid"]) in chosen]
        return sorted(tasks), sorted(mark["ts"] / 1000 for mark in marks)


def new_page(browser: Browser, parlor: Parlor, foreign: list[str]) -> Page:
    context = browser.new_context(base_url=parlor.url, viewport={"width": 1440, "height": 900})
    context.on("request", lambda sent: (
        None if sent.url.startswith(parlor.url) else foreign.append(sent.url)))
    context.add_init_script(WATCH)
    return context.new_page()


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def first_paint(page: Page, address: str = "/") -> float:
    page.wait_for_timeout(1000)  # the window is drawn by Chromium itself first, on the same processors
    page.goto(address)
    if address == "/":
        page.locator("#text:enabled").wait_for()
    return page.evaluate(WAIT.format("performance.getEntriesByName('first-contentful-paint')[0]?.startTime"))


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
    tasks, _ = trace.stop()
    return opened, max(length for _, length in tasks), page.evaluate("document.querySelectorAll('*').length")


def streaming(browser: Browser, page: Page, parlor: Parlor, session_id: str) -> dict[str, Any]:
    """A long reply is watched for two seconds, and for one more while somebody types; then it is stopped."""
    cdp = page.context.new_cdp_session(page)
    reply = parlor.say(session_id, "clock 3000")
    page.locator(".md.writing").wait_for()
    trace = Trace(browser, page)
    page.evaluate("paints.length = keys.length = 0")
    page.wait_for_timeout(1800)
    tasks, marks = trace.stop()
    stamps = page.evaluate("paints")
    page.focus("#text")
    for letter in "while a reply is written":
        cdp.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": letter, "key": letter})
        cdp.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": letter})
        page.wait_for_timeout(35)
    typing = page.evaluate("keys")
    parlor.stop(reply)
    page.locator(".stop").wait_for(state="hidden")
    page.fill("#text", "")
    return {"work": work_of_flushes(tasks, marks), "longest": max(length for _, length in tasks),
            "typing": max(typing, default=16.0), "stamps": stamps}


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
    return p95(work_of_flushes(*trace.stop()))


def work_of_flushes(tasks: list[tuple[float, float]], marks: list[float]) -> list[float]:
    """Of each flush but the last: all work from the task in which it was made to the one of the next."""
    starts = [at for at, _ in tasks]
    begun = [bisect.bisect_right(starts, mark) - 1 for mark in marks]
    return [sum(length for _, length in tasks[first:after]) for first, after in itertools.pairwise(begun)]


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


def reloading(page: Page, parlor: Parlor, session_id: str) -> float:
    """Milliseconds from the start of the reload until the text that had been there is there again."""
    reply = parlor.say(session_id, "clock 2000")
    page.locator(".md.writing").wait_for()
    page.wait_for_timeout(1500)
    page.evaluate("""() => sessionStorage.setItem("seen",
        [...document.querySelectorAll(".md.writing")].at(-1).textContent.length)""")
    page.reload()
    took = page.evaluate(WAIT.format("window.complete"))
    parlor.stop(reply)
    page.locator(".stop").wait_for(state="hidden")
    kept = parlor.api("GET", f"/api/sessions/{session_id}")["session"]["messages"][-1]["text"]
    seen = page.locator(".message .md").last.text_content() or ""
    if seen.split() != kept.split():
        raise SystemExit(f"The reloaded page shows another text: {seen[:200]!r} instead of {kept[:200]!r}")
    return took


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


def measure(browser: Browser, parlor: Parlor, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in BUDGETS}
    foreign: list[str] = []
    (paint, size, requests, opened, open_task, nodes, work, task, key, token, reload) = found.values()
    found.update({name: [] for name in FLOORS})
    session_id = parlor.long_session()
    for _ in range(rounds):
        page = new_page(browser, parlor, foreign)
        paint.append(first_paint(page))
        page.context.close()
        page = new_page(browser, parlor, foreign)
        found[FLOORS[0]].append(first_paint(page, "/one-line"))
        page.context.close()
        page = new_page(browser, parlor, foreign)
        size.append(critical_kilobytes(page))
        page.wait_for_timeout(300)
        took, longest, count = opening(browser, page, session_id)
        opened.append(took)
        open_task.append(longest)
        nodes.append(count)
        seen = streaming(browser, page, parlor, session_id)
        text = parlor.api("GET", f"/api/sessions/{session_id}")["session"]["messages"][-1]["text"]
        work.append(p95(seen["work"]))
        task.append(seen["longest"])
        key.append(seen["typing"])
        token.append(p95(delays(seen["stamps"], text, (time.time() - time.monotonic()) * 1000)))
        found[FLOORS[1]].append(bare_appends(browser, page))
        reload.append(reloading(page, parlor, session_id))
        page.context.close()
    requests.append(len(foreign))
    return found


def report(found: dict[str, list[float]], version: str) -> dict[str, Any]:
    figures = []
    for what, budget in BUDGETS.items():
        median = round(statistics.median(found[what]), 1)
        figures.append({"what": what, "budget": budget, "median": median, "worst": round(max(found[what]), 1),
                        "held": median <= budget})
        print(f"{'held' if median <= budget else 'MISSED':6}  {what:62} {median:8} "
              f"(worst {figures[-1]['worst']}) of {budget}", flush=True)
    floors = [{"what": what, "median": round(statistics.median(found[what]), 1)} for what in FLOORS]
    for floor in floors:
        print(f"floor   {floor['what']:62} {floor['median']:8}", flush=True)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {"command": " ".join(["python -m tools.measure_page", *sys.argv[1:]]),
            "machine": {"system": platform.platform(), "processor": names[0] if names else platform.machine(),
                        "chromium": version},
            "what": "median and worst of the rounds, each in a browser context of its own; "
                    f"{MESSAGES} messages of 2 MB; a reply of {TOKENS_A_SECOND} tokens a second",
            "rounds": len(found["DOM nodes in it"]), "figures": figures,
            "floors": floors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=path_option, help="also write the figures there")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no chromium on the PATH; install Debian's package chromium.")
    with sync_playwright() as playwright, running_parlor() as parlor:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        found = measure(browser, parlor, arguments.rounds)
        figures = report(found, browser.version)
        browser.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
