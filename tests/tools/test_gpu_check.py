"""tools/gpu_check.sh and its parts, as far as they can run without a GPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from model.devices import cuda_problem
from model.kernels.crossover import ROWS, find_crossover
from tests.helpers.api import wait_until
from tools.benchmark.__main__ import main as benchmark
from tools.benchmark.crossover import crossover_table
from tools.gpu_check import chat, peers, reload
from tools.gpu_check.__main__ import MAX_SECONDS, TESTS, Stage, run_all, stages
from tools.gpu_check.replay import by_kernel
from tools.gpu_check.table import SIZES, Ran, write_results
from tools.gpu_check.tests import run_together

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "gpu_check.sh"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not cuda_problem(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_2(tmp_path: Path):
    result = run("speed", "--out", tmp_path / "out", "--python", sys.executable)
    assert result.returncode == 2
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert "tools/gpu_check.sh needs a GPU" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--out", "x"], ["speed"], ["tests", "--out"],
                                       ["speed", "--what", "x"], ["tests", "--out", "x", "--wheels"]])
def test_wrong_arguments_are_told_and_change_nothing(arguments: list[str], tmp_path: Path):
    result = run(*arguments)
    assert result.returncode == 2 and result.stderr.startswith("usage:")


def test_a_folder_without_wheels_is_told(tmp_path: Path):
    result = run("tests", "--out", tmp_path / "out", "--wheels", tmp_path, "--python", sys.executable)
    assert result.returncode == 2 and f"no wheel in {tmp_path}" in result.stderr


def test_the_stages_of_both_calls_have_fifteen_minutes_together(tmp_path: Path):
    names = {call: [stage.name for stage in stages(call, tmp_path, None)] for call in MAX_SECONDS}
    assert names == {"speed": ["build", "7B", "replay", "7B-waits", "7B-long", "ncu"],
                     "tests": ["build", "tests", "memcheck", "racecheck", "chat", "reload", "8B", "13B",
                               "33B", "70B", "peers", "crossover"]}
    for call, seconds in MAX_SECONDS.items():
        of_stages = sum(stage.seconds for stage in stages(call, tmp_path, None))
        assert of_stages <= seconds - 10, "wheels and the look at the GPU"
    assert sum(MAX_SECONDS.values()) < 15 * 60
    sizes = {stage.name for call in MAX_SECONDS for stage in stages(call, tmp_path, None)} & set(SIZES)
    assert sizes == set(SIZES), "the table has them all"
    assert all((ROOT / file).is_file() for file in TESTS)
    others = set((ROOT / "tests").rglob("test_*.py")) - {Path(__file__)}
    own = {path.relative_to(ROOT).as_posix() for path in others
           if re.search(r"params=.*(ON_GPU|LIBRARIES)", path.read_text(encoding="utf-8"))}
    assert set(TESTS) == own, "every file with tests for a GPU, and no other"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    return tmp_path


def shell(name: str, seconds: int, script: str) -> Stage:
    return Stage(name, seconds, ["sh", "-c", script], {"NAME": name})


def written(out: Path) -> dict[str, str]:
    """Stage -> its outcome, as the results say."""
    found = json.loads((out / "results.json").read_text())["stages"]
    return {one["stage"]: one["outcome"] for one in found}


def test_results_are_written_after_every_stage(out: Path):
    """The second stage finds the first one in the results."""
    looks = f"grep -A1 '\"first\"' {out}/results.json | grep -q '\"exit_code\": 0' && echo $NAME saw it"
    chosen = [shell("first", 5, "echo one; echo two; echo"), shell("second", 5, looks),
              shell("fails", 5, "echo wrong >&2; exit 3"), Stage("missing", 5, ["no-such-program"])]
    ran = run_all(chosen, out, time.monotonic() + 60)
    assert written(out) == {"first": "passed", "second": "passed", "fails": "FAILED (3)",
                            "missing": "its program is missing"}
    assert [one.said for one in ran] == ["two", "second saw it", "wrong", "there is no no-such-program"]
    table = (out / "table.txt").read_text().splitlines()
    assert table[2].split() == ["fails", "FAILED", "(3)", "0", "s", "wrong"]
    assert table[3].split()[:3] == ["missing", "its", "program"]
    assert (out / "logs.txt").read_text().startswith("==> first <==\none\ntwo\n")


def test_a_stage_that_hangs_is_ended_with_what_it_started(out: Path):
    hangs = f"sh -c 'sleep 1000' & echo $! > {out}/child; wait"
    run_all([shell("hangs", 4, hangs), shell("late", -2, "true")], out, time.monotonic() + 60)
    assert written(out) == {"hangs": "took too long", "late": "not reached"}
    child = Path(f"/proc/{(out / 'child').read_text().strip()}/stat")

    def is_gone() -> bool:
        try:
            return child.read_text().split()[2] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(is_gone)  # what was killed takes a moment to go


def test_at_the_end_of_the_time_the_rest_is_not_reached(out: Path):
    ran = run_all([shell("one", 50, "sleep 1000"), shell("two", 50, "true")], out, time.monotonic() + 3.2)
    assert [one.outcome for one in ran] == ["took too long", "not reached"]
    assert written(out)["two"] == "not reached" and ran[0].seconds < 20


def test_tests_run_in_several_processes_and_one_that_fails_is_told(capfd: pytest.CaptureFixture):
    commands = [["sh", "-c", f"echo {word}; exit {code}"] for word, code in (("a", 0), ("b", 3), ("c", 0))]
    assert run_together(commands) == 3 and run_together(commands[:1]) == 0
    assert capfd.readouterr().out.split() == ["a", "b", "c", "a"]


def test_a_profile_is_the_kernels_of_a_token():
    def event(name: str, start: float, end: float) -> SimpleNamespace:
        return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=end))

    events = [event("void parlor::(anonymous namespace)::multiply_kernel<Variant<4> >(Product)", at, at + 3)
              for at in (0, 10, 20, 30)]
    rows = by_kernel([*events, event("Memcpy HtoD", 40, 41)], tokens=2)
    assert rows == [{"kernel": "multiply_kernel", "launches": 2, "microseconds": 6},
                    {"kernel": "Memcpy HtoD", "launches": 0.5, "microseconds": 0.5}]


def test_peers_that_are_not_there_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert peers.main(["--out", str(tmp_path / "peers.json")]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["exllama", "exllamav2"]
    (tmp_path / "exllama").mkdir()
    (tmp_path / "exllama" / "cuda_ext.py").write_text("raise RuntimeError('no nvcc\\nand more')")
    assert peers.main(["--from", str(tmp_path), "--out", str(tmp_path / "peers.json")]) == 0
    (found, _) = json.loads((tmp_path / "peers.json").read_text())["peers"]
    assert found["problem"] == "not measured: RuntimeError: no nvcc" and found["linear"] == []


def test_the_chat_and_the_reloading_run_on_the_cpu_too(tmp_path: Path):
    assert chat.main(["--device", "cpu", "--out", str(tmp_path / "chat.json")]) == 0
    assert json.loads((tmp_path / "chat.json").read_text())["answer"].strip()
    assert reload.main(["--device", "cpu", "--out", str(tmp_path / "reload.json")]) == 0


@pytest.mark.skipif(not cuda_problem(), reason="there is a GPU here")
def test_crossovers_without_a_gpu_are_one_sentence(capsys: pytest.CaptureFixture):
    assert benchmark(["--crossover"]) == 1
    assert "--crossover needs a GPU" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "want"), [(0.5, 16), (4.5, 48), (100.0, None), (31.5, 256)])
def test_dequantizing_pays_from_where_it_wins_twice(seconds: float, want: int | None):
    """31.5: it wins at the last number of rows alone."""
    in_steps = [-(-rows // 8) for rows in ROWS]
    assert find_crossover(in_steps, [seconds] * len(ROWS)) == want
    results = [{"n": 4096, "k": 11008, "crossover": want}]
    assert crossover_table(results).splitlines()[1].split()[:2] == ["4,096", "11,008"]


def test_one_disturbed_measurement_does_not_decide():
    direct = [-(-rows // 8) for rows in ROWS]
    direct[0] = 50.0
    assert find_crossover(direct, [7.5] * len(ROWS)) == 64


def test_the_table_tells_what_was_measured_and_what_failed(out: Path):
    case = {"prompt": 2048, "context": 0, "batch": 1, "tokens_per_second": 45678.9, "share": 0.81}
    decode = {"prompt": 0, "context": 2048, "batch": 1, "tokens_per_second": 700.5, "share": 0.7}
    linear = {"n": 4096, "k": 4096, "rows": 1, "microseconds": 3.2, "share": 0.65,
              "kind": "act-order"}
    kernel = {"what": "attention at 2,048, q8, 1 rows", "microseconds": 8.0, "share": 0.5}
    parts = out / "parts"
    (parts / "7B.json").write_text(json.dumps({"cases": [case, decode], "linear": [linear],
                                               "kernels": [kernel]}))
    (parts / "chat.json").write_text('{"answer": "half of')
    (parts / "replay.json").write_text(json.dumps({"kernels": [
        {"kernel": "multiply_kernel", "launches": 128.0, "microseconds": 970.0}]}))
    (parts / "peers.json").write_text(json.dumps({"peers": [{"name": "exllama", "problem": "not measured: x",
                                                             "linear": []}]}))
    write_results(out, [Ran("build", 0, 31, "cuda: 20.1 s"), Ran("tests", 1, 12, ""), Ran("33B", 125, 0, "")])
    said = (out / "table.txt").read_text().splitlines()
    assert said[1].split() == ["7B", "prompt", "45,678.9", "81%", "13,918", "45,000"]
    assert said[2].split() == ["7B", "decode", "at", "2,048", "700.5", "70%", "140", "700"]
    assert "7B   attention at 2,048, q8, 1 rows                      8.0     50%" in said
    assert ["7B", "4,096", "x", "4,096", "1", "3.2", "65%", "-", "act-order"] in map(str.split, said)
    assert "exllama: not measured: x" in said
    assert any(line.split() == ["multiply_kernel", "128.0", "970.0"] for line in said)
    assert [line.split()[:3] for line in said[-3:]] == [
        ["build", "passed", "31"], ["tests", "FAILED", "(1)"], ["33B", "not", "reached"]]
    results = json.loads((out / "results.json").read_text())
    assert results["chat"] is None and results["speed"]["7B"]["cases"][0]["share"] == 0.81
