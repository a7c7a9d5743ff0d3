"""The experts of a layer as one operation, on every library, against the reference; and that no row's bits
depend on which others are computed beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from model.kernels.errors import KernelError
from model.kernels.float8 import Float8
from model.kernels.groups import Groups
from model.kernels.reference import operations as reference
from model.kernels.routing import Routing
from tests.helpers.kernel_libraries import LIBRARIES, is_gpu, opened

HIDDEN, INNER, EXPERTS, TOP_K = 96, 40, 6, 3
KINDS = ("q4", "q8", "f16", "bf16", "f32", "groups", "float8", "two", "act-order")
"""two: gate and up are weights of their own, of different kinds; of some experts only."""


@pytest.fixture(params=LIBRARIES)
def ops(request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(request) as one:
        yield one


def random(*shape: int) -> Tensor:
    return torch.randn(*shape)


def packed(ops: Any, kind: str, n: int, k: int, exact: bool, bias: Tensor | None = None) -> Any:
    """A weight of this kind, and the same of the reference; random numbers are drawn once."""
    if kind in ("f16", "bf16", "f32"):
        dtype = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[kind]
        weight = (random(n, k) * 0.1).to(dtype)
        return [each.pack_dense(weight, bias=bias, exact=exact) for each in (ops, reference)]
    if kind == "float8":
        weight = Float8((random(n, k) * 0.1).to(torch.float8_e4m3fn), torch.rand(n) + 0.5, None, k)
        return [each.pack_float8(weight, bias=bias, exact=exact) for each in (ops, reference)]
    if kind == "groups":
        codes = torch.randint(0, 16, (n, k), dtype=torch.uint8)
        scales = (torch.rand(n, k // 32) * 0.02 + 0.005).half()
        groups = Groups(codes, 4, 32, scales, mins=(torch.rand(n, k // 32) * 0.2).half())
        return [each.pack_groups(groups, bias=bias, exact=exact) for each in (ops, reference)]
    bits = 8 if kind == "q8" else 4
    codes = torch.randint(0, 2 ** bits, (n, k), dtype=torch.uint8)
    scales = (torch.rand(n, -(-k // 32)) * 0.1 / 2 ** (bits - 1) + 0.005).half()
    zeros = torch.full_like(scales, 2 ** (bits - 1), dtype=torch.uint8)
    perm = torch.randperm(k).int() if kind == "act-order" else None
    return [each.pack_linear(codes, scales, zeros, 32, bits=bits, perm=perm, bias=bias, exact=exact)
            for each in (ops, reference)]


def layer(ops: Any, kind: str, activation: str = "silu", gated: bool = True, exact: bool = False,
          scales_input: bool = False, has_bias: bool = False, inner: int = INNER) -> tuple[Any, Any]:
    """The experts of a layer, and those of the reference."""
    gate_up, down = [], []
    inner = 64 if kind == "groups" else inner
    for expert in range(EXPERTS):
        own = "q4" if kind == "two" else kind
        bias = random(2 * inner) if has_bias else None
        if kind == "two" and expert != 2:
            gate_up.append([packed(ops, "q4", inner, HIDDEN, exact), packed(ops, "q8", inner, HIDDEN, exact)])
        else:
            gate_up.append([packed(ops, own, inner * (2 if gated else 1), HIDDEN, exact,
                                   bias if gated or bias is None else bias[:inner])])
        down.append(packed(ops, own, HIDDEN, inner, exact, random(HIDDEN) if has_bias else None))
    return tuple(each.pack_experts([[part[which] for part in parts] for parts in gate_up],
                                   [part[which] for part in down], activation, gated, scales_input)
                 for which, each in enumerate((ops, reference)))  # type: ignore[return-value]


def choices(rows: int, all_to: int | None = None) -> tuple[Tensor, Tensor]:
    """(chosen, shares) of so many rows; all_to: the first choice of each."""
    scores = random(rows, EXPERTS)
    if all_to is not None:
        scores[:, all_to] = 9.0
    chosen, shares = torch.empty(rows, TOP_K, dtype=torch.int32), torch.empty(rows, TOP_K)
    reference.route(scores, Routing(TOP_K), None, None, chosen, shares)
    return chosen, shares


def error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_experts_give_what_the_reference_gives(ops: Any, kind: str):
    ours, theirs = layer(ops, kind, exact=True)
    for rows in (1, 3) if is_gpu(ops) else (1, 3, 40):
        x, (chosen, shares) = random(rows, HIDDEN), choices(rows)
        got, want = torch.full((rows, HIDDEN), torch.nan), torch.empty(rows, HIDDEN)
        ops.experts(x, ours, chosen, shares, got)
        reference.experts(x, theirs, chosen, shares, want)
        # the GPU has no minimums: they become zero points of float16
        assert error(got, want) < (2e-3 if is_gpu(ops) and kind == "groups" else 5e-6)


@pytest.mark.parametrize(("activation", "gated"), [("silu", True), ("clamped", True), ("gelu_tanh", True),
                                                   ("relu", True), ("relu2", False)])
def test_every_activation_with_biases_and_shares_on_either_side(ops: Any, activation: str, gated: bool):
    for scales_input in (False, True):
        ours, theirs = layer(ops, "f32", activation, gated, True, scales_input, has_bias=True)
        x, (chosen, shares) = random(7, HIDDEN), choices(7)
        got, want = random(7, HIDDEN), torch.empty(7, HIDDEN)
        ops.experts(x, ours, chosen, shares, got)
        reference.experts(x, theirs, chosen, shares, want)
        assert error(got, want) < 5e-6


def test_gate_and_up_of_two_weights_with_a_clamped_activation(ops: Any):
    ours, theirs = layer(ops, "two", "clamped", exact=True)
    x, (chosen, shares) = random(9, HIDDEN), choices(9)
    got, want = torch.empty(9, HIDDEN), torch.empty(9, HIDDEN)
    ops.experts(x, ours, chosen, shares, got)
    reference.experts(x, theirs, chosen, shares, want)
    assert error(got, want) < 5e-6


def test_the_sum_is_added_and_what_is_there_is_gated(ops: Any):
    ours, theirs = layer(ops, "f32", exact=True)
    x, (chosen, shares), there = random(5, HIDDEN), choices(5), random(5, HIDDEN)
    for gate in (None, random(5, 1)):
        got, want = there.clone(), there.clone()
        ops.experts(x, ours, chosen, shares, got, add=True, gate=gate)
        reference.experts(x, theirs, chosen, shares, want, add=True, gate=gate)
        assert error(got, want) < 5e-6
    got, want = x.clone(), x.clone()
    ops.experts(got, ours, chosen, shares, got, add=True)
    reference.experts(x, theirs, chosen, shares, want, add=True)
    assert error(got, want) < 5e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_alone_and_among_others(ops: Any, kind: str):
    """Also where all others go to its expert, so that another kernel computes it there."""
    ours, _ = layer(ops, kind)
    computations = [ops.experts] + ([ops.prompts.prompt_experts] if ops.prompts and not is_gpu(ops) else [])
    for rows in (4,) if is_gpu(ops) else (5, 70):
        x, (chosen, shares) = random(rows, HIDDEN), choices(rows, all_to=2)
        for compute in computations:
            together = torch.empty(rows, HIDDEN)
            compute(x, ours, chosen, shares, together)
            for row in (0, rows - 1):
                alone = torch.empty(1, HIDDEN)
                compute(x[row:row + 1], ours, chosen[row:row + 1], shares[row:row + 1], alone)
                assert torch.equal(alone[0], together[row])


def test_prompts_are_what_the_reference_gives_within_their_rounding(ops: Any):
    if ops.prompts is None:
        pytest.skip("prompts are computed as everything else is")
    for kind in ("q4", "groups", "f16", "two", "act-order"):
        ours, theirs = layer(ops, kind, inner=64)
        rows = 20 if is_gpu(ops) else 70
        x, (chosen, shares) = random(rows, HIDDEN), choices(rows)
        got, want = torch.empty(rows, HIDDEN), torch.empty(rows, HIDDEN)
        ops.prompts.prompt_experts(x, ours, chosen, shares, got)
        reference.experts(x, theirs, chosen, shares, want)
        assert error(got, want) < 1e-2


def test_many_rows_and_many_columns_are_taken_in_parts(ops: Any):
    """More than the 1,024 rows, and the 16 MiB of what experts give, that are computed at a time."""
    if is_gpu(ops):
        pytest.skip("the GPU's own parts are tested elsewhere, and the CPU plays it slowly")
    ours, _ = layer(ops, "f32", exact=True, inner=8)
    rows = 1500
    x, (chosen, shares) = random(rows, HIDDEN), choices(rows)
    got, want = torch.empty(rows, HIDDEN), torch.empty(rows, HIDDEN)
    ops.experts(x, ours, chosen, shares, got)
    for first in range(0, rows, 100):
        part = slice(first, first + 100)
        ops.experts(x[part], ours, chosen[part], shares[part], want[part])
    assert torch.equal(got, want)


def test_rows_that_lie_apart(ops: Any):
    ours, theirs = layer(ops, "q8", exact=True)
    wide, out = random(4, 2 * HIDDEN), torch.zeros(4, 3 * HIDDEN)
    (chosen, shares), want = choices(4), torch.empty(4, HIDDEN)
    ops.experts(wide[:, HIDDEN:], ours, chosen, shares, out[:, HIDDEN:2 * HIDDEN])
    reference.experts(wide[:, HIDDEN:], theirs, chosen, shares, want)
    assert error(out[:, HIDDEN:2 * HIDDEN], want) < 5e-6
    assert not out[:, :HIDDEN].any() and not out[:, 2 * HIDDEN:].any()


def test_an_expert_that_does_not_exist_is_reported(ops: Any):
    if is_gpu(ops):
        pytest.skip("a GPU does not report an index")
    ours, _ = layer(ops, "f32")
    chosen, shares = choices(2)
    for wrong in (-1, EXPERTS):
        chosen[1, 2] = wrong
        with pytest.raises(KernelError):
            ops.experts(random(2, HIDDEN), ours, chosen, shares, torch.empty(2, HIDDEN))


def test_experts_of_shapes_that_do_not_fit_are_refused(ops: Any):
    wide = packed(ops, "f32", 2 * INNER, HIDDEN, True)[0]
    narrow = packed(ops, "f32", HIDDEN, INNER + 8, True)[0]
    with pytest.raises(ValueError, match="an expert has gate and up"):
        ops.pack_experts([[wide]], [narrow], "silu", True)
