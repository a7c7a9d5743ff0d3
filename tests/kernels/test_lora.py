"""Low-rank products beside weights, on every instruction set and on the GPU's kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.kernels.errors import KernelError
from model.kernels.lora import MAX_RANK, LoraSegment
from model.kernels.reference import lora as reference
from tests.helpers.kernel_libraries import LIBRARIES, is_gpu, opened
from tests.helpers.strided import assert_gaps_untouched, strided
from tests.kernels.test_linear import quantized_parts

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(params=LIBRARIES)
def any_ops(request: pytest.FixtureRequest) -> Any:
    with opened(request) as one:
        yield one


def segment(first: int, rank: int, n: int, k: int, dtype: torch.dtype = torch.float32,
            scale: float = 0.75) -> LoraSegment:
    return LoraSegment(first, (torch.randn(rank, k) / k ** 0.5).to(dtype),
                       (torch.randn(n, rank) / rank ** 0.5).to(dtype), scale)


def several(n: int, k: int) -> list[list[LoraSegment]]:
    """Adapters as they lie beside q, k and v: all of it, two parts, nothing, two that share `down`."""
    first, last = n // 3, n - n // 3
    shared = segment(0, 5, first, k, torch.bfloat16)
    beside = LoraSegment(last, shared.down, torch.randn(n - last, 5).bfloat16(), 2.0)
    return [[segment(0, 1, n, k)], [segment(0, 16, first, k, torch.float16), segment(last, 3, n - last, k)],
            [], [shared, beside]]


def test_one_product_by_hand(any_ops: Any):
    """down takes 1 + 2 * 3 = 7, up 7 and -7 of it, the scale half; the first row has no adapter, and the
    last output is in no segment."""
    weight = any_ops.pack_lora([[LoraSegment(1, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [-1.0]]),
                                             0.5)]], 4, 2)
    x, out = torch.tensor([[9.0, 9.0], [1.0, 3.0]]), torch.ones(2, 4)
    any_ops.lora(x, torch.tensor([-1, 0], dtype=torch.int32), weight, out)
    assert out.tolist() == [[1.0, 1.0, 1.0, 1.0], [1.0, 4.5, -2.5, 1.0]]


@pytest.mark.parametrize("has_norm", [False, True])
def test_rows_get_what_their_adapters_add(any_ops: Any, has_norm: bool):
    sizes = ((5, 7), (40, 33), (530, 100)) if is_gpu(any_ops) else ((5, 7), (40, 33), (1100, 260))
    for n, k in sizes:
        adapters, norm = several(n, k), torch.rand(k) + 0.5 if has_norm else None
        packed = any_ops.pack_lora(adapters, n, k)
        for numbers in ([3], [-1, -1], [1] * 9, [0, 1, 1, 2, -1, 3, 0, 0, 3, 3, 3, 3, 3]):
            rows = torch.tensor(numbers, dtype=torch.int32)
            (x, _), (ours, memory) = strided(len(rows), k), strided(len(rows), n)
            theirs = ours.double()
            exact = [[LoraSegment(s.first, s.down.double(), s.up.double(), s.scale) for s in one]
                     for one in adapters]
            reference_of_float64(x, rows, exact, theirs, norm)
            any_ops.lora(x, rows, packed, ours, norm, 1e-5)
            torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=2e-5)
            assert_gaps_untouched(ours, memory)


def reference_of_float64(x: torch.Tensor, rows: torch.Tensor, adapters: list[list[LoraSegment]],
                         out: torch.Tensor, norm: torch.Tensor | None) -> None:
    for index, number in enumerate(rows.tolist()):
        row = x[index].double()
        if norm is not None:
            row = row / (row.square().mean() + 1e-5).sqrt() * norm.double()
        for part in adapters[number] if number >= 0 else ():
            out[index, part.first:part.first + len(part.up)] += part.scale * (part.up @ (part.down @ row))


def test_the_reference_is_what_float64_gives():
    adapters, norm = several(40, 33), torch.rand(33)
    x, rows = torch.randn(6, 33), torch.tensor([0, 3, -1, 1, 2, 1], dtype=torch.int32)
    ours, theirs = torch.zeros(6, 40), torch.zeros(6, 40, dtype=torch.float64)
    reference.lora(x, rows, reference.pack_lora(adapters, 40, 33), ours, norm, 1e-5)
    exact = [[LoraSegment(s.first, s.down.double(), s.up.double(), s.scale) for s in one] for one in adapters]
    reference_of_float64(x, rows, exact, theirs, norm)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_a_row_has_the_same_bits_alone_and_among_others(any_ops: Any):
    n, k = (530, 100) if is_gpu(any_ops) else (700, 300)
    packed, norm = any_ops.pack_lora(several(n, k), n, k), torch.rand(k)
    rows = torch.tensor([0, 1, 1, 1, 1, 1, -1, 3, 3, 0], dtype=torch.int32)
    x, before = torch.randn(len(rows), k), torch.randn(len(rows), n)
    together = before.clone()
    any_ops.lora(x, rows, packed, together, norm, 1e-5)
    for index in range(len(rows)):
        alone = before[index:index + 1].clone()
        any_ops.lora(x[index:index + 1], rows[index:index + 1], packed, alone, norm, 1e-5)
        assert torch.equal(alone[0], together[index])


@pytest.mark.parametrize("kind", ["quantized", "dense"])
def test_gate_and_up_apart_come_to_the_bits_of_both_together(any_ops: Any, kind: str):
    """Beside rows with an adapter the others are computed so, too. Those of prompts in their own way."""
    n, k = 96, 64
    if kind == "dense":
        weight = any_ops.pack_dense(torch.randn(n, k).half())
    else:
        weight = any_ops.pack_linear(**quantized_parts(n, k, 32))
    ways = [any_ops.linear]
    if any_ops.prompts is not None:
        ways.append(any_ops.prompts.prompt_linear)
    x, norm = torch.randn(40, k) * 3, torch.rand(k)
    for multiply in ways:
        together, apart, wide = torch.empty(40, n // 2), torch.empty(40, n // 2), torch.empty(40, n)
        multiply(x, weight, together, norm, 1e-5, "silu_mul")
        multiply(x, weight, wide, norm, 1e-5)
        any_ops.activate(wide, apart, "silu", True)
        assert torch.equal(together, apart)


def test_what_does_not_fit_is_an_error(any_ops: Any):
    with pytest.raises(ValueError, match=r"expected \[rank, 8\] and \[n, rank\] within 4 outputs"):
        any_ops.pack_lora([[segment(1, 2, 4, 8)]], 4, 8)
    with pytest.raises(ValueError, match=r"rank 1,025 beside one weight; at most 1,024"):
        any_ops.pack_lora([[segment(0, MAX_RANK + 1, 4, 8)]], 4, 8)
    with pytest.raises(ValueError, match="5 segments; at most 4"):
        any_ops.pack_lora([[segment(0, 1, 1, 8)] * 5], 8, 8)


def test_an_adapter_that_is_not_there_is_no_memory_that_is_touched(any_ops: Any):
    """The CPU says so, a GPU's row becomes NaN."""
    packed, out = any_ops.pack_lora([[segment(0, 2, 4, 8)]], 4, 8), torch.zeros(2, 4)
    rows = torch.tensor([0, 1], dtype=torch.int32)
    if not hasattr(any_ops, "device") and not hasattr(any_ops, "bare"):
        with pytest.raises(KernelError, match="outside its table"):
            any_ops.lora(torch.randn(2, 8), rows, packed, out)
        return
    any_ops.lora(torch.randn(2, 8), rows, packed, out)
    assert out[0].isfinite().all() and out[1].isnan().all()
