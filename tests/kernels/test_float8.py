"""Weights in floats of 8 bits, with every kind of scales, on every instruction set, against float64."""

import pytest
import torch

from model.kernels import load_kernels
from model.kernels.float8 import Float8, check_float8
from model.kernels.reference import linear as reference
from tests.helpers.kernel_libraries import LIBRARIES, is_gpu, opened
from tests.kernels.test_linear import EXACT_ERROR, ROWS, multiply, relative_error
from tests.kernels.test_prompt_linear import ERROR as PROMPT_ERROR
from tests.kernels.test_prompt_linear import SPLIT_ERROR

FORMS = {"outputs": [(40, 130), (17, 64), (1, 5), (130, 512)], "blocks": [(40, 513), (17, 160), (272, 768)]}
"""A factor for each output; a scale for 16 outputs and 128 columns (or 32), too. Shapes with ragged ends."""


def float8_of(form, n, k, seed=0):
    """A random weight [n, k] with every finite value of a byte."""
    random = torch.Generator().manual_seed(seed + n * k)
    codes = torch.randint(0, 256, (n, k), dtype=torch.uint8, generator=random)
    values = codes.where(codes & 0x7F != 0x7F, 0x81).view(torch.float8_e4m3fn)
    factors = torch.rand(n, generator=random) * 0.01 + 0.001
    if form == "outputs":
        return Float8(values, factors, None, k)
    size = 128 if k > 200 else 32
    return Float8(values, factors, torch.rand(-(-n // 16), -(-k // size), generator=random) + 0.1, size)


def expected(weight, x, bias=None):
    """x @ W^T + bias in float64, straight from the definition."""
    rows, columns = (torch.arange(count) for count in weight.values.shape)
    numbers = weight.values.double() * weight.factors.double().unsqueeze(1)
    if weight.scales is not None:
        numbers = numbers * weight.scales.double()[rows // 16][:, columns // weight.size]
    return x.double() @ numbers.T + (0 if bias is None else bias.double())


@pytest.fixture(params=LIBRARIES)
def any_ops(request):
    with opened(request) as one:
        yield one


@pytest.mark.parametrize("form", FORMS)
def test_products_match_float64(any_ops, form):
    """A GPU has them in float16."""
    for n, k in FORMS[form]:
        weight, bias = float8_of(form, n, k), torch.randn(n) if n % 3 else None
        packed = any_ops.pack_float8(weight, bias)
        x = torch.randn(3 if is_gpu(any_ops) else 33, k, generator=torch.Generator().manual_seed(k))
        limit = 3e-3 if is_gpu(any_ops) else EXACT_ERROR
        assert relative_error(multiply(any_ops, packed, x), expected(weight, x, bias)) < limit, (n, k)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_does_not_depend_on_other_rows_or_threads(any_ops, form):
    if is_gpu(any_ops):
        pytest.skip("they become float16 on a GPU; test_linear.py tests that")
    packed, x = any_ops.pack_float8(float8_of(form, 72, 544), torch.randn(72)), torch.randn(65, 544)
    want = multiply(any_ops, packed, x)
    for threads in (1, 3):
        any_ops.set_threads(threads)
        for m in ROWS:
            assert torch.equal(multiply(any_ops, packed, x[:m]), want[:m]), (threads, m)


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_prompts_match_float64_and_do_not_depend_on_others(amx, form):
    for n, k, precise in ((272, 1280, 0), (40, 513, 0), (130, 160, 0), (40, 1281, 40)):
        weight, bias = float8_of(form, n, k), torch.randn(n)
        packed = amx.pack_float8(weight, bias)
        x = torch.randn(70, k, generator=torch.Generator().manual_seed(k))
        out = torch.empty(70, n)
        amx.prompts.prompt_linear(x, packed, out, precise=precise)
        limit = SPLIT_ERROR if precise else PROMPT_ERROR
        assert relative_error(out, expected(weight, x, bias)) < limit, (n, k)
        for m in (1, 33):
            some = torch.empty(m, n)
            amx.prompts.prompt_linear(x[5:5 + m], packed, some, precise=precise)
            assert torch.equal(some, out[5:5 + m]), (n, k, m)


def test_exact_weights_are_multiplied_in_float32_in_prompts_too(amx):
    weight = float8_of("blocks", 32, 256)
    packed, x, out = amx.pack_float8(weight, exact=True), torch.randn(40, 256), torch.empty(40, 32)
    amx.prompts.prompt_linear(x, packed, out)
    assert torch.equal(out, multiply(amx, packed, x))


def test_every_byte_is_the_number_that_torch_takes_it_for(any_ops):
    """Column j of the only output is byte j, subnormals and -0 among them."""
    codes = torch.arange(256, dtype=torch.uint8)
    values = codes[codes & 0x7F != 0x7F].view(1, -1).view(torch.float8_e4m3fn)
    packed = any_ops.pack_float8(Float8(values, torch.ones(1), None, 254), exact=True)
    out = multiply(any_ops, packed, torch.eye(254) if not is_gpu(any_ops) else torch.eye(254)[:9])
    assert torch.equal(out[:, 0], values[0, :len(out)].float())


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_looked_up_as_they_are_dequantized(form):
    kernels, weight = load_kernels(threads=2), float8_of(form, 21, 512)
    packed, ids = kernels.pack_float8(weight), torch.tensor([0, 20, 16, 7, 20], dtype=torch.int32)
    out = torch.empty(5, 512)
    kernels.embed(packed, ids, out, 1.5)
    torch.testing.assert_close(out, weight.dequantize()[ids.long()] * 1.5, rtol=1e-6, atol=1e-7)


def test_a_weight_takes_a_byte_and_little_more():
    kernels = load_kernels(threads=1)
    for form in FORMS:
        packed = kernels.pack_float8(float8_of(form, 1024, 1024))
        assert packed.kind == reference.pack_float8(float8_of(form, 16, 256)).kind == "f8"
        assert packed.nbytes * 8 / 1024 ** 2 == pytest.approx(8.03, abs=0.02), form


def test_parts_that_do_not_fit_are_refused():
    good = float8_of("blocks", 40, 512)
    fields = {name: getattr(good, name) for name in Float8.__dataclass_fields__}
    for change, message in (({"values": good.values.float()}, "values are"), ({"scales": None}, "without"),
                            ({"factors": good.factors[:9]}, "factors are"), ({"size": 40}, "multiple of 32"),
                            ({"scales": good.scales[:2]}, "scales are"), ({"size": 512}, "multiple of 32")):
        with pytest.raises(ValueError, match=message):
            check_float8(Float8(**fields | change))
