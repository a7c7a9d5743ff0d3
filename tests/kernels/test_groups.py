"""Weights in small groups, in every form of GGML's types, on every instruction set, against float64."""

import itertools
from dataclasses import replace

import pytest
import torch

from model.kernels import linear, load_kernels
from model.kernels.errors import KernelError
from model.kernels.groups import GroupRows, Groups, check_groups, stacked
from model.kernels.reference import linear as reference
from tests.emulated_isa import kernels_with
from tests.helpers.kernel_libraries import LIBRARIES, is_gpu, opened
from tests.kernels.test_linear import EXACT_ERROR, ROUNDED_ERROR, ROWS, multiply, relative_error
from tests.kernels.test_prompt_linear import ERROR as PROMPT_ERROR
from tests.kernels.test_prompt_linear import SPLIT_ERROR, by_an_mlp

FORMS = {  # bits, size, zero, has minimums, has steps, has a table
    "Q2_K": (2, 16, 0, True, True, False), "Q3_K": (3, 16, 4, False, True, False),
    "Q4_K": (4, 32, 0, True, True, False), "Q5_K": (5, 32, 0, True, True, False),
    "Q6_K": (6, 16, 32, False, True, False), "Q4_1": (4, 32, 0, True, False, False),
    "Q5_0": (5, 32, 16, False, False, False), "Q5_1": (5, 32, 0, True, False, False),
    "IQ4_NL": (4, 32, 0, False, False, True), "IQ4_XS": (4, 32, 0, False, True, True),
    "MXFP4": (4, 32, 0, False, False, True), "NVFP4": (4, 16, 0, False, False, True),
    "NF4": (4, 64, 0, False, False, True), "NF4 in long groups": (4, 256, 0, False, False, True),
    "Q4_0": (4, 32, 8, False, False, False), "Q8_0": (8, 32, 128, False, False, False)}
SHAPES = [(40, 512), (17, 256), (130, 768), (1, 256)]


def groups_of(form, n, k, seed=0):
    """Random parts of a weight [n, k]."""
    bits, size, zero, has_mins, has_steps, has_table = FORMS[form]
    random = torch.Generator().manual_seed(seed + n * k)

    def halves(count):
        return (torch.rand(n, count, generator=random) * 0.02 + 0.005).half()

    def whole(low, high, dtype):
        return torch.randint(low, high, (n, k // size), generator=random).to(dtype)

    table = tuple(torch.randint(-128, 128, (16,), generator=random).tolist()) if has_table else None
    codes = torch.randint(0, 1 << bits, (n, k), dtype=torch.uint8, generator=random)
    factors = torch.rand(n, generator=random) * 0.01 + 0.001
    if "FP4" in form:
        low, high, dtype = (110, 135, torch.float8_e8m0fnu) if size == 32 else (0, 127, torch.float8_e4m3fn)
        scales = whole(low, high, torch.uint8).view(dtype)
        return Groups(codes, bits, size, scales, table=table, factors=factors)
    if "NF4" in form:
        table = (-16383, 16383, *torch.randint(-16383, 16384, (14,), generator=random).tolist())
        return Groups(codes, bits, size, halves(k // size), table=table, factors=factors)
    if not has_steps:
        mins = halves(k // size) if has_mins else None
        return Groups(codes, bits, size, halves(k // size), zero, mins, table=table)
    return Groups(codes, bits, size, whole(-128, 128, torch.int8), zero,
                  whole(0, 256, torch.uint8) if has_mins else None, halves(k // 256),
                  halves(k // 256) if has_mins else None, table)


def expected(groups, x, bias=None):
    """x @ W^T + bias in float64, straight from the definition."""
    codes, size = groups.codes.double(), groups.size
    values = codes - groups.zero
    if groups.table is not None:
        values = torch.tensor(groups.table).double()[groups.codes.long()]
    column = torch.arange(codes.shape[1])
    scales = groups.scales.double()[:, column // size]
    least = torch.zeros(1) if groups.mins is None else groups.mins.double()[:, column // size]
    if groups.steps is not None:
        scales = scales * groups.steps.double()[:, column // 256]
    if groups.min_steps is not None:
        least = least * groups.min_steps.double()[:, column // 256]
    weight = values * scales - least
    if groups.factors is not None:
        weight = weight * groups.factors.double().unsqueeze(1)
    return x.double() @ weight.T + (0 if bias is None else bias.double())


@pytest.fixture(params=LIBRARIES)
def any_ops(request):
    with opened(request) as one:
        yield one


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
@pytest.mark.parametrize("form", FORMS)
def test_products_match_float64(any_ops, form, exact):
    """A GPU has codes of 4 or 8 bits and scales in float16 for all of them."""
    limit = 3e-3 if is_gpu(any_ops) else EXACT_ERROR if exact else ROUNDED_ERROR
    for n, k in SHAPES[:2] if is_gpu(any_ops) else SHAPES:
        groups, bias = groups_of(form, n, k), torch.randn(n) if n % 3 else None
        weight = any_ops.pack_groups(groups, bias, exact=exact)
        x = torch.randn(3 if is_gpu(any_ops) else 33, k, generator=torch.Generator().manual_seed(k))
        assert relative_error(multiply(any_ops, weight, x), expected(groups, x, bias)) < limit, (n, k)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_a_row_does_not_depend_on_other_rows_or_threads(any_ops, exact):
    if is_gpu(any_ops):
        pytest.skip("weights in small groups become others on a GPU; test_linear.py tests those")
    for form in FORMS:
        weight = any_ops.pack_groups(groups_of(form, 72, 512), torch.randn(72), exact=exact)
        x = torch.randn(65, 512)
        want = multiply(any_ops, weight, x)
        for threads in (1, 3):
            any_ops.set_threads(threads)
            for m in ROWS:
                assert torch.equal(multiply(any_ops, weight, x[:m]), want[:m]), (form, threads, m)


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_prompts_match_float64_and_do_not_depend_on_others(amx, form):
    """Both factors are rounded to bfloat16, those of precise outputs to sums of two. More than a panel of 256
    outputs, than two slices of columns."""
    for n, k, precise in ((272, 1280, 0), (40, 512, 0), (40, 1280, 40)):
        groups, bias = groups_of(form, n, k), torch.randn(n)
        weight = amx.pack_groups(groups, bias)
        x = torch.randn(70, k, generator=torch.Generator().manual_seed(k))
        out = torch.empty(70, n)
        amx.prompts.prompt_linear(x, weight, out, precise=precise)
        limit = SPLIT_ERROR if precise else PROMPT_ERROR
        assert relative_error(out, expected(groups, x, bias)) < limit, (n, k)
        for m in (1, 33):
            some = torch.empty(m, n)
            amx.prompts.prompt_linear(x[5:5 + m], weight, some, precise=precise)
            assert torch.equal(some, out[5:5 + m]), (n, k, m)


def test_an_mlp_of_rows_of_prompts_gives_the_bits_of_its_products(amx):
    for form in ("Q4_K", "Q6_K", "IQ4_XS"):
        gate_up, down = (amx.pack_groups(groups_of(form, n, k)) for n, k in ((1536, 256), (256, 768)))
        x = torch.randn(40, 256)
        assert torch.equal(*by_an_mlp(amx, gate_up, down, x, torch.randn(40, 256), "add")), form


@pytest.mark.parametrize("form", FORMS)
def test_vector_sets_agree_to_the_bit(form):
    norm = torch.randn(768, generator=torch.Generator().manual_seed(3))
    for m in (1, 2, 3, 7, 20):
        x = torch.randn(m, 768, generator=torch.Generator().manual_seed(2))
        results = []
        for isa in ("avx2", "avx_vnni", "avx512", "amx"):
            kernels = kernels_with(isa)
            kernels.force_isa(isa)
            weight = kernels.pack_groups(groups_of(form, 40, 768))
            results.append(multiply(kernels, weight, x, norm=norm, eps=1e-5))
            kernels.force_isa(None)
        assert all(torch.equal(results[0], other) for other in results[1:]), m


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("form", FORMS)
def test_sums_of_the_largest_codes_and_activations_do_not_overflow(any_ops, form, sign):
    """All activations are the largest of their span; some kernels sum products in 16 bits."""
    groups = groups_of(form, 40, 512)
    groups.codes.fill_((1 << groups.bits) - 1)
    x = torch.full((1, 512), 3.0 * sign)
    weight = any_ops.pack_groups(groups)
    limit = 3e-3 if is_gpu(any_ops) else ROUNDED_ERROR
    assert relative_error(multiply(any_ops, weight, x), expected(groups, x)) < limit


@pytest.mark.parametrize("form", ["Q4_K", "Q6_K", "IQ4_NL"])
def test_epilogues_and_strides_equal_the_steps_one_by_one(any_ops, form):
    for exact, m in itertools.product((True, False), (2, 20)):
        weight = any_ops.pack_groups(groups_of(form, 36, 512), torch.randn(36), exact=exact)
        x = torch.randn(m, 516)[:, 2:514]
        plain = multiply(any_ops, weight, x.contiguous())
        wide = torch.full((m, 40), 7.0)
        out = wide[:, 2:38]
        any_ops.linear(x, weight, out)
        assert torch.equal(out, plain) and (wide[:, :2] == 7).all() and (wide[:, 38:] == 7).all()
        any_ops.linear(x, weight, out, epilogue="add")
        torch.testing.assert_close(out, 2 * plain)
        gate, up = plain.chunk(2, dim=-1)
        wanted = torch.nn.functional.silu(gate) * up
        torch.testing.assert_close(multiply(any_ops, weight, x, epilogue="silu_mul"), wanted, rtol=2e-6,
                                   atol=1e-6 * float(wanted.abs().max()))


def test_a_minimum_by_hand(any_ops):
    """Code 3, scale 2 * 0.5, minimum 4 * 0.25: every weight is 2; of IQ4_NL's kind: table[3] * 0.5 = -4."""
    ones = torch.ones(1, 8)
    codes = torch.full((1, 256), 3, dtype=torch.uint8)
    groups = Groups(codes, 4, 32, (2 * ones).to(torch.int8), 0, (4 * ones).to(torch.uint8),
                    torch.tensor([[0.5]]).half(), torch.tensor([[0.25]]).half())
    x = torch.zeros(1, 256)
    x[0, 5], x[0, 250] = 1.0, 2.0
    assert multiply(any_ops, any_ops.pack_groups(groups, exact=True), x).item() == 6.0
    table = Groups(codes, 4, 32, (0.5 * ones).half(), table=(1, 2, 3, -8, *range(12)))
    assert multiply(any_ops, any_ops.pack_groups(table, exact=True), x).item() == -12.0


def test_weights_take_what_the_file_has_or_tell_by_how_much_more():
    """Bits a packed weight takes; the first five have 2.625, 3.4375, 4.5, 5.5 and 4.25 in GGML's blocks."""
    kernels = load_kernels(threads=1)
    for form, bits in {"Q2_K": 3.125, "Q3_K": 3.5625, "Q4_K": 4.625, "Q5_K": 5.625, "IQ4_XS": 4.3125,
                       "Q6_K": 6.5625, "Q4_0": 4.5, "Q4_1": 5.0, "Q5_0": 5.5, "Q5_1": 6.0, "Q8_0": 8.5,
                       "IQ4_NL": 4.5, "MXFP4": 4.25, "NVFP4": 4.5, "NF4": 4.25}.items():
        weight = kernels.pack_groups(groups_of(form, 2048, 2048))
        assert weight.nbytes * 8 / 2048 ** 2 == pytest.approx(bits, rel=5e-3), form
        assert weight.kind == reference.pack_groups(groups_of(form, 16, 256)).kind


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_looked_up_as_they_are_dequantized(form):
    """Embeddings of blocks are rows of a packed weight; the last row block is short."""
    kernels, groups = load_kernels(threads=2), groups_of(form, 21, 512)
    weight, ids = kernels.pack_groups(groups), torch.tensor([0, 20, 16, 7, 20], dtype=torch.int32)
    out = torch.empty(5, 512)
    kernels.embed(weight, ids, out, 1.5)
    torch.testing.assert_close(out, groups.dequantize()[ids.long()] * 1.5, rtol=1e-6, atol=1e-7)
    with pytest.raises(KernelError):
        kernels.embed(weight, torch.tensor([21], dtype=torch.int32), torch.empty(1, 512))


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_are_read_some_at_a_time_make_the_same_weight(form, monkeypatch):
    """Of two weights of one form, the second beginning within what is read at once."""
    parts = [groups_of(form, n, 512, seed) for n, seed in ((40, 1), (37, 2))]
    parts[1] = replace(parts[1], table=parts[0].table)
    assert GroupRows.of(parts[0]).first.form == GroupRows.of(parts[1]).first.form
    asked = []

    def rows(part):
        def read(first, last):
            asked.append((first, last))
            return part.rows(first, last)
        return GroupRows(len(part.codes), part.rows(0, 1), read)

    monkeypatch.setattr(linear, "CODES_AT_A_TIME", 32 * 512)
    kernels, both = load_kernels(threads=2), stacked([rows(part) for part in parts])
    found = kernels.pack_group_rows(both, torch.arange(77.0))
    assert asked == [(0, 32), (32, 40), (0, 24), (24, 37)]
    wanted = kernels.pack_groups(both.read(0, 77), torch.arange(77.0))
    assert torch.equal(found.buffer[:found.struct.nbytes], wanted.buffer[:wanted.struct.nbytes])
    assert torch.equal(reference.pack_group_rows(both).weight,
                       torch.cat([part.dequantize() for part in parts]))


def test_parts_that_do_not_fit_are_refused():
    good = groups_of("Q4_K", 4, 256)
    fields = {name: getattr(good, name) for name in Groups.__dataclass_fields__}
    for change, message in (({"codes": good.codes.int()}, "codes are"), ({"size": 64}, "groups of 64"),
                            ({"codes": good.codes[:, :128]}, "128 columns"),
                            ({"scales": good.scales.half()}, "scales are"), ({"steps": None}, "scales are"),
                            ({"mins": good.mins[:2]}, "mins are"), ({"min_steps": None}, "min_steps belong"),
                            ({"mins": None}, "min_steps belong"), ({"bits": 3}, "the largest code"),
                            ({"table": (1, 2)}, "table of 2"), ({"table": (1 << 14,) * 16}, "beyond 16,383"),
                            ({"factors": torch.ones(4)}, "factors belong"),
                            ({"steps": good.steps.float()}, "steps are")):
        with pytest.raises(ValueError, match=message):
            check_groups(Groups(**fields | change))
