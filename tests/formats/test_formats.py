"""model/formats/: safetensors headers that lie, and GPTQ packings against a bit-by-bit one."""

from __future__ import annotations

import json
import random
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.files import ModelLoadError
from model.formats.checkpoint import open_checkpoint, open_model
from model.formats.gptq import GptqReader, unpack, unpack_zeros
from model.formats.safetensors_reader import TensorFolder, read_header, read_tensor
from model.formats.weights import DenseMatrix, QuantizedMatrix, join, rounded_to_8_bits
from model.model_config import ModelConfig
from model.network.weights import weight_infos
from tests.helpers.tiny_models import TINY, gptq_tensors, pack_bits, write_model

GOOD = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]}}


def write_raw(path: Path, header: Any, data: bytes = bytes(32), header_size: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if header_size is None else header_size) + text + data)
    return path


# ---- safetensors ---------------------------------------------------------------------------------------


def test_every_type_is_read_as_the_safetensors_package_writes_it(tmp_path: Path):
    tensors = {"f32": torch.randn(3, 5), "f16": torch.randn(7).half(), "bf16": torch.randn(2, 2).bfloat16(),
               "i32": torch.arange(9, dtype=torch.int32), "u8": torch.arange(3, dtype=torch.uint8),
               "empty": torch.empty(0, 4), "scalar": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read_tensor(header[name]), tensor)


def test_the_header_by_hand(tmp_path: Path):
    header = read_header(write_raw(tmp_path / "x.safetensors", GOOD, struct.pack("<6f4e", *range(10))))
    assert read_tensor(header["a"]).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_tensor(header["b"]).tolist() == [6, 7, 8, 9]


def _changed(name: str, **changes: Any) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **changes}}


@pytest.mark.parametrize(("header", "reason"), [
    (_changed("b", data_offsets=[16, 24]), "overlaps"),
    (_changed("b", data_offsets=[25, 33]), "leaves a gap"),
    (_changed("a", shape=[2, 1 << 62]), "needs .* bytes"),
    (_changed("a", shape=[2, -3]), "has shape"), (_changed("a", shape=[2.0, 3]), "has shape"),
    (_changed("a", shape=[1] * 9), "has shape"), (_changed("a", shape="23"), "has shape"),
    (_changed("a", data_offsets=[24, 0]), "needs .* bytes"), (_changed("a", data_offsets=[0]), "offsets"),
    (_changed("a", data_offsets=[0, 1 << 70]), "data_offsets"), (_changed("a", dtype="Q4"), "supported"),
    (_changed("a", dtype=["F32"]), "supported"), ({"a": GOOD["a"]}, "belong to no tensor"),
    ({**GOOD, "c": {"dtype": "F64", "shape": [1 << 40], "data_offsets": [32, 32 + (8 << 40)]}}, "is cut off"),
    ({"a": 7}, "no description"), ([1], "no JSON object"), (b"[" * 100_000, "no valid JSON"),
    (b'{"a": 1, "a": 2}', "twice"), (b"{", "the header claims|no valid JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "no valid JSON"),
])
def test_a_header_that_lies_is_a_clear_error_and_allocates_nothing(tmp_path: Path, header: Any, reason: str):
    path = write_raw(tmp_path / "x.safetensors", header)
    started = time.thread_time()  # of work, not of waiting for a busy machine
    with pytest.raises(ModelLoadError, match=reason) as error:
        read_header(path)
    assert time.thread_time() - started < 1
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("size", [0, 1, 33, 1 << 20, 1 << 62, (1 << 64) - 1])
def test_a_header_size_that_lies_is_a_clear_error(tmp_path: Path, size: int):
    with pytest.raises(ModelLoadError):
        read_header(write_raw(tmp_path / "x.safetensors", b"{}", b"", header_size=size))


@pytest.mark.parametrize("length", [0, 3, 8, 40])
def test_a_file_that_is_cut_off_is_a_clear_error(tmp_path: Path, length: int):
    path = write_raw(tmp_path / "x.safetensors", GOOD)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelLoadError):
        read_header(path)


def test_a_file_that_shrinks_after_its_header_was_read_is_a_clear_error(tmp_path: Path):
    path = write_raw(tmp_path / "x.safetensors", GOOD)
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelLoadError, match="became shorter"):
        read_tensor(header["a"]), read_tensor(header["b"])


def test_random_damage_to_a_file_is_read_or_refused(tmp_path: Path):
    """Each header byte flipped or the file cut at random: never another exception, never a wrong size."""
    rng = random.Random(5)
    path = write_raw(tmp_path / "x.safetensors", GOOD)
    original = path.read_bytes()
    for _ in range(1500):
        damaged = bytearray(original)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged) - 32)] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)):]
        path.write_bytes(damaged)
        try:
            for info in read_header(path).values():
                assert read_tensor(info).nbytes == info.nbytes <= 32
        except ModelLoadError:
            pass


# ---- folders -------------------------------------------------------------------------------------------


def test_shards_are_read_by_their_index_and_without_one(tmp_path: Path):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, key in zip(names, "ab", strict=True):
        save_file({key: torch.full((2,), ord(key))}, tmp_path / name)
    assert TensorFolder(tmp_path).tensors.keys() == {"a", "b"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}))
    assert int(TensorFolder(tmp_path).read("b")[0]) == ord("b")
    (tmp_path / names[1]).unlink()
    with pytest.raises(ModelLoadError, match="has no model-00002"):
        TensorFolder(tmp_path)
    index.unlink()
    with pytest.raises(ModelLoadError, match="1 of 2 shards"):
        TensorFolder(tmp_path)


def test_matrices_of_one_tensor_are_read_by_their_number(tmp_path: Path):
    """Under the tensor's name or with .weight; with inputs first they are turned; others are not there."""
    stack = torch.arange(24.0).view(2, 3, 4)
    save_file({"a": stack, "b.weight": stack.clone(), "flat": torch.zeros(2)}, tmp_path / "model.safetensors")
    folder = TensorFolder(tmp_path)
    for name in ("a", "b"):
        assert torch.equal(folder.read(f"{name}#1.weight"), stack[1])
        assert torch.equal(folder.read(f"{name}~#0.weight"), stack[0].T)
    assert folder.info("a~#1.weight").shape == (4, 3)
    for name in ("a#2.weight", "a#x.weight", "a#1.bias", "flat#0.weight", "c#0.weight"):
        assert name not in folder
        with pytest.raises(ModelLoadError, match=f"no tensor {name}"):
            folder.read(name)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.bin", "", 5,
                                  "..safetensors", "C:\\x.safetensors"])
def test_an_index_may_name_only_files_of_its_folder(tmp_path: Path, name: Any):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelLoadError, match="expected plain"):
        TensorFolder(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'echo'\ntR.")
    with pytest.raises(ModelLoadError, match=r"its weights are \.bin files.*Supported: safetensors"):
        TensorFolder(tmp_path)


def test_a_tensor_in_two_files_and_two_models_in_a_folder_are_errors(tmp_path: Path):
    for i in (1, 2):
        save_file({"a": torch.zeros(1)}, tmp_path / f"m-0000{i}-of-00002.safetensors")
    with pytest.raises(ModelLoadError, match="is also in"):
        TensorFolder(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelLoadError, match="several"):
        TensorFolder(tmp_path)


@pytest.mark.parametrize("method", ["exl3", "aqlm", 7])
def test_another_quantization_is_named_with_what_is_supported(tmp_path: Path, method: Any):
    folder = write_model(tmp_path, quantization_config={"quant_method": method})
    with pytest.raises(ModelLoadError, match=f"quantized by {method!r}; supported: .*GPTQ"):
        open_checkpoint(folder, ModelConfig.from_folder(folder))


def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path):
    folder = write_model(tmp_path)
    reader = open_checkpoint(folder, ModelConfig.from_folder(folder))
    with pytest.raises(ModelLoadError, match=r"no tensor model\.layers\.9\.mlp\.down_proj\.weight"):
        reader.matrix_info("model.layers.9.mlp.down_proj", 64, 96)
    with pytest.raises(ModelLoadError, match=r"is float32 \[64, 96\]; expected .* \[64, 128\]"):
        reader.matrix_info("model.layers.0.mlp.down_proj", 64, 128)


def test_a_bias_that_config_json_promises_must_be_there(tmp_path: Path):
    folder = write_model(tmp_path, attention_bias=True)
    config, reader = open_model(folder)
    with pytest.raises(ModelLoadError, match=r"no tensor .*q_proj\.bias"):
        weight_infos(reader, config, exact=True)


# ---- GPTQ ----------------------------------------------------------------------------------------------


def reader_of(folder: Path, tensors: dict[str, torch.Tensor], **settings: Any) -> GptqReader:
    save_file({f"layer.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return GptqReader(TensorFolder(folder), {"bits": 4, "group_size": 64, **settings})


def weight_of(matrix: QuantizedMatrix) -> np.ndarray:
    """float64 [n, k] in the order of the inputs, from the definition in weights.py."""
    k = matrix.codes.shape[1]
    group = np.arange(k) // matrix.group_size
    sorted_weight = ((matrix.codes.double().numpy() - matrix.zeros.double().numpy()[:, group])
                     * matrix.scales.double().numpy()[:, group])
    if matrix.perm is None:
        return sorted_weight
    weight = np.empty_like(sorted_weight)
    weight[:, matrix.perm.numpy()] = sorted_weight
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("group_size", "act_order", "sym", "version"), [
    (32, False, True, 1), (64, True, False, 1), (128, False, False, 2), (-1, False, True, 2),
    (128, True, False, 1),
])
def test_gptq_weights_are_those_of_the_bit_by_bit_packing(
        tmp_path: Path, bits: int, group_size: int, act_order: bool, sym: bool, version: int):
    """k = 352 makes the last group of 64 and of 128 smaller than the others."""
    tensors, want = gptq_tensors((96, 352), bits=bits, group_size=group_size, act_order=act_order, sym=sym,
                                 version=version)
    reader = reader_of(tmp_path, tensors, bits=bits, group_size=group_size,
                       checkpoint_format="gptq" if version == 1 else "gptq_v2")
    matrix = reader.matrix("layer", 96, 352)
    assert isinstance(matrix, QuantizedMatrix)
    assert np.array_equal(weight_of(matrix), want)
    assert (matrix.perm is not None) == act_order
    info = reader.matrix_info("layer", 96, 352)
    assert info.kind == ("q8" if bits == 8 else "q4")


def test_unpack_by_hand():
    """One word 0x76543210 holds the codes 0..7."""
    assert unpack(torch.tensor([[0x76543210]], dtype=torch.int32), 4).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_zero_points_of_version_1_carry_over_their_neighbours():
    """gptqmodel subtracts 1 from whole words: the zero points 0, 5 are stored as 0x4F, and come back."""
    stored = torch.tensor([[0x50 - 0x11]], dtype=torch.int32)
    assert unpack_zeros(stored, 4, 1)[0, :2].tolist() == [0, 5]
    assert unpack_zeros(torch.tensor([[-1]], dtype=torch.int32), 8, 0).tolist() == [[255] * 4]
    packed = torch.from_numpy(np.ascontiguousarray(pack_bits(np.arange(32)[:, None] % 8, 3).T))
    assert unpack_zeros(packed, 3, 1)[0].tolist() == [(i + 1) % 8 for i in range(32)]


def test_a_module_may_differ_from_the_rest(tmp_path: Path):
    """gptqmodel's `dynamic`: 8 bits in groups of 32 inside a 4-bit model; its pattern is never run."""
    tensors, want = gptq_tensors((64, 96), bits=8, group_size=32, sym=True)
    del tensors["g_idx"]
    reader = reader_of(tmp_path, tensors, dynamic={"+:(a+)+$": {"bits": 8, "group_size": 32}})
    assert np.array_equal(weight_of(reader.matrix("layer", 64, 96)), want)


def test_a_module_without_codes_is_read_as_it_is(tmp_path: Path):
    weight = torch.randn(64, 32)
    matrix = reader_of(tmp_path, {"weight": weight, "bias": torch.ones(64)}).matrix("layer", 64, 32)
    assert isinstance(matrix, DenseMatrix)
    assert torch.equal(matrix.weight, weight) and matrix.bias is not None


def test_g_idx_of_zeros_means_no_act_order(tmp_path: Path):
    tensors, want = gptq_tensors((32, 128), bits=4, group_size=64)
    tensors["g_idx"].zero_()
    matrix = reader_of(tmp_path, tensors).matrix("layer", 32, 128)
    assert np.array_equal(weight_of(matrix), want)


@pytest.mark.parametrize(("key", "change", "reason"), [
    ("g_idx", lambda t: t + 5, "g_idx names groups"), ("g_idx", lambda t: t - 1, "g_idx names groups"),
    ("g_idx", lambda t: torch.where(torch.arange(128) == 0, 1, t).to(torch.int32), "different sizes"),
    ("qweight", lambda t: t[:-1], "expected int32"), ("qweight", lambda t: t.float(), "expected int32"),
    ("scales", lambda t: t[:, :-1], "expected float16"),
    ("scales", lambda t: t * torch.inf, "holds infinity"),
    ("scales", lambda t: t[0, 0], "0 groups"), ("qzeros", lambda t: t[:, :-1], "expected int32"),
])
def test_gptq_tensors_that_do_not_fit_are_named(tmp_path: Path, key: str, change: Any, reason: str):
    tensors, _ = gptq_tensors((32, 128), bits=4, group_size=64)
    tensors[key] = change(tensors[key]).contiguous()
    with pytest.raises(ModelLoadError, match=reason):
        reader_of(tmp_path, tensors).matrix("layer", 32, 128)


@pytest.mark.parametrize("settings", [
    {"bits": 5}, {"bits": None}, {"bits": [4]}, {"group_size": 0}, {"group_size": "64"},
    {"checkpoint_format": "marlin"}, {"dynamic": {"x": {"group_size": -7}}},
])
def test_gptq_settings_that_are_not_supported_are_named(tmp_path: Path, settings: dict[str, Any]):
    with pytest.raises(ModelLoadError, match="GPTQ with"):
        reader_of(tmp_path, {"weight": torch.zeros(1)}, **settings)


def test_modules_of_one_input_are_joined_where_they_agree():
    def quantized(perm: torch.Tensor | None, n: int = 8, bits: int = 4) -> QuantizedMatrix:
        return QuantizedMatrix(torch.zeros(n, 32, dtype=torch.uint8), torch.ones(n, 1).half(),
                               torch.zeros(n, 1, dtype=torch.uint8), 32, bits, perm, None)

    perm = torch.arange(32, dtype=torch.int32).flip(0)
    assert [m.n for m in join([quantized(perm), quantized(perm.clone()), quantized(perm)])] == [24]
    assert [m.n for m in join([quantized(perm), quantized(None), quantized(None)])] == [8, 16]
    assert [m.n for m in join([quantized(None), quantized(None, bits=8)])] == [8, 8]
    dense = DenseMatrix(torch.zeros(4, 32), torch.ones(4))
    joined = join([dense, DenseMatrix(torch.zeros(2, 32), None), quantized(None)])
    assert [m.n for m in joined] == [6, 8]
    assert joined[0].bias is not None and joined[0].bias.tolist() == [1, 1, 1, 1, 0, 0]


def test_settings_of_old_tools_lie_in_a_file_of_their_own(tmp_path: Path):
    folder = write_model(tmp_path, TINY)
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 32}')
    assert open_checkpoint(folder, ModelConfig.from_folder(folder)).describe() == "4-bit GPTQ g32"


def test_a_matrix_rounded_to_8_bits_is_within_half_a_step():
    """Odd widths, a row of zeros and one of numbers that float16 cannot hold; the bias stays."""
    weight = torch.randn(5000, 100, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    weight[1], weight[2] = 0, 1e-9
    matrix = rounded_to_8_bits(DenseMatrix(weight, torch.ones(5000)))
    group = torch.arange(100) // matrix.group_size
    scales = matrix.scales.float()[:, group]
    rounded = (matrix.codes.float() - matrix.zeros.float()[:, group]) * scales
    assert ((rounded - weight.float()).abs() <= scales * 0.51 + 1e-8).all()
    assert matrix.bits == 8 and matrix.codes.shape == weight.shape and matrix.bias is not None
