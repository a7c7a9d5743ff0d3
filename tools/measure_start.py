"""How long ./start.sh takes until it prints its address, after it has been set up once.

    python -m tools.measure_start [--times 5] [--json FILE] [arguments of app.py]

From the shell script's first line, with files in the disk cache: an unmeasured start comes first.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from model.options import path_option
from tools.check_logits import machine

HERE = Path(__file__).resolve().parents[1]


def seconds_to_ready(arguments: list[str]) -> float:
    """Raises RuntimeError with what was printed, if it does not get there."""
    with tempfile.TemporaryDirectory() as sessions:
        command = ["./start.sh", "--no-browser", "--port", "0", "--sessions-dir", sessions, *arguments]
        started = time.monotonic()
        with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            said = []
            for line in server.stdout:
                said.append(line)
                if line.startswith("Parlor is ready"):
                    seconds = time.monotonic() - started
                    server.send_signal(signal.SIGTERM)
                    return seconds
    raise RuntimeError(f"start.sh ended before it was ready; it said: {''.join(said)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", type=path_option, metavar="FILE")
    options, arguments = parser.parse_known_args()
    seconds_to_ready(arguments)
    seconds = [round(seconds_to_ready(arguments), 2) for _ in range(options.times)]
    print(f"ready after {statistics.median(seconds):.1f} s (median of {seconds})")
    if options.json:
        report = {"command": "python -m tools.measure_start", "machine": machine(), "seconds": seconds}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
