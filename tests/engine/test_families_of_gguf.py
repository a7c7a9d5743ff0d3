"""GGUF files of families whose tensors the converter renames or reorders, against transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.family_models import write_family
from tests.helpers.gguf_families import Tensors, write_gguf_family
from tests.helpers.tiny_engine import load

SIZES = {"block_count": 4, "context_length": 512, "embedding_length": 64, "feed_forward_length": 80,
         "attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-6}
GEMMA4 = SIZES | {
    "attention.key_length": 32, "attention.key_length_swa": 16, "attention.sliding_window": 20,
    "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "rope.dimension_count": 32,
    "attention.shared_kv_layers": 0, "final_logit_softcapping": 4.0, "embedding_length_per_layer_input": 0,
    "attention.sliding_window_pattern": [True, True, True, False]}
DEEPSEEK = SIZES | {
    "attention.head_count_kv": 1, "attention.key_length": 48, "attention.value_length": 40,
    "attention.key_length_mla": 24, "attention.value_length_mla": 12, "attention.q_lora_rank": 24,
    "attention.kv_lora_rank": 40, "rope.dimension_count": 8, "rope.freq_base": 1e4,
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
    "rope.scaling.yarn_log_multiplier": 0.1, "leading_dense_block_count": 1, "expert_count": 8,
    "expert_used_count": 2, "expert_feed_forward_length": 24, "expert_shared_count": 1,
    "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_group_count": 4,
    "expert_group_used_count": 2, "expert_gating_func": 2}
NEOX = SIZES | {"attention.head_count_kv": 4, "attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": 8,
                "use_parallel_residual": True}
LLAMA4 = SIZES | {
    "attention.key_length": 16, "attention.layer_norm_rms_epsilon": 1e-5, "feed_forward_length": 40,
    "rope.freq_base": 5e5, "rope.dimension_count": 16, "interleave_moe_layer_step": 2, "expert_count": 5,
    "expert_used_count": 1, "expert_feed_forward_length": 80}
GEMMA3N = SIZES | {
    "block_count": 6, "attention.key_length": 16, "attention.sliding_window": 20, "rope.freq_base": 1e6,
    "rope.freq_base_swa": 1e4, "final_logit_softcapping": 4.0, "feed_forward_length": [80] * 6,
    "altup.active_idx": 0, "altup.num_inputs": 4, "embedding_length_per_layer_input": 8,
    "attention.shared_kv_layers": 2, "attention.sliding_window_pattern": [True, False] * 3}
SMALL = GEMMA4 | {
    "block_count": 6, "feed_forward_length": [80, 80, 80, 80, 160, 160], "attention.shared_kv_layers": 2,
    "attention.sliding_window_pattern": [True, False] * 3, "embedding_length_per_layer_input": 8}


def assert_same_logits(path: Path, model: torch.nn.Module) -> None:
    token_ids = torch.randint(0, 96, (1, 100), generator=torch.Generator().manual_seed(2))
    engine = load(path, prefill_chunk=32, exact=True, cache="fp32")
    try:
        with torch.no_grad():
            want = model(token_ids, use_cache=False).logits[0]
        got = engine.logits(token_ids[0].tolist())
        assert float((got - want).abs().max() / want.abs().max()) < 2e-4  # both in float32
    finally:
        engine.close()


def of_router(tensors: Tensors) -> Tensors:
    """A router's own numbers have names that the converter gives by itself."""
    def renamed(name: str) -> str:
        layer = name.split(".")[2] if ".layers." in name else ""
        return {"router.scale": f"blk.{layer}.ffn_gate_inp.scale",
                "router.per_expert_scale": f"blk.{layer}.ffn_down_exps.scale"}.get(
                    ".".join(name.split(".")[-2:]), name)

    return {renamed(name): tensor for name, tensor in tensors.items()}


def of_latents(tensors: Tensors) -> Tensors:
    """What a head makes of the latent lies apart for keys, turned, and for values; gate and up, too."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        part = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        if name.endswith("kv_b_proj.weight"):
            keys, values = tensor.view(4, 28, 40).split((16, 12), dim=1)
            made |= {part + "attn_k_b.weight": keys.transpose(1, 2), part + "attn_v_b.weight": values}
        elif name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            made |= {part + "ffn_gate_exps.weight": gate, part + "ffn_up_exps.weight": up}
        else:
            made[part + "exp_probs_b.bias" if name.endswith("correction_bias") else name] = tensor
    return made


def test_deepseek_3_has_the_logits_of_transformers(tmp_path: Path):
    """Latents, groups of experts, a correction, YaRN's magnitude in the scores."""
    model = write_family(tmp_path / "folder", "deepseek 3")
    file = write_gguf_family(tmp_path / "m.gguf", model, "deepseek2", DEEPSEEK, of_latents)
    assert_same_logits(file, model)


def of_whole_latents(tensors: Tensors) -> Tensors:
    """What a head makes of the latent lies in one tensor, as files of before April 2025 have it."""
    kept = {f"blk.{name.split('.')[2]}.attn_kv_b.weight": tensor for name, tensor in tensors.items()
            if name.endswith("kv_b_proj.weight")}
    return kept | {name: tensor for name, tensor in of_latents(tensors).items()
                   if not name.endswith(("attn_k_b.weight", "attn_v_b.weight"))}


def test_an_older_file_of_deepseek_3_has_the_logits_of_transformers(tmp_path: Path):
    """Sizes of a head's keys and values, which are made of the latents by one product."""
    keys = {key: value for key, value in DEEPSEEK.items() if not key.endswith("_mla")} | {
        "attention.head_count_kv": 4, "attention.key_length": 24, "attention.value_length": 12}
    model = write_family(tmp_path / "folder", "deepseek 3")
    file = write_gguf_family(tmp_path / "m.gguf", model, "deepseek2", keys, of_whole_latents)
    assert_same_logits(file, model)


def of_fused_heads(tensors: Tensors) -> Tensors:
    """All queries, then all keys, then all values, instead of head by head."""
    return {name: tensor.view(4, 3, 16, -1).transpose(0, 1).reshape(tensor.shape)
            if "query_key_value" in name else tensor for name, tensor in tensors.items()}


def test_gpt_neox_has_the_logits_of_transformers(tmp_path: Path):
    model = write_family(tmp_path / "folder", "gpt-neox")
    file = write_gguf_family(tmp_path / "m.gguf", model, "gptneox", NEOX, of_fused_heads)
    assert_same_logits(file, model)


def of_neighbours(tensors: Tensors) -> Tensors:
    """Of Mixtral: queries and keys turn in neighbouring pairs."""
    return {name: tensor.view(-1, 2, 8, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
            if name.endswith(("q_proj.weight", "k_proj.weight")) else tensor
            for name, tensor in of_latents(tensors).items()}


def of_single_experts(tensors: Tensors) -> Tensors:
    """Of Mixtral, as files of before April 2024 have it: a tensor for each expert."""
    made: Tensors = {}
    for name, tensor in of_neighbours(tensors).items():
        kind = next((kind for kind in ("gate", "up", "down") if name.endswith(
            (f"ffn_{kind}_exps.weight", f"experts.{kind}_proj"))), None)
        layer = name.split(".")[1 if name.startswith("blk.") else 2] if kind else ""
        made |= {name: tensor} if kind is None else {
            f"blk.{layer}.ffn_{kind}.{expert}.weight": part for expert, part in enumerate(tensor)}
    return made


MIXTURE = SIZES | {"expert_used_count": 2, "expert_feed_forward_length": 24, "rope.freq_base": 1e4,
                   "attention.key_length": 16}
GLM = {"expert_count": 6, "expert_shared_count": 2, "leading_dense_block_count": 1,
       "expert_weights_scale": 1.5, "expert_weights_norm": True, "rope.dimension_count": 8,
       "block_count": 5, "nextn_predict_layers": 1,
       "attention.layer_norm_rms_epsilon": 1e-5}


@pytest.mark.parametrize(("variant", "architecture", "keys", "prepared"), [
    ("mixtral", "llama", {"expert_count": 4, "attention.layer_norm_rms_epsilon": 1e-5,
                          "rope.freq_base": 1e6}, of_neighbours),
    ("mixtral", "llama", {"expert_count": 4, "attention.layer_norm_rms_epsilon": 1e-5,
                          "rope.freq_base": 1e6}, of_single_experts),
    ("qwen 2 moe", "qwen2moe", {"expert_count": 5, "expert_shared_feed_forward_length": 40}, of_latents),
    ("qwen 3 moe", "qwen3moe", {"expert_count": 6, "attention.key_length": 24}, of_latents),
    ("glm 4 moe", "glm4moe", GLM, of_latents),
    ("ernie 4.5 moe", "ernie4_5-moe", {
        "expert_count": 6, "expert_shared_count": 2, "leading_dense_block_count": 1, "rope.freq_base": 5e5,
        "interleave_moe_layer_step": 1, "attention.layer_norm_rms_epsilon": 1e-5}, of_latents)])
def test_mixtures_have_the_logits_of_transformers(tmp_path: Path, variant: str, architecture: str,
                                                  keys: dict[str, Any], prepared: Any):
    changes = {"mlp_only_layers": []} if variant == "qwen 2 moe" else {}
    model = write_family(tmp_path / "folder", variant, **changes)
    file = write_gguf_family(tmp_path / "m.gguf", model, architecture, MIXTURE | keys, prepared)
    assert_same_logits(file, model)


def of_turned_experts(tensors: Tensors) -> Tensors:
    """Outputs come first, gate and up lie apart."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.transpose(1, 2).chunk(2, dim=1)
            part = f"blk.{name.split('.')[2]}."
            made |= {part + "ffn_gate_exps.weight": gate, part + "ffn_up_exps.weight": up}
        else:
            made[name] = tensor.transpose(1, 2) if name.endswith("experts.down_proj") else tensor
    return made


def test_llama_4_has_the_logits_of_transformers(tmp_path: Path):
    """With the chunks and the scale of queries that llama.cpp takes for granted."""
    model = write_family(tmp_path / "folder", "llama 4", attention_chunk_size=8192, floor_scale=8192,
                         attn_scale=0.1)
    file = write_gguf_family(tmp_path / "m.gguf", model, "llama4", LLAMA4, of_turned_experts)
    assert_same_logits(file, model)


def of_streams(tensors: Tensors) -> Tensors:
    """What opens and closes copies is stacked; the table of layers' inputs has all tokens."""
    ends = {f"model.{which}_projections.weight": torch.stack([
        tensors[f"model.{which}_projections.{index}.weight"] for index in range(3)])
        for which in ("altup", "altup_unembed")}
    kept = {name: tensor for name, tensor in tensors.items() if "_projections." not in name}
    inputs = kept["model.embed_tokens_per_layer.weight"]
    inputs = torch.cat((inputs, inputs[:1].expand(16, -1)))
    return kept | ends | {"model.embed_tokens_per_layer.weight": inputs}


def test_gemma_3n_has_the_logits_of_transformers(tmp_path: Path):
    """Copies of the hidden state, mlps that are cut, inputs of layers, shared keys."""
    model = write_family(tmp_path / "folder", "gemma 3n")
    scales = np.array([1.2815515, -0.5244005, *[-math.inf] * 4], dtype=np.float32)
    file = write_gguf_family(tmp_path / "m.gguf", model, "gemma3n",
                             GEMMA3N | {"activation_sparsity_scale": scales}, of_streams)
    assert_same_logits(file, model)


@pytest.mark.parametrize(("variant", "keys"), [
    ("gemma 4", GEMMA4 | {"attention.head_count_kv": [2, 2, 2, 1]}),
    ("gemma 4 small", SMALL),
    ("gemma 4 mixture", GEMMA4 | {"expert_count": 5, "expert_used_count": 2,
                                  "expert_feed_forward_length": 24})])
def test_gemma_4_has_the_logits_of_transformers(tmp_path: Path, variant: str, keys: dict[str, Any]):
    """Heads by layer, values that are keys, inputs of layers, shared keys, experts beside the mlp."""
    model = write_family(tmp_path / "folder", variant)
    file = write_gguf_family(tmp_path / "m.gguf", model, "gemma4", keys, of_router,
                             {"rope_freqs.weight": [1.0] * 4 + [1e30] * 12})
    assert_same_logits(file, model)
