"""model/network/: random Llama models against transformers, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.engine.loading import load_engine
from model.files import ModelLoadError
from model.kernels import load_kernels
from model.kernels.reference.operations import ReferenceOperations
from model.model_config import ModelConfig
from model.network.call_list import CallLists
from model.network.place import Place
from model.network.rope_tables import rope_tables
from tests.helpers.tiny_models import write_model

REFERENCE_OPS = ReferenceOperations()
TOLERANCE = 1e-4  # float32; frequencies are rounded once here, several times in transformers
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no grouping": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "one key head for eight": {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32},
    "three heads a key head": {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2,
                               "head_dim": 40},
    "narrow heads": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
    "rope linear": {"rope_parameters": LINEAR},
    "rope llama3": {"rope_parameters": LLAMA3},
    "odd sizes": {"hidden_size": 72, "intermediate_size": 104, "vocab_size": 99, "rms_norm_eps": 1e-2},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
}


def transformers_model(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> torch.nn.Module:
    """A random model saved as transformers saves it; returns it in float32."""
    import transformers

    kind = changes.pop("model_type", "llama")
    settings = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
                "initializer_range": 0.25, "tie_word_embeddings": False, **changes}
    if kind == "llama":
        settings.setdefault("head_dim", 32)
    else:
        settings |= {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": None}
    classes = {"llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
               "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
               "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)}
    torch.manual_seed(1)
    config, model_class = classes[kind]
    model = model_class(config(**settings)).eval()
    for name, parameter in model.named_parameters():  # norms of one and biases of zero would hide mistakes
        if "norm" in name or name.endswith("bias"):
            parameter.data += torch.randn_like(parameter) * 0.3
    model.to(dtype).save_pretrained(folder, max_shard_size="60KB")
    return model_class.from_pretrained(folder, dtype=torch.float32).eval()


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str):
    """150 tokens: prompts of one and several pages and chunks; saved in shards of 60 kB."""
    model = transformers_model(tmp_path, **VARIANTS[name])
    token_ids = torch.randint(0, 96, (1, 150), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        want = model(token_ids).logits[0]
    engine = load_engine(tmp_path, EngineConfig(exact=True, cache="fp32", threads=1, prefill_chunk=64))
    try:
        assert relative_error(engine.logits(token_ids[0].tolist()), want) < TOLERANCE
        assert relative_error(engine.logits(token_ids[0, :5].tolist(), first=3), want[3:5]) < TOLERANCE
    finally:
        engine.close()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_weights_are_used_as_stored(tmp_path: Path, dtype: torch.dtype):
    model = transformers_model(tmp_path, dtype)
    token_ids = torch.arange(40)
    with torch.no_grad():
        want = model(token_ids[None]).logits[0]
    engine = load_engine(tmp_path, EngineConfig(exact=True, cache="fp32", threads=1))
    try:
        assert engine.describe()["quantization"] == str(dtype).removeprefix("torch.")
        assert relative_error(engine.logits(token_ids.tolist()), want) < TOLERANCE
    finally:
        engine.close()


@pytest.mark.parametrize(("cache", "tolerance"), [("fp32", 1e-5), ("fp16", 3e-4), ("q8", 5e-3), ("q4", 0.15)])
def test_operations_in_plain_torch_give_the_same_logits(tmp_path: Path, cache: str, tolerance: float):
    """Kernels may round queries and weights for a rounded cache; random weights make attention sharp."""
    folder = write_model(tmp_path)
    token_ids = [i * 7 % 96 for i in range(100)]
    logits = []
    for places in ([Place.on_host(REFERENCE_OPS, 1 << 30)], None):
        engine = load_engine(folder, EngineConfig(exact=True, cache=cache, threads=1), places=places)
        logits.append(engine.logits(token_ids))
        engine.close()
    assert relative_error(*logits) < tolerance


@pytest.mark.parametrize(("cache", "tolerance"), [("fp16", 2e-3), ("q8", 3e-2), ("q4", 0.4)])
def test_a_rounded_cache_changes_logits_a_little(tmp_path: Path, cache: str, tolerance: float):
    """Random weights make sharp attention, which real models are far from: their figures are in bench/."""
    folder = write_model(tmp_path)
    token_ids = [i * 7 % 96 for i in range(100)]
    logits = []
    for kind in ("fp32", cache):
        engine = load_engine(folder, EngineConfig(exact=True, cache=kind, threads=1))
        logits.append(engine.logits(token_ids))
        engine.close()
    assert 0 < float((logits[1] - logits[0]).norm() / logits[0].norm()) < tolerance


def test_rope_tables_by_hand():
    config = ModelConfig.from_dict({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 16, "vocab_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2}, {}, "x")
    cos, sin, _ = rope_tables(config.spec.layers[0].attention.rope, 3, torch.device("cpu"))
    angles = torch.tensor([[p * 10000 ** (-i / 4) for i in range(4)] for p in range(3)])
    assert torch.allclose(cos, angles.cos()) and torch.allclose(sin, angles.sin())


def test_a_recording_repeats_the_step_with_new_contents():
    ops = load_kernels(threads=1)
    lists = CallLists(ops)
    weight = ops.pack_dense(torch.eye(8))
    x, out = torch.empty(2, 8), torch.zeros(2, 8)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        ops.linear(x, weight, out, epilogue="add")

    for value in range(5):
        x.fill_(value)
        lists.run("add", step)
    assert steps == 2, "run twice, then replayed"
    assert out.tolist() == [[10.0] * 8] * 2


def test_a_kernel_that_fails_in_a_recording_is_an_error():
    ops = load_kernels(threads=1)
    lists = CallLists(ops)
    table, token_ids, out = torch.zeros(4, 8), torch.zeros(1, dtype=torch.int32), torch.zeros(1, 8)
    for _ in range(3):
        lists.run("embed", lambda: ops.embed(table, token_ids, out))
    token_ids[0] = 9
    with pytest.raises(RuntimeError, match="recorded step"):
        lists.run("embed", lambda: None)


def test_weights_of_another_model_are_an_error_before_anything_is_read(tmp_path: Path):
    folder = write_model(tmp_path)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace(
        '"intermediate_size": 96', '"intermediate_size": 128'))
    with pytest.raises(ModelLoadError, match=r"gate_proj\.weight is float32 \[96, 64\]; expected"):
        load_engine(folder)
