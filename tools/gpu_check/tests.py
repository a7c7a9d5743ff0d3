"""Run the tests that need a GPU in four processes, each with files of its own.

    python -m tools.gpu_check.tests FILE ...
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence

PYTEST = (sys.executable, "-m", "pytest", "--device", "cuda", "-q", "--tb=short", "-p", "no:cacheprovider")
PROCESSES = 4


def run_together(commands: Sequence[Sequence[str]]) -> int:
    """Run commands at once, and print one's words after the other's; the first exit code that is not 0."""
    running = []
    for command in commands:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - it is read when the process has ended
        running.append((log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)))
    codes = []
    for log, process in running:
        codes.append(process.wait())
        log.seek(0)
        print(log.read().decode(errors="replace"), flush=True)
        log.close()
    return next(filter(None, codes), 0)


def main(files: list[str]) -> int:
    shares = [files[index::PROCESSES] for index in range(PROCESSES)]
    return run_together([(*PYTEST, "--maxfail", "20", *share) for share in shares if share])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
