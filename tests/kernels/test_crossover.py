"""model/kernels/crossover.py and who uses it: what was measured decides from then on. The clock is played."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.kernels.crossover import NEVER, ROWS, UNMEASURED, Crossovers
from model.kernels.cuda_kernels import CudaKernels
from tests.host_cuda.build import GPUS, configure
from tests.kernels.test_linear import ROUNDED_ERROR, expected, multiply, quantized_parts, relative_error

GPU = "Fake GPU, torch 9"


class Clock:
    """Reads weights as they are in a millisecond for each 16 rows, and dequantized in `dequantized`."""

    def __init__(self, dequantized: float) -> None:
        self.dequantized, self.calls = dequantized, 0

    def __call__(self, work: Callable[[], Any]) -> float:
        if self.calls < 4:
            work()  # on a GPU each is; here a few show that they can be
        rows, is_second = ROWS[self.calls // 2 % len(ROWS)], self.calls % 2
        self.calls += 1
        return self.dequantized if is_second else rows / 16


@pytest.fixture
def gpu(host_cuda_library, tmp_path: Path) -> Callable[[Any], CudaKernels]:
    """gpu(clock): operations that keep what they measure in a file."""
    configure(host_cuda_library.path, GPUS["cuda"])
    return lambda clock: CudaKernels(host_cuda_library, "cpu",
                                     Crossovers(tmp_path / "crossovers.json", GPU, clock))


def ways(ops: CudaKernels, weight: Any, monkeypatch: pytest.MonkeyPatch) -> dict[int, bool]:
    """Rows of a prompt -> whether the weight was dequantized for them."""
    taken: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(ops, "multiply_dequantized", lambda x, *_: taken.append(len(x)))
        patch.setattr(ops, "linear", lambda *_: None)
        for rows in (1, 15, *ROWS):
            ops.prompt_linear(torch.empty(rows, weight.k), weight, torch.empty(rows, weight.n))
    return {rows: rows in taken for rows in (1, 15, *ROWS)}


def no_clock(work: Callable[[], Any]) -> float:
    pytest.fail("it was measured already")


def test_what_was_measured_decides_for_each_shape(gpu, monkeypatch):
    ops = gpu(Clock(dequantized=5.0))
    small, large = (ops.pack_linear(**quantized_parts(n, 64, 32)) for n in (24, 40))
    ops.measure_crossovers([small, small])
    assert ways(ops, small, monkeypatch) == {rows: rows >= 96 for rows in (1, 15, *ROWS)}, "5 ms are 80 rows"
    assert ways(ops, large, monkeypatch) == {rows: rows >= UNMEASURED for rows in (1, 15, *ROWS)}
    ops.crossovers.clock = Clock(dequantized=1e9)
    ops.measure_crossovers([small, large])
    assert ways(ops, small, monkeypatch)[96], "known before"
    assert not any(ways(ops, large, monkeypatch).values()), "never better"


def test_the_next_start_reads_what_was_measured(gpu, monkeypatch, tmp_path):
    first = gpu(Clock(dequantized=2.5))
    weight = first.pack_linear(**quantized_parts(24, 64, 32))
    first.measure_crossovers([weight])
    second = gpu(no_clock)
    second.measure_crossovers([weight])
    assert ways(second, weight, monkeypatch) == {rows: rows >= 48 for rows in (1, 15, *ROWS)}
    (kept,) = json.loads((tmp_path / "crossovers.json").read_text())[GPU].items()
    assert kept == ("24 x 64 q4 g32 zeros 0", 48)


def test_another_gpu_is_measured_for_itself_and_both_are_kept(gpu, host_cuda_library, tmp_path):
    weight = gpu(None).pack_linear(**quantized_parts(24, 64, 32))
    gpu(Clock(dequantized=2.5)).measure_crossovers([weight])
    other = CudaKernels(host_cuda_library, "cpu",
                        Crossovers(tmp_path / "crossovers.json", "another", Clock(9.0)))
    other.measure_crossovers([weight])
    assert (other.crossovers.rows(weight), gpu(no_clock).crossovers.rows(weight)) == (192, 48)


@pytest.mark.parametrize("text", ["{", "[]", '{"Fake GPU, torch 9": [1]}', '{"Fake GPU, torch 9": {"x": 7}}'])
def test_a_broken_file_is_told_and_measured_anew(gpu, tmp_path, caplog, text):
    (tmp_path / "crossovers.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        ops = gpu(Clock(dequantized=2.5))
    assert "crossovers.json is left out" in caplog.text and "measured again" in caplog.text
    weight = ops.pack_linear(**quantized_parts(24, 64, 32))
    ops.measure_crossovers([weight])
    assert gpu(no_clock).crossovers.rows(weight) == 48


def test_where_nothing_can_be_written_the_measurement_still_counts(host_cuda_library, tmp_path, caplog):
    ops = CudaKernels(host_cuda_library, "cpu", Crossovers(tmp_path / "no" / "x.json", GPU, Clock(2.5)))
    weight = ops.pack_linear(**quantized_parts(24, 64, 32))
    ops.measure_crossovers([weight])
    assert ops.crossovers.rows(weight) == 48 and "cannot be written" in caplog.text


def test_no_crossover_changes_a_result_beyond_rounding(gpu):
    ops = gpu(Clock(dequantized=2.5))
    parts = quantized_parts(40, 96, 32, zeros="bytes", bias=True)
    weight = ops.pack_linear(**parts)
    ops.measure_crossovers([weight])
    x = torch.randn(64, 96)
    for rows in (16, 47, 48, 64):
        got = torch.empty(rows, 40)
        ops.prompt_linear(x[:rows], weight, got)
        assert relative_error(got, expected(parts, x[:rows])) < ROUNDED_ERROR
        assert torch.equal(got, multiply(ops, weight, x[:rows])) or rows >= 48


def test_exact_and_float32_weights_are_never_dequantized(gpu):
    ops = gpu(no_clock)
    weights = [ops.pack_linear(**quantized_parts(24, 64, 32), exact=True), ops.pack_dense(torch.randn(8, 64))]
    ops.measure_crossovers(weights)
    assert [ops.crossovers.rows(weight) for weight in weights] == [NEVER, NEVER]
