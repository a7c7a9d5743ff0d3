"""Collect what the stages of tools/gpu_check.sh left in PARTS: one JSON file, and a table for people.

    python -m tools.gpu_check.table PARTS results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SIZES = ("7B", "8B", "13B", "33B", "70B")
EXLLAMA = {"7B prompt": 13_918, "13B prompt": 7_507, "33B prompt": 2_959, "70B prompt": 914, "7B decode": 173,
           "7B decode at 2,048": 140, "70B decode": 17}
"""Tokens a second that its README gives, on one RTX 4090 (70B: with a second card)."""
GOALS = {"7B prompt": 45_000, "13B prompt": 25_000, "33B prompt": 10_000, "70B prompt": 5_000,
         "7B decode": 800, "7B decode at 2,048": 700, "70B decode": 85}
"""On an H200."""


def read(path: Path) -> Any:
    """None where a stage left nothing, or half of something."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def stages(folder: Path) -> list[dict[str, Any]]:
    """What ran, as the shell noted it: lines of name, exit code and seconds."""
    text = (folder / "stages.txt").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines())
    said = {"0": "passed", "124": "took too long", "125": "left out: no time",
            "127": "its program is missing"}
    return [{"stage": name, "exit_code": int(code), "seconds": int(seconds),
             "outcome": said.get(code, f"FAILED ({code})")}
            for name, code, seconds in lines]


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
                     f"{row['share']:8.0%}{theirs}")
    return lines


def main(arguments: list[str]) -> int:
    """0 if every stage passed."""
    folder, target = map(Path, arguments)
    ran = stages(folder)
    reports = {size: read(folder / f"{size}.json") for size in SIZES}
    found = {size: report for size, report in reports.items() if report}
    collected = {"device": read(folder / "device.json"), "stages": ran, "speed": found,
                 "chat": read(folder / "chat.json"), "reload": read(folder / "reload.json"),
                 "crossover": read(folder / "crossover.json")}
    target.write_text(json.dumps(collected, indent=1) + "\n", encoding="utf-8")
    lines = []
    if found:
        lines = [f"{'tokens a second':27}{'measured':>12}{'limit':>8}{'ExLlama':>12}{'goal':>12}",
                 *(line for size, report in found.items() for line in speed_lines(size, report)), ""]
    linear = [line for size, report in found.items() for line in linear_lines(size, report)]
    if linear:
        lines += [f"{'linear layer':20}{'rows':>8}{'us':>12}{'limit':>8}{'int4pack':>12}", *linear, ""]
    lines += [f"{stage['stage']:16}{stage['outcome']:24}{stage['seconds']:5} s" for stage in ran]
    print("\n".join(lines))
    return 0 if all(stage["exit_code"] == 0 for stage in ran) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
