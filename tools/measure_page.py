"""Measure what the page costs in Chromium, through the DevTools protocol, against its budgets.

    python -m tools.measure_page --json bench/page.json
    python -m tools.measure_page --of ../other-checkout --rounds 1     the page of that, to compare

Starts the real server with the tests' scripted model (so that a token's time is known), fills a session of
1,000 messages (2 MB) and one of 5,000, and watches Chromium open each, show a streamed reply of 100 tokens a
second in it, take keys while it does, reload in the middle, send, scroll, find and draw the timeline; and
fork at a token of a long reply. Tasks are read from a trace of the renderer's main thread, as processor time,
which a busy machine changes least. Wants a machine that does nothing else, requirements-dev.txt (playwright)
and a Chromium on the PATH; with --busy N there are N processes beside that never wait.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from model.options import path_option

from .page_watch import (
    ROOT,
    TOKENS_A_SECOND,
    Parlor,
    all_texts,
    bare_appends,
    critical_kilobytes,
    delays,
    finding,
    first_paint,
    first_visit,
    forking,
    mapping,
    new_page,
    opening,
    p95,
    reloading,
    running_parlor,
    scrolling,
    sending,
    streaming,
)

CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                      "--disable-component-update", "--disable-sync"]
BUDGETS = {
    "first contentful paint, ms": 200,
    "critical path, kB gzipped": 100,
    "requests of a first visit": 51,
    "all of a first visit, kB gzipped": 100,
    "requests to another host": 0,
    "open the session, ms": 300,
    "longest task while opening it, ms": 50,
    "DOM nodes in it": 5000,
    "main-thread work for each flush of a reply in it, ms (p95)": 4,
    "longest task while a reply is written, ms": 50,
    "key to paint while a reply is written, ms (worst)": 100,
    "token sampled to painted, ms (p95)": 50,
    "reload in the middle of a reply until all of it is there, ms": 300,
    "Enter until what was said is painted, ms": 100,
    "longest task while scrolling up by fifty screens, ms": 50,
    "DOM nodes after that": 5000,
    "find in chat, from the last key until the place is in sight, ms": 300,
    "timeline, from the key until it is drawn, ms": 300,
}
LENS = "the lens: from a choice in a reply of 4,000 tokens until the next token is painted, ms"
LENS_BUDGET = 100
BESIDE = ("main-thread work until first contentful paint, ms",
          "first contentful paint of one line of text from the same server, ms",
          "main-thread work until that, ms",
          "main-thread work of a frame that only appends to such a text, in the same page, ms (p95)",
          "main-thread work of the reload until all is there, ms",
          "to the beginning of the session, right after opening it, ms")
"""What tells where the time goes."""


def measure(browser: Browser, parlor: Parlor, messages: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in (*BUDGETS, *BESIDE)}
    foreign: list[str] = []
    session_id = parlor.long_session(messages)
    for _ in range(rounds):
        for name, value in zip(found, one_round(browser, parlor, session_id, foreign), strict=True):
            found[name].append(value)
    return found


def one_round(browser: Browser, parlor: Parlor, session_id: str, foreign: list[str]) -> list[float]:
    """The figures of BUDGETS and BESIDE, in their order."""
    page = new_page(browser, parlor, foreign)
    paint, paint_work = first_paint(browser, page)
    page.context.close()
    page = new_page(browser, parlor, foreign)
    line, line_work = first_paint(browser, page, "/one-line")
    page.context.close()
    page = new_page(browser, parlor, foreign)
    kilobytes = critical_kilobytes(page)
    page.context.close()
    page = new_page(browser, parlor, foreign)
    requests, visit = first_visit(page)
    page.wait_for_timeout(300)
    opened, open_task, nodes = opening(browser, page, session_id)
    beginning = all_texts(page)
    seen = streaming(browser, page, parlor, session_id)
    text = parlor.api("GET", f"/api/sessions/{session_id}")["session"]["messages"][-1]["text"]
    token = p95(delays(seen["stamps"], text, (time.time() - time.monotonic()) * 1000))
    appends = bare_appends(browser, page)
    reload, reload_work = reloading(browser, page, parlor, session_id)
    said = sending(page)
    scroll_task, scroll_nodes = scrolling(browser, page)
    found, mapped = finding(page), mapping(page)
    page.context.close()
    return [paint, kilobytes, requests, visit, len(foreign), opened, open_task, nodes,
            p95(seen["work"]), seen["longest"], seen["typing"], token, reload, said, scroll_task,
            scroll_nodes, found, mapped, paint_work, line, line_work, appends, reload_work, beginning]


def report(messages: int, found: dict[str, list[float]]) -> dict[str, Any]:
    print(f"a session of {messages:,} messages", flush=True)
    figures = [figure(what, budget, found[what]) for what, budget in BUDGETS.items()]
    beside = [{"what": what, "median": round(statistics.median(found[what]), 1)} for what in BESIDE]
    for one in beside:
        print(f"beside  {one['what']:62} {one['median']:8}", flush=True)
    return {"messages": messages, "figures": figures, "beside": beside}


def figure(what: str, budget: float, found: list[float]) -> dict[str, Any]:
    median, worst = round(statistics.median(found), 1), round(max(found), 1)
    print(f"{'held' if median <= budget else 'MISSED':6}  {what:62} {median:8} (worst {worst}) of {budget}",
          flush=True)
    return {"what": what, "budget": budget, "median": median, "worst": worst, "held": median <= budget}


def lens(browser: Browser, checkout: Path, rounds: int) -> dict[str, Any]:
    """With a model that takes no time at all."""
    found = []
    with running_parlor(checkout, delay=0) as parlor:
        for _ in range(rounds):
            page = new_page(browser, parlor, [])
            found.append(forking(page, parlor))
            page.context.close()
    return figure(LENS, LENS_BUDGET, found)


def machine(version: str) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {"system": platform.platform(), "processor": names[0] if names else platform.machine(),
            "chromium": version, "load before": [round(load, 1) for load in os.getloadavg()]}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """While so many others want a processor all the time."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, nargs="+", default=[1000, 5000], help="sessions of so many")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--of", type=path_option, default=ROOT, help="a checkout, whose page it is")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--json", type=path_option, help="also write the figures there")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no chromium on the PATH; install Debian's package chromium.")
    with sync_playwright() as playwright, running_parlor(arguments.of) as parlor, busy(arguments.busy):
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        result = {"command": " ".join(["python -m tools.measure_page", *sys.argv[1:]]),
                  "machine": machine(browser.version),
                  "what": "median and worst of the rounds, each in a browser context of its own; a thousand "
                          f"messages are 2 MB; a reply of {TOKENS_A_SECOND} tokens a second",
                  "rounds": arguments.rounds,
                  "sessions": [report(messages, measure(browser, parlor, messages, arguments.rounds))
                               for messages in arguments.messages],
                  "lens": lens(browser, arguments.of, arguments.rounds)}
        browser.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
