"""The GPTQ quantizer on one matrix: packing by hand, its algebra against the paper's plain algorithm."""

import pytest
import torch

from model.quantize.gptq import (
    GridOptions,
    inverse_factor,
    output_error,
    quantize_gptq,
    quantize_round,
    visiting_order,
)
from model.quantize.packing import check_packable, pack_rows
from tests.helpers.gptq_description import unpack_by_description


def correlated_inputs(count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator) / size**0.5
    spread = torch.rand(size, generator=generator) * 3
    return torch.randn(count, size, generator=generator) @ mixing * spread


def random_case(out_features=24, in_features=160, seed=0):
    """A weight [out, in] and the Hessian of correlated inputs."""
    x = correlated_inputs(600, in_features, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(out_features, in_features, generator=generator), x.t() @ x / len(x)


# ---------------------------------------------------------------- packing


def test_eight_four_bit_codes_make_one_word_lowest_first():
    codes = torch.arange(8).reshape(8, 1)
    assert pack_rows(codes, 4).tolist() == [[0x76543210]]
    assert pack_rows(codes.flip(0), 4).tolist() == [[0x01234567]]
    assert pack_rows(torch.full((8, 1), 15), 4).tolist() == [[-1]]


def test_three_bit_codes_straddle_words_by_hand():
    """Code 10 takes bits 30..32: its two low bits end word 0, its high bit begins word 1."""
    codes = torch.zeros(32, 1, dtype=torch.int64)
    codes[10] = 0b110
    assert [word & 0xFFFFFFFF for word in pack_rows(codes, 3).flatten().tolist()] == [0b10 << 30, 1, 0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rows", [32, 96])
def test_packed_codes_are_read_back_by_the_formats_description(bits, rows):
    codes = torch.randint(0, 1 << bits, (rows, 5), generator=torch.Generator().manual_seed(bits))
    words = pack_rows(codes, bits)
    assert words.shape == (rows * bits // 32, 5)
    assert torch.equal(unpack_by_description(words, bits), codes)


def test_rows_that_fill_a_word_but_not_a_whole_block_of_32():
    codes = torch.randint(0, 16, (40, 3), generator=torch.Generator().manual_seed(1))
    assert torch.equal(unpack_by_description(pack_rows(codes, 4), 4), codes)


def test_sizes_that_fill_no_whole_words_are_refused():
    check_packable(8, 16, 4)
    with pytest.raises(ValueError, match=r"12 inputs of 4 bits .* multiple of 8"):
        check_packable(12, 16, 4)
    with pytest.raises(ValueError, match=r"48 outputs of 3 bits .* multiple of 32"):
        check_packable(64, 48, 3)


# ---------------------------------------------------------------- one matrix


def test_rounding_by_hand():
    """A largest weight of 7.5 gives a scale of 1 (15 steps from -7.5 to 7.5), zero in the middle."""
    weight = torch.tensor([[7.5, -7.5, 0.4, 0.6, -3.2, 2.0, 1.0, -1.0]])
    result = quantize_round(weight, GridOptions(group_size=-1, search=False))
    assert result.scales.tolist() == [[1.0]] and result.zeros.tolist() == [[8]]
    assert result.codes.flatten().tolist() == [15, 0, 8, 9, 5, 10, 9, 7]  # 7.5 is cut to +7, -7.5 is -8
    assert result.dequantize().tolist() == [[7, -8, 0, 1, -3, 2, 1, -1]]


def test_the_error_of_a_column_is_made_good_by_the_next_one_by_hand():
    """Two inputs that are always equal: what the first code loses the second one wins back."""
    hessian = torch.ones(2, 2)
    weight = torch.tensor([[0.4, 7.5]])
    result = quantize_gptq(weight, hessian, GridOptions(bits=8, group_size=-1, search=False, damping=1e-6))
    scale = float(result.scales[0, 0])
    assert abs(float(result.dequantize().sum()) - 7.9) <= scale / 2 * 1.01


@pytest.mark.parametrize("options", [
    GridOptions(), GridOptions(search=False), GridOptions(group_size=32, symmetric=False),
    GridOptions(act_order=True), GridOptions(bits=3, group_size=-1), GridOptions(bits=2, group_size=32),
    GridOptions(bits=8, group_size=128)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_gptq_changes_the_outputs_less_than_rounding(options, seed):
    weight, hessian = random_case(seed=seed * 10)
    gptq = quantize_gptq(weight, hessian, options).dequantize()
    rounded = quantize_round(weight, options).dequantize()
    assert output_error(weight, gptq, hessian) < 0.8 * output_error(weight, rounded, hessian)


def test_uncorrelated_inputs_leave_nothing_to_make_good():
    """With a diagonal Hessian GPTQ is rounding."""
    weight, _ = random_case()
    options = GridOptions(search=False)
    gptq, rounded = quantize_gptq(weight, torch.eye(160), options), quantize_round(weight, options)
    assert torch.equal(gptq.codes, rounded.codes) and torch.equal(gptq.scales, rounded.scales)


def test_blocks_and_groups_agree_with_the_plain_algorithm_of_the_paper():
    """Column by column with a fresh inverse after each (the paper's equations 2 and 3), in float64."""
    weight, hessian = random_case(out_features=8, in_features=144)
    order, _ = visiting_order(hessian.diagonal(), GridOptions(group_size=48))
    weight, hessian = weight[:, order], hessian[order][:, order]  # now the file's order is the visiting order
    options = GridOptions(group_size=48, search=False, damping=0.01)
    result = quantize_gptq(weight, hessian, options)
    work = weight.double().clone()
    damped = hessian.double() + torch.eye(144) * 0.01 * hessian.double().diagonal().mean()
    for k in range(144):
        if k % 48 == 0:
            scale = (2 * work[:, k:k + 48].abs().amax(1) / 15).half().double()
        quantized = ((work[:, k] / scale).round() + 8).clamp(0, 15).sub(8) * scale
        inverse = torch.linalg.inv(damped[k:, k:])
        work[:, k:] -= torch.outer((work[:, k] - quantized) / inverse[0, 0], inverse[0])
        work[:, k] = quantized
    same = torch.isclose(result.dequantize().double(), work, atol=1e-9)
    assert same.float().mean() > 0.99  # a tie broken by the last bit of float32 moves a code
    assert abs(output_error(weight, result.dequantize(), hessian)
               / output_error(weight, work.float(), hessian) - 1) < 0.02


def test_act_order_is_gptq_on_permuted_columns():
    weight, hessian = random_case()
    order = torch.argsort(hessian.diagonal(), descending=True)
    plain = quantize_gptq(weight[:, order], hessian[order][:, order], GridOptions(group_size=64))
    result = quantize_gptq(weight, hessian, GridOptions(group_size=64, act_order=True))
    assert torch.equal(result.codes[order], plain.codes)
    assert torch.equal(result.scales, plain.scales)
    assert result.g_idx[order].tolist() == [k // 64 for k in range(160)]
    assert torch.equal(result.dequantize()[:, order], plain.dequantize())


def test_without_act_order_groups_stay_together_and_important_columns_come_first():
    importance = torch.tensor([1.0, 2, 3, 4, 9, 8, 7, 6, 5, 10])
    order, groups = visiting_order(importance, GridOptions(group_size=8))
    assert order.tolist() == [9, 8, 4, 5, 6, 7, 3, 2, 1, 0]
    assert groups == [(1, 0, 2), (0, 2, 10)]
    order, groups = visiting_order(importance, GridOptions(group_size=8, act_order=True))
    assert order.tolist() == [9, 4, 5, 6, 7, 8, 3, 2, 1, 0]
    assert groups == [(0, 0, 8), (1, 8, 10)]
    weight, hessian = random_case()
    assert quantize_gptq(weight, hessian, GridOptions()).g_idx.tolist() == [k // 64 for k in range(160)]


def test_the_last_group_may_be_ragged():
    weight, hessian = random_case(in_features=152)
    result = quantize_gptq(weight, hessian, GridOptions(group_size=64))
    assert result.scales.shape == (3, 24)
    assert result.g_idx.tolist() == [k // 64 for k in range(152)]
    alone = quantize_round(weight[:, 128:], GridOptions(group_size=-1))
    whole = quantize_round(weight, GridOptions(group_size=64))
    assert torch.equal(whole.scales[2], alone.scales[0])


def test_zero_points_stay_where_every_reader_agrees():
    """A group without negative weights would have the zero point 0, which version 1 cannot store."""
    weight = torch.rand(8, 64) + 0.5
    weight[4:] *= -1
    result = quantize_round(weight, GridOptions(symmetric=False, search=False))
    assert int(result.zeros.min()) == 1 and int(result.zeros.max()) == 15
    assert (result.dequantize() - weight).abs().max() < 0.11  # one of 15 steps over 1.5


def test_inputs_that_were_always_zero_are_rounded_and_move_nothing():
    x = correlated_inputs(400, 64)
    x[:, [3, 40]] = 0
    weight = random_case(in_features=64)[0]
    result = quantize_gptq(weight, x.t() @ x, GridOptions(group_size=-1))
    step = result.scales[0].float()
    for column in (3, 40):
        inside = weight[:, column].abs() < 7 * step
        off = (result.dequantize()[:, column] - weight[:, column]).abs()
        assert bool(inside.any()) and bool((off <= step / 2 * 1.001)[inside].all())


def test_a_hessian_of_fewer_inputs_than_columns_is_damped():
    x = correlated_inputs(10, 96)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(3))
    factor = inverse_factor(x.t() @ x, order, 0.01).double()
    damped = (x.t() @ x).double() + torch.eye(96) * 0.01 * float((x.t() @ x).diagonal().mean())
    assert torch.equal(factor.triu(), factor)
    assert torch.allclose(factor.t() @ factor @ damped[order][:, order],
                          torch.eye(96, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 7, 129])
def test_the_factor_in_blocks_is_that_of_float64(size, monkeypatch):
    """Inputs of very different sizes; blocks of 16 instead of 512."""
    monkeypatch.setattr("model.quantize.gptq._ROWS_AT_ONCE", 16)
    x = correlated_inputs(300, size) * torch.logspace(0, 3, size)
    hessian = x.t() @ x
    damped = hessian.double() + torch.eye(size) * 0.01 * hessian.double().diagonal().mean()
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    got = inverse_factor(hessian, torch.arange(size), 0.01)
    assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_a_hessian_with_nan_is_an_error():
    hessian = torch.eye(16)
    hessian[2, 3] = hessian[3, 2] = float("nan")
    with pytest.raises(ValueError, match="no Cholesky factor"):
        quantize_gptq(torch.randn(8, 16), hessian, GridOptions(group_size=-1))


def test_weights_of_zero_and_weights_beyond_float16():
    weight = torch.zeros(8, 64)
    assert torch.equal(quantize_round(weight, GridOptions()).dequantize(), weight)
    with pytest.raises(ValueError, match="beyond float16's 65504"):
        quantize_round(torch.full((8, 64), 1e6), GridOptions())


@pytest.mark.parametrize("wrong, message", [
    ({"bits": 5}, "bits is 5; expected one of 2, 3, 4, 8"), ({"bits": 0}, "bits is 0"),
    ({"group_size": 0}, "group_size is 0"), ({"damping": 0.0}, "damping is 0.0")])
def test_options_out_of_range_are_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        GridOptions(**wrong)
