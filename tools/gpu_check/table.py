"""What the stages of tools/gpu_check.sh have found: one JSON file, and a table for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SIZES = ("7B", "7B-waits", "7B-long", "8B", "13B", "33B", "70B")
"""-waits: no kernel starts before the one in front has ended; -long: with room for the longest context."""
OTHERS = ("device", "replay", "chat", "reload", "peers", "crossover")
EXLLAMA = {"7B prompt": 13_918, "13B prompt": 7_507, "33B prompt": 2_959, "70B prompt": 914, "7B decode": 173,
           "7B decode at 2,048": 140, "70B decode": 17}
"""Tokens a second that its README gives, on one RTX 4090 (70B: with a second card)."""
GOALS = {"7B prompt": 45_000, "13B prompt": 25_000, "33B prompt": 10_000, "70B prompt": 5_000,
         "7B decode": 800, "7B decode at 2,048": 700, "70B decode": 85}
"""On an H200."""


OUTCOMES = {0: "passed", 124: "took too long", 125: "not reached", 127: "its program is missing"}


def read(path: Path) -> Any:
    """None where a stage left nothing, or half of something."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Ran:
    """A stage: its exit code, or one of OUTCOMES; its seconds, and the last line that it said."""

    stage: str
    exit_code: int
    seconds: int
    said: str

    @property
    def outcome(self) -> str:
        return OUTCOMES.get(self.exit_code, f"FAILED ({self.exit_code})")


def kind_of(case: dict[str, Any]) -> str:
    if case["prompt"]:
        return "prompt"
    return "decode" + (f" at {case['context']:,}" if case["context"] else "") + \
        (f", {case['batch']} together" if case["batch"] > 1 else "")


def speed_lines(size: str, report: dict[str, Any]) -> list[str]:
    lines = []
    for case in report["cases"]:
        key = f"{size} {kind_of(case)}"
        beside = "".join(f"{table[key]:12,}" if key in table else f"{'':12}" for table in (EXLLAMA, GOALS))
        lines.append(f"{key:27}{case['tokens_per_second']:12,.1f}{case['share']:8.0%}{beside}".rstrip())
    return lines


def linear_lines(size: str, report: dict[str, Any]) -> list[str]:
    lines = []
    for row in report.get("linear", []):
        theirs = f"{row['int4pack_microseconds']:12.1f}" if "int4pack_microseconds" in row else f"{'-':>12}"
        lines.append(f"{size:5}{row['n']:7,} x {row['k']:6,}{row['rows']:6}{row['microseconds']:12.1f}"
                     f"{row['share']:8.0%}{theirs}  {row['kind']}")
    return lines


def kernel_lines(size: str, report: dict[str, Any]) -> list[str]:
    return [f"{size:5}{row['what']:43}{row['microseconds']:12.1f}{row['share']:8.0%}"
            for row in report.get("kernels", [])]


def replay_lines(report: dict[str, Any]) -> list[str]:
    return [f"{row['kernel']:36}{row['launches']:12.1f}{row['microseconds']:12.1f}"
            for row in report["kernels"]]


def table(ran: Sequence[Ran], found: dict[str, Any], peers: Any, replay: Any) -> str:
    lines = []
    if found:
        lines = [f"{'tokens a second':27}{'measured':>12}{'limit':>8}{'ExLlama':>12}{'goal':>12}",
                 *(line for size, report in found.items() for line in speed_lines(size, report)), ""]
    if replay:
        lines += [f"{'kernels of a token':36}{'launches':>12}{'us':>12}", *replay_lines(replay), ""]
    kernels = [line for size, report in found.items() for line in kernel_lines(size, report)]
    if kernels:
        lines += [f"{'other kernels':48}{'us':>12}{'limit':>8}", *kernels, ""]
    linear = [line for size, report in found.items() for line in linear_lines(size, report)]
    if linear:
        lines += [f"{'linear layer':20}{'rows':>8}{'us':>12}{'limit':>8}{'int4pack':>12}", *linear, ""]
    for peer in (peers or {}).get("peers", []):
        lines += [peer["name"] + (f": {peer['problem']}" if peer["problem"] else " (launched one by one)"),
                  *(f"{'':5}{row['n']:7,} x {row['k']:6,}{row['rows']:6}{row['microseconds']:12.1f}"
                    for row in peer["linear"]), ""]
    lines += [f"{one.stage:12}{one.outcome:24}{one.seconds:5} s  {one.said}".rstrip() for one in ran]
    return "\n".join([*lines, ""])


def write_results(out: Path, ran: Sequence[Ran]) -> None:
    """results.json and table.txt in `out`, of what the stages left in its folder `parts` so far."""
    parts = out / "parts"
    reports = {size: read(parts / f"{size}.json") for size in SIZES}
    found = {size: report for size, report in reports.items() if report}
    collected = {"stages": [{**asdict(one), "outcome": one.outcome} for one in ran], "speed": found,
                 **{name: read(parts / f"{name}.json") for name in OTHERS}}
    for name, text in (("results.json", json.dumps(collected, indent=1) + "\n"),
                       ("table.txt", table(ran, found, collected["peers"], collected["replay"]))):
        unfinished = out / f"{name}.tmp"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(out / name)
