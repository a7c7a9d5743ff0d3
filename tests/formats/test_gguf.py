"""GGUF files: what the gguf package reads is what we read, and 60 ways to spoil one are told as errors."""

import random
import resource
import struct

import gguf
import numpy as np
import pytest
import torch

from model.files import ModelLoadError
from model.formats.ggml_types import SUPPORTED, ggml_type
from model.formats.gguf import GgufFile
from model.kernels.groups import Groups
from tests.helpers import gguf_files as make
from tests.helpers.gguf_files import key, tensor

BLOCK_TYPES = [t for t in gguf.GGML_QUANT_SIZES if ggml_type(int(t)).unpack is not None]


def random_blocks(kind, rows, columns, seed=0):
    """Random bytes whose float16 numbers are sensible ones: uint8 [rows, row_bytes]."""
    rng = np.random.default_rng(seed)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
              "Q4_1": (0, 2), "Q5_1": (0, 2), "MXFP4": (), "NVFP4": ()}.get(kind.name, (0,))
    for at in halves:
        numbers = rng.normal(0, 0.1, (rows, columns // block, 1)).astype(np.float16)
        raw[:, :, at:at + 2] = numbers.view(np.uint8)
    if kind.name == "MXFP4":
        raw[:, :, 0] = rng.integers(110, 135, raw.shape[:2])
    if kind.name == "NVFP4":  # no scale has a sign
        raw[:, :, :4] &= 0x7F
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", BLOCK_TYPES, ids=lambda kind: kind.name)
def test_blocks_mean_what_the_gguf_package_says(kind):
    raw = random_blocks(kind, 5, 768)
    found = ggml_type(int(kind)).dequantize(torch.from_numpy(raw))
    assert np.array_equal(found.numpy(), gguf.dequantize(raw, kind))


@pytest.mark.parametrize("kind", gguf.GGML_QUANT_SIZES, ids=lambda kind: kind.name)
def test_types_have_the_numbers_and_sizes_of_the_gguf_package(kind):
    ours = ggml_type(int(kind))
    assert (ours.name, ours.block, ours.block_bytes) == (kind.name, *gguf.GGML_QUANT_SIZES[kind])


def test_every_type_that_people_use_can_be_computed_with():
    assert set(SUPPORTED) == {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K",
                              "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"}


def test_groups_in_two_levels_by_hand():
    """Group 1 of row 0: (code 3 - zero 1) * scale 2 * step 0.5 - minimum 4 * min_step 0.25 = 1."""
    groups = Groups(torch.full((1, 256), 3, dtype=torch.uint8), 4, 128,
                    torch.tensor([[1, 2]], dtype=torch.int8), 1, torch.tensor([[0, 4]], dtype=torch.uint8),
                    torch.tensor([[0.5]]).half(), torch.tensor([[0.25]]).half())
    assert groups.dequantize()[0, ::128].tolist() == [1.0, 1.0]
    assert Groups(torch.tensor([[0, 1]], dtype=torch.uint8), 4, 2, torch.tensor([[2.0]]).half(),
                  table=(-5, 7)).dequantize().tolist() == [[-10.0, 14.0]]


METADATA = {"general.architecture": "llama", "general.name": "tiny é", "llama.block_count": 2,
            "a.negative": -3, "a.float": 0.5, "a.bool": True, "a.texts": ["a", "", "ü"],
            "a.floats": np.array([1.5, -2], np.float32), "a.bools": np.array([True, False]),
            "a.longs": np.array([1 << 40], np.uint64)}


def test_metadata_and_tensors_are_what_the_gguf_package_wrote(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_token_list(["<s>", "ü", ""])
    writer.add_array("llama.feed_forward_length", [3, 4])
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    weight = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    writer.add_tensor("token_embd.weight", weight)
    writer.add_tensor("blk.0.attn_q.weight", gguf.quantize(weight, gguf.GGMLQuantizationType.Q8_0),
                      raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GgufFile(path)
    assert found.metadata["llama.block_count"] == 2
    assert found.metadata["tokenizer.ggml.tokens"] == ["<s>", "ü", ""]
    assert found.metadata["llama.feed_forward_length"].tolist() == [3, 4]
    assert found.metadata["tokenizer.ggml.add_bos_token"] is False
    plain, quantized = found.tensor("token_embd.weight"), found.tensor("blk.0.attn_q.weight")
    assert (plain.type.name, plain.shape) == ("F32", (8, 64))
    assert (quantized.type.name, quantized.shape) == ("Q8_0", (8, 64))
    assert np.array_equal(plain.type.dequantize(plain.read()).numpy(), weight)
    assert np.abs(quantized.type.dequantize(quantized.read()).numpy() - weight).max() < 0.02


def test_a_file_made_by_hand_is_read_back(tmp_path):
    data = np.arange(96, dtype=np.float32).reshape(3, 32)
    path = make.write_gguf(tmp_path / "m.gguf", METADATA, {"a": (0, data), "b": (1, data.astype(np.float16))})
    found = GgufFile(path)
    for name, item in METADATA.items():
        assert np.array_equal(found.metadata[name], item), name
    assert found.tensor("b").type.dequantize(found.tensor("b").read()).tolist() == data.tolist()
    path.write_bytes(path.read_bytes()[:4] + struct.pack("<I", 2) + path.read_bytes()[8:])
    assert GgufFile(path).tensors.keys() == {"a", "b"}  # version 2 differs in nothing that we read


def split_files(folder):
    for number in range(2):
        item = np.full((2, 4), number, np.float32)
        split = {"split.no": number, "split.count": 2, "split.tensors.count": 2}
        make.write_gguf(folder / f"m-{number + 1:05}-of-00002.gguf", split | ({} if number else METADATA),
                        {f"t{number}": (0, item)})
    return folder / "m-00001-of-00002.gguf"


def test_the_parts_of_a_split_model_are_read_as_one(tmp_path):
    first = split_files(tmp_path)
    for path in (first, tmp_path / "m-00002-of-00002.gguf"):
        found = GgufFile(path)
        assert found.metadata["general.name"] == "tiny é"
        assert found.tensor("t1").read().view(torch.float32).tolist() == [[1.0] * 4] * 2


def test_what_a_split_model_lacks_is_named(tmp_path):
    first = split_files(tmp_path)
    second = tmp_path / "m-00002-of-00002.gguf"
    renamed = first.rename(tmp_path / "m.gguf")
    with pytest.raises(ModelLoadError, match="a part of a model in 2 files"):
        GgufFile(renamed)
    with pytest.raises(ModelLoadError, match=r"1 of the model's 2 files; download m-00001-of-00002\.gguf"):
        GgufFile(second)
    renamed.rename(first)
    second.write_bytes(first.read_bytes())
    with pytest.raises(ModelLoadError, match="'t0' is also in m-00001"):
        GgufFile(first)
    make.write_gguf(second, {}, {})
    with pytest.raises(ModelLoadError, match="1 tensors are in its 2 files; expected 2"):
        GgufFile(first)


def q(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def i(*numbers):
    return struct.pack(f"<{len(numbers)}I", *numbers)


KEYS = [key("general.architecture", "llama"), key("n", 5)]
T = tensor("t", (32, 2), 0, 0)
DATA = bytes(256)


def with_key(raw):
    return make.file([*KEYS, raw], [T], DATA)


def with_tensor(*raw, data=DATA):
    return make.file(KEYS, list(raw), data)


GOOD = make.file(KEYS, [T], DATA)
SPOILED = {
    "empty": (b"", "behind the file's end"),
    "three bytes": (b"GGU", "behind the file's end"),
    "magic alone": (b"GGUF", "behind the file's end"),
    "no counts": (GOOD[:8], "behind the file's end"),
    "one count": (GOOD[:16], "behind the file's end"),
    "a zip file": (b"PK\3\4" + GOOD[4:], "expected b'GGUF'"),
    "small letters": (b"gguf" + GOOD[4:], "expected b'GGUF'"),
    "old ggml": (b"lmgg" + GOOD[4:], "old GGML file"),
    "old ggjt": (b"tjgg" + GOOD[4:], "old GGML file"),
    "version 0": (make.file(KEYS, [T], DATA, version=0), "version 0; supported"),
    "version 1": (make.file(KEYS, [T], DATA, version=1), "version 1; supported"),
    "version 4": (make.file(KEYS, [T], DATA, version=4), "version 4; supported"),
    "big-endian": (GOOD[:4] + struct.pack(">I", 3) + GOOD[8:], "big-endian"),
    "a tensor too many": (make.file(KEYS, [T], b"", num_tensors=2), "behind the file's end|dimensions"),
    "2^63 tensors": (make.file(KEYS, [T], DATA, num_tensors=1 << 63), "at most 131,072"),
    "2^20 tensors": (make.file(KEYS, [T], DATA, num_tensors=1 << 20), "at most 131,072"),
    "a key too many": (make.file(KEYS, [T], DATA, num_keys=3), "at most 1,024"),
    "a key too few": (make.file(KEYS, [T], DATA, num_keys=1), "dimensions|bytes|sizes"),
    "2^64 - 1 keys": (make.file(KEYS, [T], DATA, num_keys=(1 << 64) - 1), "at most .* 65,536"),
    "a key twice": (with_key(KEYS[1]), "key 'n' is there twice"),
    "a key of 2^64 - 1 bytes": (with_key(q((1 << 64) - 1)), "at most 1,024"),
    "a key of 2,000 bytes": (with_key(key("k" * 2000, 1)), "at most 1,024"),
    "a key beyond the end": (make.file([*KEYS, q(900) + b"k"], [], b""), "behind the file's end"),
    "a key of no UTF-8": (with_key(key(b"\xff\xfe", 1)), "no UTF-8"),
    "a value's type 13": (with_key(key("k", i(13, 0))), "has type 13"),
    "a value's type 2^32 - 1": (with_key(key("k", i((1 << 32) - 1))), "has type 4294967295"),
    "a text of 2^63 bytes": (with_key(key("k", i(8) + q(1 << 63))), "at most 16,777,216"),
    "a text beyond the end": (make.file([key("k", i(8) + q(5000))], [], b""), "behind the file's end"),
    "a text of no UTF-8": (with_key(key("k", i(8) + make.text(b"\xc0\x80"))), "no UTF-8"),
    "a bool of 2": (with_key(key("k", i(7) + b"\2")), "another value than 0 and 1"),
    "bools of 7": (with_key(key("k", i(9, 7) + q(2) + b"\0\7")), "another value than 0 and 1"),
    "an array of 2^62": (with_key(key("k", i(9, 4) + q(1 << 62))), "at most 2,097,152"),
    "an array beyond the end": (make.file([key("k", i(9, 12) + q(1000))], [], b""), "behind the file's end"),
    "texts beyond the end": (make.file([key("k", i(9, 8) + q(1000))], [], b""), "behind the file's end"),
    "a text of an array of 2^60 bytes": (with_key(key("k", i(9, 8) + q(1) + q(1 << 60))), "at most 16"),
    "an array of arrays": (with_key(key("k", i(9, 9) + q(1) + i(4) + q(0))), "an array of type 9"),
    "an array of type 99": (with_key(key("k", i(9, 99) + q(0))), "an array of type 99"),
    "alignment 0": (with_key(key("general.alignment", 0)), "general.alignment is 0"),
    "alignment 33": (with_key(key("general.alignment", 33)), "general.alignment is 33"),
    "alignment 4": (with_key(key("general.alignment", 4)), "general.alignment is 4"),
    "alignment 2^31": (with_key(key("general.alignment", 1 << 31)), "expected a power of two"),
    "alignment -32": (with_key(key("general.alignment", -32)), "expected a power of two"),
    "alignment as text": (with_key(key("general.alignment", "32")), "expected a power of two"),
    "alignment as float": (with_key(key("general.alignment", 32.0)), "expected a power of two"),
    "alignment as array": (with_key(key("general.alignment", np.array([32]))), "expected a power of two"),
    "another alignment": (with_key(key("general.alignment", 1 << 16)), "is cut off"),
    "a tensor's name of 2^40 bytes": (with_tensor(q(1 << 40)), "at most 1,024"),
    "a tensor's name of no UTF-8": (with_tensor(make.text(b"\xff") + i(1) + q(4) + i(0) + q(0)), "no UTF-8"),
    "no dimensions": (with_tensor(tensor("t", (), 0, 0)), "0 dimensions"),
    "five dimensions": (with_tensor(tensor("t", (1,) * 5, 0, 0)), "5 dimensions"),
    "2^32 - 1 dimensions": (with_tensor(make.text("t") + i((1 << 32) - 1)), "4294967295 dimensions"),
    "a size of 0": (with_tensor(tensor("t", (32, 0), 0, 0)), "expected positive numbers"),
    "a size of 2^63": (with_tensor(tensor("t", (1 << 63,), 0, 0)), "expected positive numbers"),
    "sizes that overflow": (with_tensor(tensor("t", (1 << 40, 1 << 40), 0, 0)), "is cut off"),
    "sizes that overflow to 0": (with_tensor(tensor("t", (1 << 32, 1 << 32), 0, 0)), "is cut off"),
    "type 4, which is no more": (with_tensor(tensor("t", (32,), 4, 0)), "unknown type 4"),
    "type 2^31": (with_tensor(tensor("t", (32,), 1 << 31, 0)), "unknown type 2147483648"),
    "rows of half a block": (with_tensor(tensor("t", (16,), 8, 0)), "Q8_0 needs a multiple of 32"),
    "rows of 32 in Q4_K": (with_tensor(tensor("t", (32,), 12, 0)), "Q4_K needs a multiple of 256"),
    "an offset beyond the end": (with_tensor(tensor("t", (4,), 0, 4096)), "is cut off"),
    "an offset of 2^63": (with_tensor(tensor("t", (4,), 0, 1 << 63)), "is cut off"),
    "an offset of 1": (with_tensor(tensor("t", (4,), 0, 1)), "expected a multiple of 32"),
    "two tensors in one place": (with_tensor(T, tensor("u", (32,), 0, 0)), "overlaps"),
    "tensors that overlap": (with_tensor(T, tensor("u", (32,), 0, 32)), "overlaps"),
    "a name twice": (with_tensor(T, tensor("t", (32,), 0, 256), data=bytes(512)), "one name"),
    "no data": (with_tensor(T, data=b""), "is cut off"),
    "a byte too few": (GOOD[:-1], "is cut off"),
    "half of the description": (make.file(KEYS, [T[:12]], b""), "behind the file's end|dimensions|expected"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_file_is_refused_with_its_name_and_the_reason(name, tmp_path):
    data, message = SPOILED[name]
    path = tmp_path / "spoiled.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelLoadError, match=message) as caught:
        GgufFile(path)
    assert str(caught.value).startswith("spoiled.gguf") and len(str(caught.value)) < 500


def test_there_are_at_least_60_ways_to_spoil_a_file():
    assert len(SPOILED) >= 60


def test_a_tensor_that_is_not_there_is_named(tmp_path):
    (tmp_path / "m.gguf").write_bytes(GOOD)
    assert GgufFile(tmp_path / "m.gguf").tensor("t").shape == (2, 32)
    with pytest.raises(ModelLoadError, match=r"m.gguf: there is no tensor blk.0.attn_q.weight"):
        GgufFile(tmp_path / "m.gguf").tensor("blk.0.attn_q.weight")
    with pytest.raises(ModelLoadError, match="cannot be read: No such file"):
        GgufFile(tmp_path / "none.gguf")


def test_a_file_that_is_cut_after_it_was_opened_is_an_error(tmp_path):
    (tmp_path / "m.gguf").write_bytes(GOOD)
    found = GgufFile(tmp_path / "m.gguf").tensor("t")
    (tmp_path / "m.gguf").write_bytes(GOOD[:-200])
    with pytest.raises(ModelLoadError, match="became shorter"):
        found.read()


def test_20_000_damaged_headers_are_read_or_refused_in_little_memory(tmp_path):
    """Bytes and whole numbers of the header are changed; what gets through is read to its end."""
    rng = random.Random(5)
    path = make.write_gguf(tmp_path / "m.gguf", METADATA, {"a": (8, np.zeros((4, 68), np.uint8)),
                                                           "b": (0, np.zeros((3, 5), np.float32))})
    good = path.read_bytes()
    before, accepted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[at] = rng.choice((0, 1, 8, 9, 127, 128, 255, rng.randrange(256)))
            else:
                number = rng.choice((0, 1, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1))
                data[at:at + 8] = struct.pack("<Q", number)[:max(0, len(good) - at)]
        path.write_bytes(data[:rng.choice((len(data), len(data), rng.randrange(len(data))))])
        try:
            found = GgufFile(path)
            for found_tensor in found.tensors.values():
                found_tensor.read()
        except ModelLoadError as error:
            assert len(str(error)) < 1000
        else:
            accepted += 1
    assert accepted > 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB
