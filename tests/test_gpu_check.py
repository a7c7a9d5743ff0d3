"""tools/gpu_check.sh and its parts, as far as they can run without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.devices import cuda_problem
from model.kernels.crossover import ROWS, find_crossover
from tools.benchmark.__main__ import main as benchmark
from tools.benchmark.crossover import crossover_table
from tools.gpu_check import chat, reload, table

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "gpu_check.sh"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not cuda_problem(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line_and_ends_with_2(tmp_path: Path):
    result = run("--out", tmp_path / "out", "--python", sys.executable)
    assert result.returncode == 2
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert "tools/gpu_check.sh needs a GPU" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--out"], ["--what", "x"], ["--out", "x", "--wheels"]])
def test_wrong_arguments_are_told_and_change_nothing(arguments: list[str], tmp_path: Path):
    result = run(*arguments)
    assert result.returncode == 2 and result.stderr.startswith("usage:")


def test_a_folder_without_wheels_is_told(tmp_path: Path):
    result = run("--out", tmp_path / "out", "--wheels", tmp_path, "--python", sys.executable)
    assert result.returncode == 2 and f"no wheel in {tmp_path}" in result.stderr


def test_every_stage_has_a_time_of_its_own():
    stages = [line.split() for line in SCRIPT.read_text().splitlines() if line.startswith("stage ")]
    assert {"build", "tests", "memcheck", "racecheck", "chat", "reload", "7B", "8B", "13B", "33B", "70B",
            "crossover"} == {words[1] for words in stages}
    assert all(words[2].isdigit() and int(words[2]) <= 150 for words in stages)


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


def test_the_table_tells_what_was_measured_and_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "stages.txt").write_text("build 0 31\ntests 1 12\n7B 0 40\n70B 124 90\n33B 125 0\n")
    case = {"prompt": 2048, "context": 0, "batch": 1, "tokens_per_second": 45678.9, "share": 0.81}
    decode = {"prompt": 0, "context": 2048, "batch": 1, "tokens_per_second": 700.5, "share": 0.7}
    linear = {"n": 4096, "k": 4096, "rows": 1, "microseconds": 3.2, "share": 0.65}
    (tmp_path / "7B.json").write_text(json.dumps({"cases": [case, decode], "linear": [linear]}))
    (tmp_path / "chat.json").write_text('{"answer": "half of')
    assert table.main([str(tmp_path), str(tmp_path / "results.json")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["7B", "prompt", "45,678.9", "81%", "13,918", "45,000"]
    assert said[2].split() == ["7B", "decode", "at", "2,048", "700.5", "70%", "140", "700"]
    assert any(line.split() == ["7B", "4,096", "x", "4,096", "1", "3.2", "65%", "-"] for line in said)
    assert [line.split()[1:-2] for line in said[-5:]] == [
        ["passed"], ["FAILED", "(1)"], ["passed"], ["took", "too", "long"], ["left", "out:", "no", "time"]]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["chat"] is None and results["speed"]["7B"]["cases"][0]["share"] == 0.81
