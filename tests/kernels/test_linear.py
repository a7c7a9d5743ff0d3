"""The linear layer of both libraries, on every instruction set, against float64."""

import itertools
import subprocess
import sys

import pytest
import torch

from model.kernels import load_kernels
from model.kernels.build.library import REPOSITORY
from model.kernels.crossover import UNMEASURED
from model.kernels.errors import KernelError
from model.kernels.reference import linear as reference
from tests.emulated_isa import kernels_with
from tests.helpers.kernel_libraries import GPUS, LIBRARIES, ON_GPU, is_gpu, opened
from tests.host_cuda.build import HostDevice, cuda_on_host

SHAPES = [  # n, k, group_size: short row blocks, ragged groups, groups that are no multiple of 32
    (40, 704, 128),
    (17, 256, -1),
    (130, 544, -1),
    (64, 200, 64),
    (33, 96, 32),
    (16, 88, 44),
    (5, 24, 16),
    (1, 1, 1),
]
ZEROS = ("one", "bytes", "halves")
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33)
EXACT_ERROR = 2e-6
ROUNDED_ERROR = 1e-3
"""Of activations with 12 bits for 256 normal numbers: about 0.05%."""


@pytest.fixture(scope="module")
def kernels():
    return load_kernels(threads=2)


@pytest.fixture(params=LIBRARIES)
def any_ops(request):
    with opened(request) as one:
        yield one


@pytest.fixture(params=[*GPUS, ON_GPU])
def gpu(request):
    with opened(request) as one:
        yield one


def quantized_parts(n, k, group_size, bits=4, zeros="one", perm=False, bias=False):
    """Random arguments of pack_linear."""
    random = torch.Generator().manual_seed(n * k + bits)
    groups = 1 if group_size == -1 else -(-k // group_size)
    scales = (torch.rand(n, groups, generator=random) * 0.02 + 0.005).half()
    zero_points = {
        "one": torch.full((n, groups), 2 ** (bits - 1), dtype=torch.uint8),
        "bytes": torch.randint(0, 2**bits, (n, groups), dtype=torch.uint8, generator=random),
        "halves": (torch.rand(n, groups, generator=random) * 2**bits).half(),
    }[zeros]
    return {
        "codes": torch.randint(0, 2**bits, (n, k), dtype=torch.uint8, generator=random),
        "scales": scales,
        "zeros": zero_points,
        "group_size": group_size,
        "bits": bits,
        "perm": torch.randperm(k, generator=random).int() if perm else None,
        "bias": torch.randn(n, generator=random) if bias else None,
    }


def expected(parts, x):
    """x @ W^T + bias in float64, straight from the definition."""
    codes, scales, zeros = (parts[name].double() for name in ("codes", "scales", "zeros"))
    size = codes.shape[1] if parts["group_size"] == -1 else parts["group_size"]
    group = torch.arange(codes.shape[1]) // size
    weight = (codes - zeros[:, group]) * scales[:, group]
    x = x.double() if parts["perm"] is None else x.double()[:, parts["perm"].long()]
    return x @ weight.T + (0 if parts["bias"] is None else parts["bias"].double())


def relative_error(out, want):
    return ((out.double() - want).norm() / want.norm()).item()


def linear_for(ops, rows):
    """A GPU has another way for the many rows of a prompt."""
    return getattr(ops, "prompt_linear", ops.linear) if rows >= UNMEASURED else ops.linear


def multiply(ops, weight, x, **options):
    columns = weight.n // 2 if options.get("epilogue") == "silu_mul" else weight.n
    out = torch.full((len(x), columns), torch.nan)
    linear_for(ops, len(x))(x, weight, out, **options)
    return out


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_match_float64(any_ops, bits, exact):
    shapes, rows = (SHAPES[::2], 3) if is_gpu(any_ops) else (SHAPES, 33)
    for n, k, group_size in shapes:
        for zeros in ZEROS:
            parts = quantized_parts(n, k, group_size, bits, zeros, perm=n % 2 == 0, bias=n % 3 != 0)
            weight = any_ops.pack_linear(**parts, exact=exact)
            x = torch.randn(rows, k, generator=torch.Generator().manual_seed(k))
            error = relative_error(multiply(any_ops, weight, x), expected(parts, x))
            assert error < (EXACT_ERROR if exact else ROUNDED_ERROR), (n, k, group_size, zeros)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_a_row_does_not_depend_on_other_rows_or_threads(any_ops, exact):
    """To the bit: 1 to 4, 5 to 16 and more rows, and any number of threads, take different paths."""
    for bits, zeros, group_size in [(4, "one", 128), (4, "bytes", 64), (4, "halves", 32), (4, "one", 96),
                                    (8, "one", 64), (8, "bytes", -1)]:
        parts = quantized_parts(72, 320, group_size, bits, zeros, bias=True)
        weight = any_ops.pack_linear(**parts, exact=exact)
        x = torch.randn(33 if is_gpu(any_ops) else 257, 320, generator=torch.Generator().manual_seed(1))
        want = multiply(any_ops, weight, x)
        for threads in (1, 3):
            if not is_gpu(any_ops):
                any_ops.set_threads(threads)
            for m in (1, 3, 9, 20) if is_gpu(any_ops) else ROWS:
                assert torch.equal(multiply(any_ops, weight, x[:m]), want[:m]), (bits, zeros, threads, m)


@pytest.mark.parametrize("kilobytes", [227, 120, 90, 72, 56])
@pytest.mark.parametrize("multiprocessors", [3, 12])
def test_a_row_does_not_depend_on_how_many_columns_a_block_has_room_for(host_cuda_library, multiprocessors,
                                                                        kilobytes):
    """To the bit: from all of 1,180 columns to an eighth of a part of them, with one split and with three."""
    ops = cuda_on_host(host_cuda_library, HostDevice(multiprocessors=multiprocessors,
                                                     max_dynamic_bytes=kilobytes * 1024))
    for exact, bits, zeros in ((False, 4, "bytes"), (False, 4, "halves"), (True, 8, "one")):
        parts = quantized_parts(120, 1180, 128, bits, zeros, bias=True)
        weight = ops.pack_linear(**parts, exact=exact)
        x = torch.randn(64, 1180, generator=torch.Generator().manual_seed(1))
        out = torch.empty(64, 120)
        ops.linear(x, weight, out)
        assert relative_error(out, expected(parts, x)) < (EXACT_ERROR if exact else ROUNDED_ERROR)
        for m in (1, 12, 30):
            few = torch.empty(m, 120)
            ops.linear(x[-m:], weight, few)
            assert torch.equal(few, out[-m:]), (exact, bits, zeros, m)


def test_vector_sets_agree_to_the_bit():
    """Integer sums and one order of float additions: every set with a fused multiply-add gives the same."""
    norm = torch.randn(704, generator=torch.Generator().manual_seed(3))
    for bits, zeros in itertools.product((4, 8), ZEROS):
        parts = quantized_parts(40, 704, 128, bits, zeros, perm=True)
        for m in (1, 3, 7, 13, 20):
            x = torch.randn(m, 704, generator=torch.Generator().manual_seed(2))
            results = []
            for isa in ("avx2", "avx_vnni", "avx512", "amx"):
                kernels = kernels_with(isa)
                kernels.force_isa(isa)
                results.append(multiply(kernels, kernels.pack_linear(**parts), x, norm=norm, eps=1e-5))
                kernels.force_isa(None)
            assert all(torch.equal(results[0], other) for other in results[1:]), (bits, zeros, m)


@pytest.mark.parametrize("group_size", [32, 128])
def test_one_row_has_the_same_bits_where_every_block_is_a_whole_group(group_size):
    """AVX-512 has a loop of its own for these. 72 outputs: two streams of two row blocks, and one left."""
    x = torch.randn(1, 640, generator=torch.Generator().manual_seed(4))
    for zeros in ZEROS:
        parts = quantized_parts(72, 640, group_size, 4, zeros, perm=False)
        results = []
        for isa in ("avx2", "avx512"):
            kernels = kernels_with(isa)
            kernels.force_isa(isa)
            results.append(multiply(kernels, kernels.pack_linear(**parts), x))
            kernels.force_isa(None)
        assert torch.equal(*results), zeros


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dense_weights_match_float64(any_ops, dtype):
    for n, k in [(40, 704), (17, 33), (130, 100), (1, 1)]:
        random = torch.Generator().manual_seed(n)
        dense = torch.randn(n, k, generator=random).to(dtype)
        bias = torch.randn(n, generator=random)
        weight = any_ops.pack_dense(dense, bias)
        x = torch.randn(33, k, generator=random)
        out = multiply(any_ops, weight, x)
        assert relative_error(out, x.double() @ dense.double().T + bias.double()) < EXACT_ERROR, (n, k)
        for m in (1, 3, 9) if is_gpu(any_ops) else ROWS:
            assert torch.equal(multiply(any_ops, weight, x[:m]), out[:m]), (n, k, m)


def test_quantized_by_hand(any_ops):
    """Codes 9 and 5, zero 8, scale 0.5: weights 0.5 and -1.5. x = (4, 2): 2 - 3, plus bias 10."""
    weight = any_ops.pack_linear(
        torch.tensor([[9, 5]], dtype=torch.uint8),
        torch.tensor([[0.5]], dtype=torch.float16),
        torch.tensor([[8]], dtype=torch.uint8),
        group_size=-1,
        bias=torch.tensor([10.0]),
        exact=True,
    )
    assert multiply(any_ops, weight, torch.tensor([[4.0, 2.0]])).tolist() == [[9.0]]


@pytest.mark.parametrize("m", [2, 20])
def test_row_strides_and_adding(any_ops, m):
    """Only the n columns of out are written; "add" adds to what is there."""
    parts = quantized_parts(24, 96, 32, bias=True)
    dense = any_ops.pack_dense(torch.randn(24, 96))
    for weight in (any_ops.pack_linear(**parts), any_ops.pack_linear(**parts, exact=True), dense):
        x = torch.randn(m, 100)[:, 2:98]
        wide = torch.full((m, 31), 7.0)
        out = wide[:, 4:28]
        any_ops.linear(x, weight, out)
        assert torch.equal(out, multiply(any_ops, weight, x.contiguous()))
        assert (wide[:, :4] == 7).all() and (wide[:, 28:] == 7).all()
        once = out.clone()
        any_ops.linear(x, weight, out, epilogue="add")
        torch.testing.assert_close(out, 2 * once)


@pytest.mark.parametrize("kind", ["rounded", "exact", "dense"])
@pytest.mark.parametrize(("n", "k", "group_size"), [(40, 704, 128), (130, 100, 32), (64, 96, -1), (2, 1, 1)])
def test_norm_and_epilogues_equal_the_steps_one_by_one(any_ops, kind, n, k, group_size):
    """Few and many rows, row strides; halves of gate_up that begin within a row block; a permuted norm."""
    random = torch.Generator().manual_seed(n)
    if kind == "dense":
        weight = any_ops.pack_dense(torch.randn(n, k, generator=random), torch.randn(n, generator=random))
    else:
        parts = quantized_parts(n, k, group_size, perm=k > 1, bias=True)
        weight = any_ops.pack_linear(**parts, exact=kind == "exact")
    norm, eps = torch.randn(k, generator=random), 1e-2
    for m in (1, 3, 9, 66) if is_gpu(any_ops) else (1, 3, 20, 257):
        x = (torch.randn(m, k + 3, generator=random) * 4)[:, 1:k + 1]
        normed = x * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + eps).float() * norm
        y = multiply(any_ops, weight, normed)
        tolerance = {"rtol": 2e-4, "atol": (1e-3 if kind == "rounded" else 2e-6) * float(y.abs().max())}
        torch.testing.assert_close(multiply(any_ops, weight, x, norm=norm, eps=eps), y, **tolerance)
        exactly = multiply(any_ops, weight, x)
        gate, up = exactly.chunk(2, dim=-1)
        wanted = torch.nn.functional.silu(gate) * up
        got = multiply(any_ops, weight, x, epilogue="silu_mul")
        torch.testing.assert_close(got, wanted, rtol=2e-6, atol=1e-6 * float(wanted.abs().max()))
        start = torch.randn(m, n, generator=random)
        for epilogue, wanted in (("add", start + exactly),
                                 ("gate", torch.nn.functional.silu(start) * exactly)):
            wide = torch.full((m, n + 2), 7.0)
            out = wide[:, 1:n + 1]
            out.copy_(start)
            linear_for(any_ops, m)(x, weight, out, epilogue=epilogue)
            torch.testing.assert_close(out, wanted, rtol=2e-6, atol=1e-6 * float(wanted.abs().max()))
            assert (wide[:, 0] == 7).all() and (wide[:, -1] == 7).all()


@pytest.mark.parametrize("dense", [False, True])
def test_norm_and_epilogue_of_a_row_do_not_depend_on_other_rows_or_threads(any_ops, dense):
    parts = quantized_parts(72, 320, 64, perm=True)
    weight = any_ops.pack_dense(torch.randn(72, 320)) if dense else any_ops.pack_linear(**parts)
    x, norm = torch.randn(33, 320), torch.randn(320)
    want = multiply(any_ops, weight, x, norm=norm, eps=1e-5, epilogue="silu_mul")
    for threads in (1, 3):
        if not is_gpu(any_ops):
            any_ops.set_threads(threads)
        for m in (1, 2, 5, 9, 17, 33):
            got = multiply(any_ops, weight, x[:m], norm=norm, eps=1e-5, epilogue="silu_mul")
            assert torch.equal(got, want[:m]), (threads, m)


def test_norm_of_extreme_rows(any_ops):
    """(3, 4) by hand; a row of zeros stays zero, a NaN stays in its row."""
    weight = any_ops.pack_dense(torch.eye(2))
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [torch.nan, 1.0]])
    out = multiply(any_ops, weight, x, norm=torch.tensor([1.0, 2.0]), eps=1e-30)
    torch.testing.assert_close(out[0], torch.tensor([3.0, 8.0]) / 12.5 ** 0.5)
    assert (out[1] == 0).all() and out[2].isnan().all()


def test_silu_of_extreme_gates_is_finite(any_ops):
    gates = torch.tensor([-1e30, -200.0, -88.0, -0.0, 0.0, 88.0, 200.0, 1e30])
    weight = any_ops.pack_dense(torch.cat((gates, torch.ones(8))).reshape(16, 1))
    out = multiply(any_ops, weight, torch.ones(1, 1), epilogue="silu_mul")[0]
    assert out.isfinite().all() and (out[1:3].abs() < 1e-30).all()
    torch.testing.assert_close(out[3:], gates[3:].clamp(min=0), rtol=1e-6, atol=1e-6)


def test_act_order_takes_the_permuted_columns(any_ops):
    """A permuted weight equals the unpermuted one on permuted activations."""
    parts = quantized_parts(32, 160, 64, perm=True)
    x = torch.randn(12, 160)
    permuted = any_ops.pack_linear(**parts)
    plain = any_ops.pack_linear(**{**parts, "perm": None})
    sorted_x = x[:, parts["perm"].long()].contiguous()
    assert torch.equal(multiply(any_ops, permuted, x), multiply(any_ops, plain, sorted_x))


def test_activations_that_are_zero_or_tiny_or_huge(any_ops):
    """A scale of zero divides nothing, and rows of other sizes do not disturb each other."""
    parts = quantized_parts(16, 512, 64)
    x = torch.randn(4, 512)
    x[0], x[1], x[2] = 0, x[1] * 1e-38, x[2] * 1e30
    out = multiply(any_ops, any_ops.pack_linear(**parts), x)
    assert (out[0] == 0).all() and out.isfinite().all()
    want = expected(parts, x)
    assert relative_error(out[2], want[2]) < ROUNDED_ERROR and relative_error(out[3], want[3]) < ROUNDED_ERROR


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_show_in_their_row_only(any_ops, exact, bad):
    weight = any_ops.pack_linear(**quantized_parts(16, 512, 64), exact=exact)
    x = torch.randn(10, 512)
    good = multiply(any_ops, weight, x)
    x[3, 77] = bad
    out = multiply(any_ops, weight, x)
    assert not out[3].isfinite().any()
    assert torch.equal(out[[0, 1, 2, *range(4, 10)]], good[[0, 1, 2, *range(4, 10)]])


def test_the_reference_and_the_kernels_have_the_same_meaning(kernels):
    parts = quantized_parts(20, 96, 32, zeros="bytes", perm=True, bias=True)
    x, out, want = torch.randn(5, 96), torch.zeros(5, 20), torch.zeros(5, 20)
    weight = kernels.pack_linear(**parts, exact=True)
    expected_weight = reference.pack_linear(**parts)
    start, norm = torch.randn(5, 20), torch.randn(96)
    for options in ({}, {"norm": norm, "eps": 1e-3}, {"epilogue": "add"}, {"epilogue": "gate"}):
        out.copy_(start)
        want.copy_(start)
        kernels.linear(x, weight, out, **options)
        reference.linear(x, expected_weight, want, **options)
        torch.testing.assert_close(out, want)
    got = multiply(reference, expected_weight, x, epilogue="silu_mul")
    torch.testing.assert_close(multiply(kernels, weight, x, epilogue="silu_mul"), got)
    assert (weight.n, weight.k, weight.kind) == (expected_weight.n, expected_weight.k, "q4")


def test_packing_takes_half_a_byte_a_code(kernels):
    """Symmetric, groups of 64: 4.25 bits a weight and small tables; zeros in bytes add 1/8 of a bit."""
    n, k = 512, 2048
    symmetric = kernels.pack_linear(**quantized_parts(n, k, 64))
    with_zeros = kernels.pack_linear(**quantized_parts(n, k, 64, zeros="bytes"))
    assert n * k * 4.25 / 8 <= symmetric.nbytes < n * k * 4.25 / 8 + 2048
    assert with_zeros.nbytes - symmetric.nbytes == n * k // 64


def test_whole_zero_points_in_halves_are_kept_as_bytes(kernels):
    parts = quantized_parts(32, 128, 64, zeros="bytes")
    as_halves = {**parts, "zeros": parts["zeros"].half()}
    assert kernels.pack_linear(**parts).nbytes == kernels.pack_linear(**as_halves).nbytes


def test_no_rows_are_no_work(any_ops):
    any_ops.linear(torch.empty(0, 96), any_ops.pack_linear(**quantized_parts(8, 96, 32)), torch.empty(0, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 3}, "bits is 3"),
        ({"group_size": 0}, "group_size is 0"),
        ({"scales": torch.zeros(8, 2).half()}, r"float16 \(8, 2\); expected float16 \(8, 3\)"),
        ({"scales": torch.zeros(8, 3)}, "scales are torch.float32"),
        ({"zeros": torch.zeros(8, 3)}, "zeros are torch.float32"),
        ({"codes": torch.full((8, 96), 16, dtype=torch.uint8)}, "the largest code is 16"),
        ({"codes": torch.zeros(8, 96)}, "codes are torch.float32"),
        ({"perm": torch.zeros(96, dtype=torch.int32)}, "perm does not hold each of 0..95 once"),
        ({"perm": torch.arange(95, dtype=torch.int32)}, r"expected int32 \[96\]"),
        ({"bias": torch.zeros(7)}, r"expected float32 \[8\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(kernels, change, message):
    parts = {**quantized_parts(8, 96, 32), **change}
    for pack in (kernels.pack_linear, reference.pack_linear):
        with pytest.raises(ValueError, match=message):
            pack(**parts)


def test_activations_that_do_not_fit_are_refused(kernels):
    weight = kernels.pack_dense(torch.randn(8, 96))
    x, out = torch.zeros(2, 96), torch.zeros(2, 8)
    for arguments, message in [
        ((torch.zeros(2, 95), weight, out), r"x is torch.float32 \[2, 95\]"),
        ((x.half(), weight, out), "x is torch.float16"),
        ((x, weight, torch.zeros(3, 8)), "x has 2 rows, out has 3"),
        ((torch.zeros(96, 2).T, weight, out), "column stride 2"),
        ((x, weight, out, torch.zeros(95)), r"norm is torch.float32 \[95\]; expected float32 \[96\]"),
        ((x, weight, out, None, 0.0, "silu_mul"), r"out is .* expected float32 \[m, 4\]"),
        ((x, weight, out, None, 0.0, "relu"), "epilogue is 'relu'; expected one of store, add"),
        ((x, kernels.pack_dense(torch.zeros(7, 96)), out, None, 0.0, "silu_mul"), "7 outputs are not"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.linear(*arguments)
    with pytest.raises(ValueError, match=r"weight is torch\.float64"):
        kernels.pack_dense(torch.zeros(8, 96, dtype=torch.float64))


def test_the_c_functions_check_their_arguments(kernels):
    """What Python checks before is refused in C as well, with an error code."""
    import ctypes

    from model.kernels.linear import WeightStruct

    empty = WeightStruct(n=0, k=8, kind=0, group_size=8)
    with pytest.raises(KernelError, match="linear_plan: a size"):
        kernels.call("linear_plan", ctypes.byref(empty))
    with pytest.raises(KernelError, match="linear: a pointer is null"):
        kernels.call("linear", None, 8, 1, None, 0.0, ctypes.byref(empty), None, 8, 0, None)
    weight = kernels.pack_linear(**quantized_parts(8, 96, 32))
    x, out = torch.zeros(2, 96), torch.zeros(2, 8)
    with pytest.raises(KernelError, match="linear: a size, stride"):
        kernels.call("linear", x, 95, 2, None, 0.0, ctypes.byref(weight.struct), out, 8, 0, None)
    with pytest.raises(KernelError, match="linear: an argument lies outside"):
        kernels.call("linear", x, 96, 2, None, 0.0, ctypes.byref(weight.struct), out, 8, 4, None)


# ---- a GPU's own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
def test_a_gpu_unpacks_to_the_very_weight(gpu, bits):
    """Codes, zeros and scales come back from the packed layout; float16 rounds them."""
    for n, k, group_size in SHAPES:
        for zeros in ZEROS:
            parts = quantized_parts(n, k, group_size, bits, zeros)
            weight = gpu.pack_linear(**parts)
            matrix = gpu._dequantized(weight, 0, n)
            want = expected(parts, torch.eye(k)).T
            kept = matrix if group_size == -1 or group_size % 32 == 0 else None
            if kept is not None:
                torch.testing.assert_close(kept[:, :k].double(), want, rtol=6e-4, atol=1e-7)
                assert (kept[:, k:].float() * 0 == 0).all()


def test_a_gpu_multiplies_many_rows_by_matrix_products(gpu):
    """In parts of the outputs, with act-order and a group that is no multiple of 32."""
    for bits, n, k, group_size in ((4, 56, 352, 44), (8, 40, 160, 32), (4, 17, 64, -1)):
        parts = quantized_parts(n, k, group_size, bits, "bytes", perm=True, bias=True)
        weight, x = gpu.pack_linear(**parts), torch.randn(70, k)
        x[3] *= 1e20
        want = expected(parts, x)
        many = multiply(gpu, weight, x)
        for row in (0, 3, 69):
            assert relative_error(many[row], want[row]) < ROUNDED_ERROR
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        dense, x = torch.randn(30, 70).to(dtype), torch.randn(65, 70)
        got = multiply(gpu, gpu.pack_dense(dense), x)
        assert relative_error(got, x.double() @ dense.double().T) < ROUNDED_ERROR


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_a_gpu_shares_the_columns_of_a_tile_among_blocks(gpu, exact):
    """Few outputs and many columns: blocks leave their sums for the last one, whatever their order."""
    parts = quantized_parts(20, 4224, 128, bias=True)
    weight, x = gpu.pack_linear(**parts, exact=exact), torch.randn(9, 4224)
    want, got = expected(parts, x), multiply(gpu, weight, x)
    assert relative_error(got, want) < (EXACT_ERROR if exact else ROUNDED_ERROR)
    for m in (1, 2, 4):
        assert torch.equal(multiply(gpu, weight, x[:m]), got[:m])


def test_the_first_product_of_a_process_may_need_no_scratch_memory():
    program = ("import torch\nfrom model.kernels import load_kernels\nops = load_kernels(threads=1)\n"
               "weight, out = ops.pack_dense(torch.eye(64), exact=True), torch.zeros(1, 64)\n"
               "ops.linear(torch.ones(1, 64), weight, out)\nprint(int(out.sum()))\n")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY,
                         check=False)
    assert (run.stdout, run.returncode) == ("64\n", 0), run.stderr
