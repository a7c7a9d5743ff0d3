"""100,000 damaged folders: config.json, safetensors headers and GPTQ modules that lie.

Whatever stands in the files, the readers answer with a result or with ModelLoadError, and never allocate more
than the files themselves hold.
"""

import contextlib
import copy
import json
import random

import pytest
import torch
from safetensors.torch import save_file

from model.files import ModelLoadError
from model.formats import safetensors_reader
from model.formats.gptq import GptqReader
from model.formats.safetensors_reader import TensorFolder, read_header
from model.model_config import ModelConfig

NASTY = [None, True, False, 0, -1, 1, 2, 3, 7, 8, 31, 32, 33, 255, 256, 65536, 1 << 31, 1 << 32, 1 << 62,
         1 << 63, 1 << 64, 10**30, -(1 << 63), 0.0, -0.5, 0.5, 1.5, 1e308, float("inf"), float("nan"),
         "", "0", "4", "llama", "x" * 500, "\0", "\ud800",
         [], [0], [-1], [1 << 62, 4], [[]], [None], ["a"], {}, {"a": 1}, {"": {}}]

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 88,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 300, "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "hidden_act": "silu",
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 128},
    "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 1e4, "sliding_window": 256,
    "use_sliding_window": True, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
    "bos_token_id": 1, "eos_token_id": [2, 5],
    "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False,
                            "checkpoint_format": "gptq", "dynamic": {"lm_head": {"group_size": 32}}},
}


def damage(value, rng, depth=0):
    """A copy of a JSON value in which one place is another value, is gone, or is there under another key."""
    if not isinstance(value, dict | list) or not value or (depth and rng.random() < 0.3):
        return copy.deepcopy(rng.choice(NASTY))
    value = copy.copy(value)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    action = rng.random()
    if action < 0.1:
        del value[key]
    elif action < 0.2 and isinstance(value, dict):
        value[rng.choice(list(value))] = value[key]
    elif action < 0.25 and isinstance(value, dict):
        value[str(rng.choice(NASTY))[:20]] = value[key]
    else:
        value[key] = damage(value[key], rng, depth + 1)
    return value


def damage_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data))
        action = rng.random()
        if action < 0.6:
            data[at] = rng.randrange(256)
        elif action < 0.8:
            del data[at:at + rng.choice((1, 2, 9))]
        else:
            data[at:at] = rng.choice((b"9", b"0" * 40, b"[" * 3000, b"{", b"\xff", b'"', b"-", b"e99"))
        if not data:
            break
    return bytes(data)


def test_80_000_damaged_configs():
    rng = random.Random(1)
    accepted = 0
    for _ in range(80_000):
        raw = damage(CONFIG, rng)
        for _ in range(rng.choice((0, 0, 1, 3))):
            raw = damage(raw, rng) if isinstance(raw, dict) and raw else {}
        if not isinstance(raw, dict):
            continue
        try:
            config = ModelConfig.from_dict(raw, {}, "damaged")
        except ModelLoadError as error:
            assert 10 < len(str(error)) < 1000
        else:
            accepted += 1
            spec, attention = config.spec, config.spec.layers[0].attention
            assert 8 <= spec.hidden_size <= 1 << 16 and attention.num_heads % attention.num_kv_heads == 0
            assert attention.rope.theta >= 1 and spec.num_parameters > 0
    assert accepted > 1000  # else the damage is too heavy to reach the later checks


def test_2_000_config_files_of_damaged_bytes(tmp_path):
    rng = random.Random(2)
    text = json.dumps(CONFIG).encode()
    for _ in range(2_000):
        (tmp_path / "config.json").write_bytes(damage_bytes(text, rng))
        with pytest.raises(ModelLoadError):
            ModelConfig.from_folder(tmp_path)
            raise ModelLoadError("read without an error, which is as good")


@pytest.fixture
def no_giant_allocation(monkeypatch):
    """The readers' torch.empty refuses what the small files of these tests cannot hold."""
    original = torch.empty

    def empty(*size, **more):
        count = torch.Size(size[0] if size and not isinstance(size[0], int) else size).numel()
        assert count <= 1 << 20, f"allocates {count} elements"
        return original(*size, **more)

    monkeypatch.setattr(safetensors_reader.torch, "empty", empty)


def gptq_tensors(k=64, n=32, bits=4, group=32):
    generator = torch.Generator().manual_seed(0)

    def words(*shape):
        return torch.randint(-(1 << 31), (1 << 31) - 1, shape, dtype=torch.int32, generator=generator)

    return {"m.qweight": words(k * bits // 32, n), "m.qzeros": words(k // group, n * bits // 32),
            "m.scales": torch.rand(k // group, n, generator=generator).half(),
            "m.g_idx": (torch.arange(k) // group).int(), "m.bias": torch.zeros(n)}


def read_everything(path):
    reader = GptqReader(TensorFolder(path), CONFIG["quantization_config"])
    reader.matrix_info("m", 32, 64)
    matrix = reader.matrix("m", 32, 64)
    assert matrix.codes.shape == (32, 64) and int(matrix.codes.max()) <= 15
    return matrix


def test_15_000_damaged_headers(tmp_path, no_giant_allocation):
    """The header is changed as JSON; the data behind it stays. What the header lets through is read."""
    rng = random.Random(3)
    path = tmp_path / "model.safetensors"
    save_file(gptq_tensors(), path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, tail = json.loads(data[8:8 + size]), data[8 + size:]
    accepted = 0
    for number in range(15_000):
        damaged = damage(header, rng)
        if number % 2 and isinstance(damaged, dict) and damaged:
            damaged = damage(damaged, rng)
        text = json.dumps(damaged).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + tail)
        try:
            read_header(path)
        except ModelLoadError as error:
            assert len(str(error)) < 1000
            continue
        accepted += 1
        if accepted <= 300:
            with contextlib.suppress(ModelLoadError):
                read_everything(tmp_path)
    assert accepted > 100


def test_3_000_files_of_damaged_bytes(tmp_path, no_giant_allocation):
    rng = random.Random(4)
    path = tmp_path / "model.safetensors"
    save_file(gptq_tensors(), path)
    data = path.read_bytes()
    read_everything(tmp_path)
    for number in range(3_000):
        front = 8 + int.from_bytes(data[:8], "little") if number % 2 else len(data)
        path.write_bytes(damage_bytes(data[:front], rng) + data[front:])
        try:
            read_everything(tmp_path)
        except ModelLoadError as error:
            assert len(str(error)) < 1000
