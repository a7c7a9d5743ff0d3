"""model/config.py: config.json as transformers 4 and 5 write it, and as nobody should."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from model.config import EngineConfig
from model.families.rope import frequencies, linear_divisors, llama3_divisors
from model.families.spec import Rope
from model.files import ModelLoadError
from model.model_config import ModelConfig
from tests.helpers.tiny_models import TINY


def read(generation: dict | None = None, **changes: object) -> ModelConfig:
    return ModelConfig.from_dict({**TINY, **changes}, generation or {}, "tiny")


def test_sizes_and_rope_of_transformers_4():
    config = read(rope_theta=500000.0, torch_dtype="float16",
                  rope_scaling={"type": "linear", "factor": 4.0})
    attention = config.spec.layers[0].attention
    assert (attention.num_heads, attention.num_kv_heads, attention.head_dim) == (2, 1, 32)
    assert attention.rope == Rope(500000.0, 32, (4.0,) * 16)


def test_rope_of_transformers_5_wins_over_the_old_key():
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    read_rope = read(rope_parameters=rope, rope_theta=7.0).spec.layers[0].attention.rope
    assert read_rope == Rope(5e5, 32, llama3_divisors(5e5, 32, 8.0, 1.0, 4.0, 8192))


def test_missing_keys_take_the_defaults_of_llama():
    raw = {k: v for k, v in TINY.items() if k not in ("num_key_value_heads", "head_dim", "rope_theta")}
    config = ModelConfig.from_dict(raw, {}, "tiny")
    attention = config.spec.layers[0].attention
    assert (attention.num_kv_heads, attention.head_dim, attention.rope.theta) == (2, 32, 10000.0)


def test_eos_ids_of_both_files_come_together():
    assert read({"eos_token_id": [5, 7]}, eos_token_id=2).eos_token_ids == {2, 5, 7}
    assert read(eos_token_id=None).eos_token_ids == frozenset()
    assert read(eos_token_id=4000).eos_token_ids == frozenset(), "an id that cannot be sampled"


def test_a_window_shorter_than_the_context_is_the_layers():
    mistral = {"architectures": ["MistralForCausalLM"], "sliding_window": 128}
    assert read(**mistral).spec.layers[0].attention.window == 128
    assert read(**mistral).spec.max_positions == 256
    for value in (None, 256):
        assert read(**{**mistral, "sliding_window": value}).spec.layers[0].attention.window is None


def test_number_of_parameters_by_hand():
    attention = 64 * 32 * (2 * 2 + 2 * 1)
    layer = attention + 3 * 64 * 96 + 2 * 64
    assert read().spec.num_parameters == 2 * layer + 2 * 96 * 64 + 64
    assert read(tie_word_embeddings=True).spec.num_parameters == 2 * layer + 96 * 64 + 64


@pytest.mark.parametrize(("key", "value"), [
    ("hidden_size", 10**12), ("hidden_size", -64), ("hidden_size", "64"), ("hidden_size", 64.0),
    ("hidden_size", True), ("num_hidden_layers", 0), ("num_hidden_layers", 10**9), ("vocab_size", 2**40),
    ("vocab_size", None), ("intermediate_size", 1 << 30), ("num_attention_heads", 0),
    ("num_key_value_heads", 3), ("head_dim", 1024), ("head_dim", 33), ("rms_norm_eps", -1.0),
    ("rms_norm_eps", math.nan), ("rope_theta", math.inf), ("rope_theta", 0), ("hidden_act", "gelo"),
    ("max_position_embeddings", 1 << 60), pytest.param("max_position_embeddings", 10**5000, id="huge"),
    ("rope_scaling", {"type": "dynamic", "factor": 0.5}),
    ("rope_scaling", {"type": "linear", "factor": 0}),
    ("rope_scaling", [1]), ("rope_parameters", {"rope_type": "llama3", "factor": 8.0}),
    ("rope_parameters", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 1,
                         "original_max_position_embeddings": 8192}),
    ("eos_token_id", "2"), ("eos_token_id", -5), ("eos_token_id", [2] * 5000), ("architectures", ["Nobodys"]),
    ("architectures", [["x" * 1000]]), ("tie_word_embeddings", 1), ("quantization_config", "gptq"),
])
def test_an_absurd_value_is_named_with_its_key(key: str, value: object):
    started = time.thread_time()  # of work, not of waiting for a busy machine
    with pytest.raises(ModelLoadError, match="expected") as error:
        read(**{key: value})
    said, _, listed = str(error.value).partition("expected one of these families")
    assert len(said) < 400 and len(listed) < 900
    assert time.thread_time() - started < 1


def test_the_key_of_the_error_is_the_one_in_the_file():
    with pytest.raises(ModelLoadError, match=r"^config.json: vocab_size is 0; expected a whole number"):
        read(vocab_size=0)


@pytest.mark.parametrize(("text", "reason"), [
    ("", "no valid JSON"), ("[" * 100_000, "no valid JSON"), ("[1]", "holds a list"),
    ('{"a": 1' + "0" * 5000 + "}", "no valid JSON"), ("{}" + " " * (9 << 20), "at most"),
    ("\ud800".encode("utf-8", "surrogatepass"), "no valid JSON"),
])
def test_a_broken_file_is_a_clear_error(tmp_path: Path, text: str | bytes, reason: str):
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelLoadError, match=reason):
        ModelConfig.from_folder(tmp_path)


def test_a_folder_that_is_none_is_a_clear_error(tmp_path: Path):
    with pytest.raises(ModelLoadError, match="does not exist"):
        ModelConfig.from_folder(tmp_path / "nothing")
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(ModelLoadError, match="is a file"):
        ModelConfig.from_folder(tmp_path / "model.gguf")
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        ModelConfig.from_folder(tmp_path)


def test_generation_config_is_read_beside_it(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 9}')
    config = ModelConfig.from_folder(tmp_path)
    assert config.eos_token_ids == {2, 9}
    assert config.name == tmp_path.name


def test_linear_rope_divides_every_frequency():
    plain = frequencies(Rope(10000.0, 8))
    assert plain == pytest.approx([1.0, 0.1, 0.01, 0.001])
    assert frequencies(Rope(10000.0, 8, linear_divisors(4.0, 8))) == pytest.approx([f / 4 for f in plain])


@pytest.mark.parametrize(("name", "value"), [
    ("device", "tpu"), ("cache", "q3"), ("max_seq_len", 1), ("threads", 0), ("prefill_chunk", 1.5),
    ("prefill_chunk", 10**9), ("gpu_split", ()), ("gpu_split", (20.0, -1.0)),
])
def test_engine_settings_have_ranges(name: str, value: object):
    with pytest.raises(ValueError, match=f"{name} is .* expected"):
        EngineConfig(**{name: value})
