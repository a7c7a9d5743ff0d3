"""Another program beside ours: runs its command, and reads its results as the same cases.

Understood are the JSON lines of llama.cpp's tools: llama-bench -o jsonl, and llama-batched-bench
--output-format jsonl. Of any other output only the seconds of the whole run count.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tools.benchmark.cases import Case


class PeerError(RuntimeError):
    """The peer's command did not succeed."""


@dataclass(frozen=True)
class Result:
    """What the peer reached in one case."""

    tokens_per_second: float
    setting: str = ""  # what it was measured with, where a peer has several


@dataclass(frozen=True)
class PeerRun:
    """One run of the command; `results` by Case.kind()."""

    seconds: float
    peak_bytes: int  # of its largest process; 0 where the system does not tell
    results: dict[Case, Result]


def run_peer(command: str) -> PeerRun:
    """Run the command line in a shell. Raises PeerError if it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        output = process.stdout.read().decode("utf-8", "replace")
        process.stdout.close()
        peak_bytes = _wait(process)
        seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip()[-500:]
            raise PeerError(f"--compare: the command ended with {process.returncode}. {said}")
    return PeerRun(seconds, peak_bytes, parse(output))


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end; the peak memory of the largest process below, in bytes."""
    if not hasattr(os, "wait4"):  # Windows
        process.wait()
        return 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * 1024


def parse(output: str) -> dict[Case, Result]:
    """Results by Case.kind(); of several of one kind (-fa 0,1) the fastest."""
    results: dict[Case, Result] = {}
    for line in output.splitlines():
        for case, result in _results(_json_object(line)):
            if case not in results or result.tokens_per_second > results[case].tokens_per_second:
                results[case] = result
    return results


def _json_object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _results(row: dict[str, Any]) -> Iterator[tuple[Case, Result]]:
    """Of a line: nothing, unless it is a result that has a case of ours."""
    setting = f"-fa {int(row['flash_attn'])}" if "flash_attn" in row else ""
    if "avg_ts" in row:
        prompt, steps, depth = row["n_prompt"], row["n_gen"], row.get("n_depth", 0)
        result = Result(float(row["avg_ts"]), setting)
        if prompt and not steps and not depth:
            yield Case(prompt=prompt), result
        elif steps and not prompt:
            yield Case(context=depth, steps=steps).kind(), result
    elif "speed_tg" in row:
        context = row["pp"] if row["pp"] > 1 else 0  # no request is without a token
        yield Case(context=context, batch=row["pl"], steps=1), Result(float(row["speed_tg"]), setting)
