"""Run the stages of one call of tools/gpu_check.sh, the most telling first, within its time.

    python -m tools.gpu_check speed|tests --out DIR [--started TIME] [--peers DIR]

What is known is written after every stage: DIR gets results.json, table.txt and logs.txt. A stage must end
when its own time and that of all stages before it is up, so what an earlier one leaves a later one may use.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.options import path_option
from tools.gpu_check.table import Ran, write_results
from tools.gpu_check.tests import PYTEST

MAX_SECONDS = {"speed": 290, "tests": 590}
"""Of each call, from the start of the script to its end."""
_LEAST_SECONDS = 3
"""Less is not worth a start."""
_GRACE_SECONDS = 3
"""Between being asked to end and being ended."""
TOOK_TOO_LONG, NOT_REACHED, MISSING = 124, 125, 127
KERNEL_TESTS = ("tests/kernels/test_self_check.py", "tests/kernels/test_linear.py",
                "tests/kernels/test_prompt_layers.py", "tests/kernels/test_attention.py")
TESTS = (*KERNEL_TESTS, "tests/kernels/test_kernels.py", "tests/kernels/test_rows.py",
         "tests/kernels/test_groups.py", "tests/kernels/test_float8.py", "tests/kernels/test_routing.py",
         "tests/kernels/test_experts.py", "tests/kernels/test_states.py", "tests/kernels/test_lora.py",
         "tests/kernels/test_sampling_kernel.py",
         "tests/engine/test_cuda_engine.py")
"""Those that run on a GPU."""


@dataclass(frozen=True)
class Stage:
    """A command, and the seconds that it has at least. `environment`: variables beside this process's."""

    name: str
    seconds: int
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


def program(name: str) -> str:
    """Of the PATH, or of CUDA's toolkit."""
    return shutil.which(name) or f"/usr/local/cuda/bin/{name}"


def stages(call: str, parts: Path, peers: Path | None) -> list[Stage]:
    """Those of a call; each leaves its numbers in a file of `parts`."""
    def tool(name: str, *arguments: str, out: str = "") -> list[str]:
        written = ["--out", str(parts / f"{out or name}.json")]
        return [sys.executable, "-m", f"tools.gpu_check.{name}", *arguments, *written]

    def speed(size: str, shape: str, *more: str) -> list[str]:
        return tool("speed", "--shape", shape, *more, out=size)

    if call == "speed":
        ncu = [program("ncu"), "--set", "full", "--clock-control", "none", "--launch-count", "4",
               "--kernel-name", "regex:multiply_kernel|attention_kernel"]
        return [
            Stage("build", 45, [sys.executable, "-m", "tools.gpu_check.build", "cuda"]),
            Stage("7B", 85, speed("7B", "llama-2-7b", "--kernels")),
            Stage("replay", 30, tool("replay")),
            Stage("7B-waits", 30, speed("7B-waits", "llama-2-7b", "--decoding", "--kernels-wait")),
            Stage("7B-long", 35, speed("7B-long", "llama-2-7b", "--decoding", "--longest")),
            Stage("ncu", 50, [*ncu, sys.executable, "-m", "tools.gpu_check.kernels"]),
        ]
    few = [*PYTEST, "-x", *KERNEL_TESTS,
           "-k", "right_kernels or shares_the_columns or neighbours_or_chunks or page_sizes"]
    sanitizer = [program("compute-sanitizer"), "--error-exitcode", "9", "--print-limit", "20", "--tool"]
    return [
        Stage("build", 55, [sys.executable, "-m", "tools.gpu_check.build", "cuda", "cpu"]),
        Stage("tests", 120, [sys.executable, "-m", "tools.gpu_check.tests", *TESTS]),
        # without torch's cache of memory, so that every tensor is an allocation whose ends are watched
        Stage("memcheck", 60, [*sanitizer, "memcheck", *few], {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}),
        Stage("racecheck", 40, [*sanitizer, "racecheck", "--kernel-name", "kernel_substring=parlor", *few]),
        Stage("chat", 35, tool("chat", "--device", "cuda")),
        Stage("reload", 25, tool("reload", "--device", "cuda")),
        Stage("8B", 35, speed("8B", "llama-3-8b")),
        Stage("13B", 35, speed("13B", "llama-2-13b")),
        Stage("33B", 40, speed("33B", "llama-1-33b")),
        Stage("70B", 65, speed("70B", "llama-2-70b")),
        Stage("peers", 40, tool("peers", *(["--from", str(peers)] if peers else []))),
        Stage("crossover", 15, [sys.executable, "-m", "tools.benchmark", "--crossover", "--json",
                                str(parts / "crossover.json")]),
    ]


def run_all(chosen: Sequence[Stage], out: Path, end: float) -> list[Ran]:
    """Run them and write the results after each; `end` is the time.monotonic() at which all must be over."""
    ran = [Ran(stage.name, NOT_REACHED, 0, "") for stage in chosen]
    write_results(out, ran)
    due = time.monotonic()
    for index, stage in enumerate(chosen):
        due += stage.seconds
        seconds = min(due, end) - time.monotonic()
        if seconds >= _LEAST_SECONDS:
            print(f"{stage.name} ...", flush=True)
            ran[index] = _run(stage, out, seconds)
            write_results(out, ran)
    return ran


def _run(stage: Stage, out: Path, seconds: float) -> Ran:
    log, started = out / "parts" / f"{stage.name}.log", time.monotonic()
    with log.open("wb") as file:
        try:
            # a session of its own, so that what it has started ends with it
            process = subprocess.Popen(stage.command, stdout=file, stderr=subprocess.STDOUT,
                                       env={**os.environ, **stage.environment}, start_new_session=True)
        except FileNotFoundError:
            return Ran(stage.name, MISSING, 0, f"there is no {stage.command[0]}")
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = TOOK_TOO_LONG
        finally:
            _end(process)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    with (out / "logs.txt").open("a", encoding="utf-8") as everything:
        everything.write("\n".join([f"==> {stage.name} <==", *lines, "", ""]))
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Ran(stage.name, code, round(time.monotonic() - started), said[:120])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a stage: itself, and the processes that it started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
            process.wait(_GRACE_SECONDS)
        except (ProcessLookupError, PermissionError):
            return
        except subprocess.TimeoutExpired:
            continue


def main(arguments: list[str] | None = None) -> int:
    """0 if every stage passed."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check")
    parser.add_argument("call", choices=tuple(MAX_SECONDS))
    parser.add_argument("--out", type=path_option, required=True)
    parser.add_argument("--started", type=float, default=time.time(), help="when the script began")
    parser.add_argument("--peers", type=path_option, help="a folder with sources of exllama or exllamav2")
    options = parser.parse_args(arguments)
    end = time.monotonic() + MAX_SECONDS[options.call] - (time.time() - options.started)
    parts = options.out / "parts"
    (options.out / "logs.txt").unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C: what is known is written already
    try:
        ran = run_all(stages(options.call, parts, options.peers), options.out, end)
    finally:
        shutil.rmtree(parts)
        print((options.out / "table.txt").read_text(encoding="utf-8"), end="")
    return 0 if all(one.exit_code == 0 for one in ran) else 1


if __name__ == "__main__":
    raise SystemExit(main())
