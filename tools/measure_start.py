"""How long ./start.sh takes until the page is there and the model, after it has been set up once.

    python -m tools.measure_start [--times 5] [--json FILE] [arguments of app.py]

From the shell script's first line, with files in the disk cache: an unmeasured start comes first.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from model.options import path_option
from tools.check_logits import machine

HERE = Path(__file__).resolve().parents[1]


def seconds_of_a_start(arguments: list[str]) -> dict[str, float]:
    """Until it prints its address, until a page has all that it begins with, and until the model is there.

    Raises RuntimeError with what was printed, if it does not get there.
    """
    with tempfile.TemporaryDirectory() as sessions:
        command = ["./start.sh", "--no-browser", "--port", "0", "--sessions-dir", sessions, *arguments]
        started = time.monotonic()
        seconds = {}
        with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            said = []
            for line in server.stdout:
                said.append(line)
                if line.startswith("Parlor is open"):
                    seconds["address"] = time.monotonic() - started
                    open_page(line.split()[3])
                    seconds["page"] = time.monotonic() - started
                elif line.endswith(" is loaded.\n"):
                    seconds["model"] = time.monotonic() - started
                    server.send_signal(signal.SIGTERM)
                    return {what: round(number, 2) for what, number in seconds.items()}
            raise RuntimeError(f"start.sh ended before it was ready; it said: {''.join(said)}")


def open_page(address: str) -> None:
    """Read what a browser begins with: the page, its style and scripts, and the first answers."""
    with urlopen(address) as answer:
        page = answer.read().decode()
    files = re.findall(r'(?:href|src)="/?([^":]+\.(?:css|js))"', page)
    for path in [*files, *(f"api/{name}" for name in ("bots", "settings", "sessions", "status"))]:
        with urlopen(address + path) as answer:
            answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", type=path_option, metavar="FILE")
    options, arguments = parser.parse_known_args()
    seconds_of_a_start(arguments)
    starts = [seconds_of_a_start(arguments) for _ in range(options.times)]
    median = {what: statistics.median(start[what] for start in starts) for what in starts[0]}
    print("; ".join(f"{what} after {number:.1f} s" for what, number in median.items()))
    if options.json:
        report = {"command": "python -m tools.measure_start", "machine": machine(), "median": median,
                  "seconds": starts}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
