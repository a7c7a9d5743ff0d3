"""AWQ, compressed-tensors, FP8, NVFP4, bitsandbytes: modules packed number by number, and what is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.files import ModelLoadError
from model.formats.awq import AwqReader
from model.formats.bitsandbytes import BitsAndBytesReader, whole_numbers
from model.formats.checkpoint import open_checkpoint
from model.formats.compressed_tensors import CompressedTensorsReader
from model.formats.fp8 import Fp8Reader
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import DenseMatrix, Float8Matrix, GroupMatrix, join
from model.kernels import load_kernels
from model.model_config import ModelConfig
from tests.formats.test_formats import weight_of
from tests.helpers.tiny_models import write_model

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
N, K = 16, 64


def opened(folder, tensors):
    named = {f"m.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / "model.safetensors")
    return TensorFolder(folder)


def check(reader, weight, error=0.0, kind=None):
    """What the reader makes of module m [N, K]; a bias of ones belongs to it. It takes what is announced."""
    assert reader.is_quantized("m")
    info, matrix = reader.matrix_info("m", N, K), reader.matrix("m", N, K)
    if isinstance(matrix, DenseMatrix):
        assert info.nbytes == matrix.weight.nbytes
        found = matrix.weight.double().numpy()
    elif isinstance(matrix, Float8Matrix | GroupMatrix):
        is_float8 = isinstance(matrix, Float8Matrix)
        parts, kernels = matrix.float8 if is_float8 else matrix.groups, load_kernels(threads=1)
        packed = (kernels.pack_float8 if is_float8 else kernels.pack_groups)(parts)
        assert (info.kind, info.widened.kind[0]) == (packed.kind, "f")
        assert info.nbytes <= packed.nbytes <= info.nbytes + 256  # with tables of a fixed size, aligned
        found = parts.dequantize().double().numpy()
    else:
        assert info.kind == f"q{matrix.bits}"
        found = weight_of(matrix)
    assert np.abs(found - weight).max() <= error
    assert matrix.bias.tolist() == [1.0] * N
    assert kind is None or info.kind == kind
    return matrix


def words(codes, bits):
    """[rows, columns] -> int32 [rows, columns * bits / 32], lowest first, number by number."""
    packed = np.zeros((codes.shape[0], codes.shape[1] * bits // 32), np.uint32)
    for row, column in np.ndindex(codes.shape):
        packed[row, column * bits // 32] |= np.uint32(int(codes[row, column]) << column * bits % 32)
    return torch.from_numpy(packed.view(np.int32))


def numbers(*shape, seed=0, low=0, high=16):
    return np.random.default_rng(seed).integers(low, high, shape)


def halves(*shape):
    return torch.from_numpy(np.random.default_rng(5).uniform(0.01, 0.1, shape).astype(np.float16))


BIAS = {"bias": torch.ones(N)}


@pytest.mark.parametrize("has_zeros", [True, False])
def test_awq_has_its_outputs_in_an_order_of_its_own(tmp_path, has_zeros):
    codes, zeros, scales = numbers(K, N), numbers(2, N, seed=1), halves(2, N)
    order = np.concatenate([np.array([0, 2, 4, 6, 1, 3, 5, 7]) + 8 * word for word in range(N // 8)])
    tensors = {"qweight": words(codes[:, order], 4), "scales": scales, **BIAS}
    if has_zeros:
        tensors["qzeros"] = words(zeros[:, order], 4)
    else:
        zeros = np.full_like(zeros, 8)
    group = np.arange(K) // 32
    weight = (codes - zeros[group]) * scales.double().numpy()[group]
    check(AwqReader(opened(tmp_path, tensors), {"bits": 4, "group_size": 32}), weight.T)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_points", ["none", "packed", "int8"])
def test_compressed_integers(tmp_path, bits, zero_points):
    middle = 1 << bits - 1
    values = numbers(N, K, low=-middle, high=middle)
    zeros = numbers(N, 2, seed=2, low=-middle, high=middle) * (zero_points != "none")
    scales = halves(N, 2).bfloat16()
    tensors = {"weight_packed": words(values + middle, bits), "weight_scale": scales,
               "weight_shape": torch.tensor([N, K]), **BIAS}
    if zero_points == "packed":
        tensors["weight_zero_point"] = words((zeros + middle).T, bits).T
    elif zero_points == "int8":
        tensors["weight_zero_point"] = torch.from_numpy(zeros.astype(np.int8))
    group = np.arange(K) // 32
    weight = (values - zeros[:, group]) * scales.double().numpy()[:, group]
    check(CompressedTensorsReader(opened(tmp_path, tensors), {}, False), weight)


def test_compressed_integers_whose_inputs_are_in_another_order(tmp_path):
    values, scales = numbers(N, K, low=-8, high=8), halves(N, 4)
    index = np.random.default_rng(3).permutation(np.arange(K) // 16)
    tensors = {"weight_packed": words(values + 8, 4), "weight_scale": scales,
               "weight_g_idx": torch.from_numpy(index.astype(np.int32)), **BIAS}
    reader = CompressedTensorsReader(opened(tmp_path, tensors), {}, False)
    check(reader, values * scales.double().numpy()[:, index])


def test_bytes_with_a_scale_a_row(tmp_path):
    values, scales = numbers(N, K, low=-128, high=128), halves(N, 1)
    tensors = {"weight": torch.from_numpy(values.astype(np.int8)), "weight_scale": scales, **BIAS}
    check(CompressedTensorsReader(opened(tmp_path, tensors), {}, False), values * scales.double().numpy())


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("scales", ["one", "rows", "blocks", "columns", "whole"])
def test_fp8_with_scales_of_every_shape(tmp_path, scales, exact):
    """They stay as they are, but in blocks of 10 x 24, ragged at both ends."""
    is_kept = scales != "blocks"
    weight = torch.randn(N, K).to(torch.float8_e4m3fn)
    block = {"columns": (16, 32), "whole": (16, 64)}.get(scales, (10, 24))
    shape = {"rows": (N, 1), "blocks": (2, 3), "columns": (1, 2), "whole": (1, 1)}.get(scales, ())
    scale = halves(*shape).float()
    spread = scale
    if scales not in ("one", "rows"):
        spread = scale.repeat_interleave(block[0], 0)[:N].repeat_interleave(block[1], 1)[:, :K]
    tensors = {"weight": weight, "weight_scale_inv": scale, "activation_scale": torch.tensor(9.0), **BIAS}
    reader = Fp8Reader(opened(tmp_path, tensors), {"weight_block_size": list(block)}, exact)
    wanted = (weight.float() * spread).double().numpy()
    matrix = check(reader, wanted, 0.0 if exact or is_kept else 2e-4,
                   "f8" if is_kept else "f32" if exact else "f16")
    if is_kept:  # what stands side by side is multiplied by at once
        both = join([matrix, matrix])[0].float8.dequantize()
        assert torch.equal(both, matrix.float8.dequantize().repeat(2, 1))
    del tensors["weight_scale_inv"]
    if scales in ("one", "rows"):  # as compressed-tensors calls it
        other = CompressedTensorsReader(opened(tmp_path, tensors | {"weight_scale": scale}), {}, exact)
        check(other, wanted, kind="f8")


def test_fp8_with_a_number_that_is_none_is_told(tmp_path):
    weight = torch.full((N, K), 0x81, dtype=torch.uint8)
    weight[3, 5] = 0xFF
    tensors = {"weight": weight.view(torch.float8_e4m3fn), "weight_scale": torch.tensor(1.0)}
    with pytest.raises(ModelLoadError, match=r"m\.weight holds NaN"):
        Fp8Reader(opened(tmp_path, tensors), {}, False).matrix("m", N, K)


@pytest.mark.parametrize("tool", ["compressed-tensors", "modelopt"])
def test_nvfp4_has_16_weights_a_scale(tmp_path, tool):
    codes = numbers(N, K)
    scales = (torch.rand(N, K // 16) * 8 + 1).to(torch.float8_e4m3fn)
    packed = torch.from_numpy((codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8))
    if tool == "modelopt":
        tensors, factor = {"weight": packed, "weight_scale_2": torch.tensor(0.25)}, 0.25
    else:
        tensors, factor = {"weight_packed": packed, "weight_global_scale": torch.tensor([16.0])}, 1 / 16
    values = np.array([*FP4, *(-value for value in FP4)])[codes]
    weight = values * scales.double().numpy()[:, np.arange(K) // 16] * factor
    folder = opened(tmp_path, tensors | {"weight_scale": scales, **BIAS})
    for exact in (True, False):
        check(CompressedTensorsReader(folder, {}, exact), weight, kind="t4")


def quant_state(**state):
    text = json.dumps({"shape": [N, K], "blocksize": 32, **state})
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize("nested", [False, True])
def test_4_bits_of_bitsandbytes(tmp_path, nested):
    codes, values = numbers(N, K), torch.sort(torch.randn(16)).values
    packed = (codes[:, ::2] << 4 | codes[:, 1::2]).astype(np.uint8)
    tensors = {"weight": torch.from_numpy(packed.reshape(-1, 1)), "weight.quant_map": values, **BIAS}
    blocks = N * K // 32
    if nested:
        inner, outer = torch.randint(0, 256, (blocks,), dtype=torch.uint8), halves(blocks // 8).float()
        table = torch.rand(256)
        factors = table[inner.int()] * outer.repeat_interleave(8) + 0.5
        state = quant_state(nested_blocksize=8, nested_offset=0.5)
        tensors |= {"weight.absmax": inner, "weight.nested_absmax": outer, "weight.nested_quant_map": table,
                    "weight.quant_state.bitsandbytes__nf4": state}
    else:
        factors = halves(blocks).float()
        tensors |= {"weight.absmax": factors, "weight.quant_state.bitsandbytes__nf4": quant_state()}
    weight = (values[codes] * factors[torch.arange(N * K) // 32].view(N, K)).double().numpy()
    reader = BitsAndBytesReader(opened(tmp_path, tensors), True)
    check(reader, weight, 1e-7, kind="f32")
    check(BitsAndBytesReader(reader.folder, False), weight, 6e-4 * np.abs(weight).max(), kind="w4")
    assert reader.describe() == "bitsandbytes nf4"


def test_bitsandbytes_own_table_of_fp4_is_kept_to_the_bit():
    """Its numbers are multiples of 1 / 192; those of any other table are off by 1 / 32,766 at most."""
    values = torch.tensor([0, 1, 128, 192, 64, 96, 32, 48, 0, -1, -128, -192, -64, -96, -32, -48]) / 192
    table, step = whole_numbers(values)
    torch.testing.assert_close(torch.tensor(table) * step, values, rtol=1e-6, atol=0)
    values = torch.randn(16)
    table, step = whole_numbers(values)
    assert max(map(abs, table)) <= 16383
    assert (torch.tensor(table) * step - values).abs().max() < values.abs().max() / 32766
    assert whole_numbers(torch.zeros(16)) == ((0,) * 16, 0.0)


@pytest.mark.parametrize(("columns", "size"), [(96, 64), (64, 16)])
def test_4_bits_whose_factors_do_not_begin_with_rows_are_widened(tmp_path, columns, size):
    codes, values, factors = numbers(N, columns), torch.randn(16), halves(N * columns // size).float()
    packed = torch.from_numpy((codes[:, ::2] << 4 | codes[:, 1::2]).astype(np.uint8).reshape(-1, 1))
    tensors = {"weight": packed, "weight.quant_map": values, "weight.absmax": factors,
               "weight.quant_state.bitsandbytes__nf4": quant_state(shape=[N, columns], blocksize=size)}
    reader = BitsAndBytesReader(opened(tmp_path, tensors), False)
    weight = values[codes] * factors[torch.arange(N * columns) // size].view(N, columns)
    assert reader.matrix_info("m", N, columns).kind == "f16"
    torch.testing.assert_close(reader.matrix("m", N, columns).weight, weight.half())


def test_8_bits_of_bitsandbytes(tmp_path):
    values, factors = numbers(N, K, low=-127, high=128), torch.rand(N) + 0.5
    tensors = {"weight": torch.from_numpy(values.astype(np.int8)), "SCB": factors, **BIAS}
    weight = values * factors.double().numpy()[:, None] / 127
    check(BitsAndBytesReader(opened(tmp_path, tensors), False), weight, 1e-3)


def test_modules_that_were_left_as_they_are_stay_so(tmp_path):
    plain = {"weight": torch.randn(N, K), **BIAS}
    folder = opened(tmp_path, plain)
    for reader in (AwqReader(folder, {}), CompressedTensorsReader(folder, {}, False),
                   Fp8Reader(folder, {}, False), BitsAndBytesReader(folder, False)):
        assert not reader.is_quantized("m") and reader.matrix_info("m", N, K).kind == "f32"
        assert torch.equal(reader.matrix("m", N, K).weight, plain["weight"])


FP8 = torch.zeros(N, K).to(torch.float8_e4m3fn)
WRONG = {
    "AWQ of 3 bits": (lambda f: AwqReader(f, {"bits": 3}), {}, "AWQ with bits 3; supported: 4"),
    "AWQ for GEMV": (lambda f: AwqReader(f, {"version": "gemv"}), {}, "version 'gemv'; supported: gemm"),
    "AWQ of ragged groups": (lambda f: AwqReader(f, {}), {
        "qweight": words(numbers(K, N), 4), "scales": halves(3, N)}, "3 groups for 64 inputs"),
    "AWQ of another shape": (lambda f: AwqReader(f, {}), {
        "qweight": words(numbers(K, 2 * N), 4), "scales": halves(2, N)}, "m.qweight is int32"),
    "no scale of FP8": (lambda f: Fp8Reader(f, {}, False), {"weight": FP8}, "no tensor m.weight_scale_inv"),
    "FP8 of other blocks": (lambda f: Fp8Reader(f, {}, False), {
        "weight": FP8, "weight_scale_inv": torch.ones(3, 3)}, r"is \[3, 3\]; expected one number"),
    "blocks of 0": (lambda f: Fp8Reader(f, {"weight_block_size": [0, 9]}, False), {}, "weight_block_size"),
    "5 bits packed": (lambda f: CompressedTensorsReader(f, {}, False), {
        "weight_packed": torch.zeros(N, 10, dtype=torch.int32), "weight_scale": halves(N, 1)}, "4 or 8 bits"),
    "a group that is not there": (lambda f: CompressedTensorsReader(f, {}, False), {
        "weight_packed": words(numbers(N, K), 4), "weight_scale": halves(N, 2),
        "weight_g_idx": torch.full((K,), 2, dtype=torch.int32)}, "names groups 2 to 2"),
    "a divisor of 0": (lambda f: CompressedTensorsReader(f, {}, False), {
        "weight_packed": torch.zeros(N, K // 2, dtype=torch.uint8), "weight_global_scale": torch.zeros(1),
        "weight_scale": torch.ones(N, 4).to(torch.float8_e4m3fn)}, "it divides the scales"),
    "a state of no JSON": (lambda f: BitsAndBytesReader(f, False), {
        "weight.quant_state.bitsandbytes__nf4": torch.zeros(9, dtype=torch.uint8)}, "no valid JSON"),
    "another shape": (lambda f: BitsAndBytesReader(f, False), {
        "weight.quant_state.bitsandbytes__fp4": quant_state(shape=[1, 2])}, r"with the shape \[16, 64\]"),
    "blocks of -1": (lambda f: BitsAndBytesReader(f, False), {
        "weight.quant_state.bitsandbytes__fp4": quant_state(blocksize=-1)}, "blocksize is -1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name, tmp_path):
    make, tensors, message = WRONG[name]
    folder = opened(tmp_path, {"other": torch.zeros(1), **tensors})
    with pytest.raises(ModelLoadError, match=message):
        reader = make(folder)
        reader.matrix_info("m", N, K)
        reader.matrix("m", N, K)


@pytest.mark.parametrize(("settings", "reader"), [
    ({"quant_method": "awq", "bits": 4}, AwqReader), ({"quant_method": "fp8"}, Fp8Reader),
    ({"quant_method": "compressed-tensors"}, CompressedTensorsReader),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, CompressedTensorsReader),
    ({"quant_method": "bitsandbytes"}, BitsAndBytesReader),
    ({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4}, AwqReader)])
def test_the_reader_is_found_by_the_method(settings, reader, tmp_path):
    folder = write_model(tmp_path, quantization_config=settings)
    assert type(open_checkpoint(folder, ModelConfig.from_folder(folder))) is reader
