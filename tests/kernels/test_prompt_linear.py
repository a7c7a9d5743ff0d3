"""The linear layer for rows of prompts with AMX: on the processor where it has AMX, else emulated."""

from __future__ import annotations

import pytest
import torch

from model.kernels import load_kernels
from model.kernels.build.cpu import X86_ISAS
from model.kernels.errors import KernelError
from tests.emulated_isa import kernels_with
from tests.kernels.test_linear import SHAPES, ZEROS, expected, quantized_parts, relative_error

ERROR = 4e-3
"""Of two factors with 8 bits each: about 0.23%."""
SUM_ERROR = 1e-5
"""Of sums in float32, and of weights of zero, which may be 15 / 2^16 of a code (unpack_bf16.h)."""
SPLIT_ERROR = 2e-5
"""Of factors that are sums of two bfloat16: 4e-6 to 1e-5."""
LONG = (272, 1120, 128)
"""n, k, group_size: more than a panel of 256 outputs, more than two slices of 512 columns."""


@pytest.fixture
def ops():
    torch.manual_seed(1)
    kernels = kernels_with("amx")
    kernels.force_isa("amx")
    kernels.set_threads(2)
    yield kernels
    kernels.force_isa(None)
    kernels.set_threads(2)


def multiply(ops, weight, x, **options):
    columns = weight.n // 2 if options.get("epilogue") == "silu_mul" else weight.n
    out = torch.full((len(x), columns), torch.nan)
    ops.prompts.prompt_linear(x, weight, out, **options)
    return out


def exact_parts(n, k, group_size, bits=4, zeros="one", **options):
    """Random arguments of pack_linear whose every weight is a bfloat16: scales are powers of two."""
    parts = quantized_parts(n, k, group_size, bits, zeros, **options)
    parts["scales"] = 2.0 ** torch.randint(-9, -4, parts["scales"].shape).half()
    return parts


def expected_of_rounded(parts, x):
    """In float64, of x rounded to bfloat16."""
    return expected(parts, x.bfloat16())


@pytest.mark.parametrize("bits", [4, 8])
def test_prompts_match_float64(ops, bits):
    """Short row blocks, ragged groups, act-order, every kind of zero point."""
    for n, k, group_size in (*SHAPES, LONG):
        for zeros in ZEROS:
            parts = quantized_parts(n, k, group_size, bits, zeros, perm=n % 2 == 0, bias=n % 3 != 0)
            x = torch.randn(33, k)
            error = relative_error(multiply(ops, ops.pack_linear(**parts), x), expected(parts, x))
            assert error < ERROR, (n, k, group_size, zeros)


@pytest.mark.parametrize("zeros", ["one", "bytes"])
@pytest.mark.parametrize("bits", [4, 8])
def test_only_the_factors_are_rounded(ops, bits, zeros):
    for n, k, group_size in (*SHAPES, LONG):
        parts = exact_parts(n, k, group_size, bits, zeros, perm=n % 2 == 0)
        x = torch.randn(35, k)
        error = relative_error(multiply(ops, ops.pack_linear(**parts), x), expected_of_rounded(parts, x))
        assert error < SUM_ERROR, (n, k, group_size)


@pytest.mark.parametrize("bits", [4, 8])
def test_precise_outputs_match_float64_closely(ops, bits):
    """But for long groups of 4 bits, which are multiplied as rows that decode."""
    for n, k, group_size in (*SHAPES, LONG, (40, 1120, 32)):
        for zeros in ZEROS:
            parts = quantized_parts(n, k, group_size, bits, zeros, perm=n % 2 == 0, bias=n % 3 != 0)
            weight, x = ops.pack_linear(**parts), torch.randn(33, k)
            got = multiply(ops, weight, x, precise=n)
            if bits == 4 and weight.struct.group_size >= 64:
                want = torch.empty_like(got)
                ops.linear(x, weight, want)
                assert torch.equal(got, want), (n, k, group_size, zeros)
            else:
                assert relative_error(got, expected(parts, x)) < SPLIT_ERROR, (n, k, group_size, zeros)


@pytest.mark.parametrize("group_size", [32, 64])
def test_the_first_outputs_are_precise_and_the_others_as_ever(ops, group_size):
    """In whole row blocks: 40 outputs make three of 16."""
    weight, x = ops.pack_linear(**quantized_parts(96, 640, group_size)), torch.randn(70, 640)
    rounded, precise = multiply(ops, weight, x), multiply(ops, weight, x, precise=96)
    both = multiply(ops, weight, x, precise=40)
    assert torch.equal(both[:, :48], precise[:, :48]) and torch.equal(both[:, 48:], rounded[:, 48:])
    assert not torch.equal(rounded, precise)
    assert torch.equal(multiply(ops, weight, x, precise=1000), precise)
    with pytest.raises(KernelError):
        multiply(ops, weight, x, precise=-1)


@pytest.mark.parametrize(("epilogue", "bits"), [("store", 4), ("silu_mul", 4), ("add", 8)])
def test_a_row_of_a_prompt_does_not_depend_on_other_rows_or_threads(ops, epilogue, bits):
    """To the bit, across the 512 rows that are staged together: a prompt may come in any chunks."""
    parts = quantized_parts(96, 1120, 32, bits, "bytes", perm=True)
    weight, norm = ops.pack_linear(**parts), torch.rand(1120)
    x, start = torch.randn(549, 1120), torch.randn(549, 48 if epilogue == "silu_mul" else 96)

    def run(first, last):
        out = start[first:last].clone()
        ops.prompts.prompt_linear(x[first:last], weight, out, norm, 1e-5, epilogue, precise=48)
        return out

    want = run(0, 549)
    for threads in (1, 3):
        ops.set_threads(threads)
        for first, last in ((0, 1), (0, 16), (5, 38), (500, 549), (548, 549)):
            assert torch.equal(run(first, last), want[first:last]), (threads, first, last)


@pytest.mark.parametrize(("n", "k", "group_size"), [(64, 704, 128), (544, 96, -1), (34, 100, 32)])
def test_norm_and_epilogues_of_prompts_equal_the_steps_one_by_one(ops, n, k, group_size):
    weight = ops.pack_linear(**quantized_parts(n, k, group_size, perm=True, bias=True))
    norm, eps = torch.randn(k), 1e-2
    for m in (1, 35, 64):
        x = (torch.randn(m, k + 3) * 4)[:, 1:k + 1]
        normed = x * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + eps).float() * norm
        y = multiply(ops, weight, normed)
        assert relative_error(multiply(ops, weight, x, norm=norm, eps=eps), y.double()) < 1e-3
        exactly = multiply(ops, weight, x)
        gate, up = exactly.chunk(2, dim=-1)
        got = multiply(ops, weight, x, epilogue="silu_mul")
        if n % 32 == 0:
            wanted = torch.nn.functional.silu(gate) * up
        else:  # up begins within a row block: these rows are computed as all others are
            wanted = torch.empty_like(got)
            ops.linear(x, weight, wanted, epilogue="silu_mul")
        torch.testing.assert_close(got, wanted, rtol=2e-6, atol=1e-6 * float(wanted.abs().max()))
        start = torch.randn(m, n)
        for epilogue, wanted in (("add", start + exactly),
                                 ("gate", torch.nn.functional.silu(start) * exactly)):
            wide = torch.full((m, n + 2), 7.0)
            out = wide[:, 1:n + 1]
            out.copy_(start)
            ops.prompts.prompt_linear(x, weight, out, epilogue=epilogue)
            torch.testing.assert_close(out, wanted, rtol=2e-6, atol=1e-6 * float(wanted.abs().max()))
            assert (wide[:, 0] == 7).all() and (wide[:, -1] == 7).all()


@pytest.mark.parametrize("epilogue", ["store", "add"])
def test_many_outputs_of_many_rows_are_written_where_they_belong(ops, epilogue):
    """Whole pairs of row tiles go to out at once, the rest through the sums."""
    for n in (16, 24, 48, 256, 280):
        parts = exact_parts(n, 600, 100)
        weight, x, start = ops.pack_linear(**parts), torch.randn(70, 600), torch.randn(70, n)
        wide = torch.full((70, n + 5), 7.0)
        out = wide[:, 2:n + 2]
        out.copy_(start)
        ops.prompts.prompt_linear(x, weight, out, epilogue=epilogue)
        wanted = expected_of_rounded(parts, x) + (start.double() if epilogue == "add" else 0)
        assert relative_error(out, wanted) < SUM_ERROR, n
        assert (wide[:, :2] == 7).all() and (wide[:, n + 2:] == 7).all()


def by_an_mlp(ops, gate_up, down, x, start, epilogue, norm=None, eps=0.0):
    """(what the mlp gives, what its two products give one after the other)"""
    inner, together, apart = torch.full((len(x), down.k), torch.nan), start.clone(), start.clone()
    ops.prompts.prompt_mlp(x, gate_up, inner, down, together, norm, eps, epilogue)
    between = multiply(ops, gate_up, x, norm=norm, eps=eps, epilogue="silu_mul")
    ops.prompts.prompt_linear(between, down, apart, epilogue=epilogue)
    return together, apart


@pytest.mark.parametrize(("gate_up", "down"), [
    ({}, {}), ({"bits": 8}, {"zeros": "bytes"}), ({"perm": True}, {"bits": 8, "bias": True}),
    ({"bias": True}, {}), ({}, {"perm": True}), ({}, {"group_size": 50})],
    ids=["4 bits", "8 and 4", "4 and 8", "a bias", "a permutation between", "ragged groups between"])
def test_an_mlp_gives_the_bits_of_its_products_one_by_one(ops, gate_up, down):
    """Handed over as tiles, or as floats where its columns do not lie as the second product wants them."""
    for hidden, inner in ((96, 64), (136, 1056)):
        first = ops.pack_linear(**quantized_parts(2 * inner, hidden, **{"group_size": 32, **gate_up}))
        second = ops.pack_linear(**quantized_parts(hidden, inner, **{"group_size": 32, **down}))
        for rows, epilogue, norm in ((1, "store", None), (70, "add", torch.rand(hidden))):
            x, start = torch.randn(rows, hidden), torch.randn(rows, hidden)
            together, apart = by_an_mlp(ops, first, second, x, start, epilogue, norm, 1e-5)
            assert torch.equal(together, apart), (inner, rows)


def test_an_mlp_may_add_to_the_rows_that_it_reads(ops):
    """More than are staged together; and on any threads."""
    first, second = (ops.pack_linear(**quantized_parts(n, k, 64)) for n, k in ((320, 64), (64, 160)))
    x = torch.randn(549, 64)
    want = by_an_mlp(ops, first, second, x, x, "add")[1]
    for threads in (1, 3):
        ops.set_threads(threads)
        out, inner = x.clone(), torch.empty(549, 160)
        ops.prompts.prompt_mlp(out, first, inner, second, out, epilogue="add")
        assert torch.equal(out, want), threads


def test_an_mlp_whose_products_do_not_fit_together_is_refused(ops):
    first, second = (ops.pack_linear(**quantized_parts(n, k, 32)) for n, k in ((64, 96), (96, 64)))
    with pytest.raises(ValueError, match=r"\[2, 32\]"):
        ops.prompts.prompt_mlp(torch.zeros(2, 96), first, torch.zeros(2, 32), second, torch.zeros(2, 96))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_show_in_their_row_of_a_prompt_only(ops, bad):
    weight = ops.pack_linear(**quantized_parts(16, 512, 64))
    x = torch.randn(40, 512)
    good = multiply(ops, weight, x)
    x[3, 77] = bad
    out = multiply(ops, weight, x)
    others = [row for row in range(40) if row != 3]
    assert not out[3].isfinite().any() and torch.equal(out[others], good[others])


def test_rows_that_are_zero_or_tiny_or_huge_in_a_prompt(ops):
    parts = quantized_parts(16, 512, 64)
    x = torch.randn(4, 512)
    x[0], x[1], x[2] = 0, x[1] * 1e-38, x[2] * 1e30
    out, want = multiply(ops, ops.pack_linear(**parts), x), expected(parts, x)
    assert (out[0] == 0).all() and out.isfinite().all()
    assert relative_error(out[2], want[2]) < 2 * ERROR and relative_error(out[3], want[3]) < 2 * ERROR


def test_exact_and_dense_weights_are_multiplied_as_ever(ops):
    x = torch.randn(40, 96)
    exact = ops.pack_linear(**quantized_parts(24, 96, 32), exact=True)
    for weight in (exact, ops.pack_dense(torch.randn(24, 96))):
        want = torch.empty(40, 24)
        ops.linear(x, weight, want)
        assert torch.equal(multiply(ops, weight, x), want)


def test_other_sets_have_no_way_of_their_own_with_prompts():
    kernels = load_kernels(threads=2)
    for isa in kernels.supported_isas():
        kernels.force_isa(isa)
        assert (kernels.prompts is not None) == (isa == "amx")
    kernels.force_isa(None)
    assert X86_ISAS[-1] == "amx"


def test_prompts_that_do_not_fit_are_refused(ops):
    weight = ops.pack_linear(**quantized_parts(8, 96, 32))
    with pytest.raises(ValueError, match=r"x is torch.float32 \[2, 95\]"):
        ops.prompts.prompt_linear(torch.zeros(2, 95), weight, torch.zeros(2, 8))
