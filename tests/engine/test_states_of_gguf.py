"""GGUF files of families with states, whose tensors the converter renames, reorders or computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.files import ModelLoadError
from model.model_config import ModelConfig
from tests.engine.test_families_of_gguf import SIZES, assert_same_logits, of_latents
from tests.helpers.family_models import write_family
from tests.helpers.gguf_families import Tensors, write_gguf_family

LFM2 = SIZES | {"attention.head_count_kv": [0, 2, 0, 2], "shortconv.l_cache": 3, "rope.freq_base": 1e6,
                "attention.layer_norm_rms_epsilon": 1e-5}
QWEN = SIZES | {
    "attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 8,
    "rope.freq_base": 1e4, "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 2,
    "ssm.time_step_rank": 4, "ssm.inner_size": 96, "full_attention_interval": 4,
    "attention.recurrent_layers": [True, False, True, True]}
NEXT = QWEN | {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 24,
               "expert_shared_feed_forward_length": 40}
MAMBA = SIZES | {"ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 2, "ssm.inner_size": 128,
                 "ssm.time_step_rank": 8}
GRANITE = MAMBA | {
    "attention.head_count_kv": [0, 2, 0, 0], "attention.scale": 0.12, "embedding_scale": 3.0,
    "residual_scale": 0.6, "logit_scale": 0.5, "rope.scaling.finetuned": False,
    "expert_shared_feed_forward_length": 80}
NEMOTRON = MAMBA | {
    "block_count": 5, "attention.head_count_kv": [0, 0, 2, 0, 0], "feed_forward_length": [0, 80, 0, 0, 80],
    "attention.key_length": 16, "attention.layer_norm_rms_epsilon": 1e-5}
NEMOTRON_3 = NEMOTRON | {
    "block_count": 6, "attention.head_count_kv": [0, 0, 2, 0, 0, 2], "nextn_predict_layers": 1,
    "feed_forward_length": [0, 24, 0, 0, 24, 24], "expert_count": 6, "expert_used_count": 2,
    "expert_feed_forward_length": 24, "expert_shared_feed_forward_length": 40, "expert_shared_count": 1,
    "expert_weights_norm": True, "expert_weights_scale": 1.5, "expert_group_count": 1, "moe_latent_size": 32}
FALCON = MAMBA | {"ssm.inner_size": 96, "ssm.time_step_rank": 6, "attention.key_length": 16,
                  "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e5}
KIMI = SIZES | {
    "attention.head_count_kv": [0, 1, 0, 0], "attention.layer_norm_rms_epsilon": 1e-5, "kda.head_dim": 24,
    "ssm.conv_kernel": 4, "attention.key_length": 48, "attention.key_length_mla": 24,
    "attention.value_length_mla": 12, "attention.kv_lora_rank": 40, "rope.dimension_count": 8,
    "rope.freq_base": 1e4, "leading_dense_block_count": 1, "expert_count": 8, "expert_used_count": 2,
    "expert_feed_forward_length": 24, "expert_shared_count": 1, "expert_weights_scale": 2.5,
    "expert_group_used_count": 1, "expert_gating_func": 2}
KIMI_DELTA = {"head_dim": 24, "num_heads": 4, "short_conv_kernel_size": 4, "full_attn_layers": [2],
              "kda_layers": [1, 3, 4]}


def of_states(tensors: Tensors) -> Tensors:
    """What all have in common: decays instead of their logarithms, convolutions without an axis of 1."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("A_log"):
            tensor = -tensor.exp()
        if name.endswith((".A_log", ".D")) and "linear_attn" not in name:
            tensor = tensor.unsqueeze(1)
        if name.endswith(("conv1d.weight", "conv.conv.weight")):
            tensor = tensor.squeeze(1)
        if name.endswith(("mixer.norm.weight", "mamba.norm.weight")):
            tensor = tensor.view(2, -1)
        made[name.replace(".dt_bias", ".dt_proj.bias")] = tensor
    return made


def of_norms(tensors: Tensors) -> Tensors:
    """1 is added to norms, but not to those of the delta rule's heads."""
    return {name: tensor + 1 if name.endswith("norm.weight") and "linear_attn" not in name else tensor
            for name, tensor in tensors.items()}


def of_delta_heads(tensors: Tensors) -> Tensors:
    """Four value heads of two key heads: 0 1 2 3 become 0 2 1 3."""
    def tiled(tensor: torch.Tensor, dim: int = 0) -> torch.Tensor:
        heads = tensor.unflatten(dim, (2, 2, -1))
        return heads.transpose(dim, dim + 1).flatten(dim, dim + 2)

    made: Tensors = {}
    for name, tensor in of_states(of_norms(tensors)).items():
        part = name.rpartition("linear_attn.")[2]
        if part in ("in_proj_qkv.weight", "conv1d.weight"):
            tensor = torch.cat((tensor[:64], tiled(tensor[64:])))
        elif part in ("in_proj_z.weight", "in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_proj.bias"):
            tensor = tiled(tensor)
        elif part == "out_proj.weight":
            tensor = tiled(tensor, 1)
        made[name] = tensor
    return made


def of_key_heads(tensors: Tensors) -> Tensors:
    """q, k, v of all heads, then z; experts stacked."""
    made: Tensors = {}
    for name, tensor in of_states(of_norms(tensors)).items():
        block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        if name.endswith("in_proj_qkvz.weight"):
            parts = tensor.view(2, -1, 64).split((16, 16, 48, 48), dim=1)
            q, k, v, z = (part.flatten(0, 1) for part in parts)
            made |= {block + "attn_qkv.weight": torch.cat((q, k, v)), block + "attn_gate.weight": z}
        elif name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            made |= {block + "ffn_gate_exps.weight": gate, block + "ffn_up_exps.weight": up}
        else:
            made[name] = tensor[0] if name.endswith("shared_expert_gate.weight") else tensor
    return made


def of_shared_mlp(tensors: Tensors) -> Tensors:
    made: Tensors = {}
    for name, tensor in of_states(tensors).items():
        block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        if name.endswith("shared_mlp.input_linear.weight"):
            gate, up = tensor.chunk(2)
            made |= {block + "ffn_gate.weight": gate, block + "ffn_up.weight": up}
        elif name.endswith("shared_mlp.output_linear.weight"):
            made[block + "ffn_down.weight"] = tensor
        else:
            made[name] = tensor
    return made


def of_backbone(tensors: Tensors) -> Tensors:
    """transformers has other names for them than its files."""
    return of_states({name.replace("model.", "backbone.", 1): tensor for name, tensor in tensors.items()})


def of_experts(tensors: Tensors) -> Tensors:
    made: Tensors = {}
    for name, tensor in of_backbone(tensors).items():
        block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        part = next((part for part in ("up", "down") if name.endswith(f"experts.{part}_proj")), None)
        name = f"{block}ffn_{part}_exps.weight" if part else name
        made[block + "exp_probs_b.bias" if name.endswith("correction_bias") else name] = tensor
    return made


def of_multipliers(tensors: Tensors) -> Tensors:
    """Falcon-H1's are in the weights; one of its norms does not end in .weight."""
    factors = {"down_proj": 0.6, "gate_proj": 0.8, "k_proj": 0.7 * 1.1, "q_proj": 1.1, "v_proj": 1.1,
               "o_proj": 0.9, "mamba.out_proj": 0.8, "lm_head": 0.5, "embed_tokens": 3.0}
    parts = torch.tensor((0.7, 0.5, 0.8, 0.6, 0.9)).repeat_interleave(torch.tensor((96, 96, 32, 32, 6)))
    made: Tensors = {}
    for name, tensor in of_states(tensors).items():
        if name.endswith("pre_ff_layernorm.weight"):
            name = f"blk.{name.split('.')[2]}.ffn_norm"
        factor = next((factor for part, factor in factors.items() if name.endswith(part + ".weight")), 1.0)
        made[name] = tensor * (1.3 * parts[:, None] if name.endswith("mamba.in_proj.weight") else factor)
    return made


def of_channels(tensors: Tensors) -> Tensors:
    """A convolution each for queries, keys and values, with two axes of 1; decays instead of logarithms."""
    made: Tensors = {}
    for name, tensor in of_latents(tensors).items():
        name = name.replace(".forget_gate", "").replace(".dt_bias", ".dt_proj.bias")
        if name.endswith("conv1d.weight"):
            made |= {name.replace("conv1d", f"{part}_conv1d"): weight.transpose(0, 1).unsqueeze(2)
                     for part, weight in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            made[name] = -tensor.exp() if name.endswith("A_log") else tensor
    return made


def test_bamba_by_the_architecture_of_granite_is_an_error():
    keys = {key: value for key, value in GRANITE.items() if key != "attention.scale"}
    metadata = {"general.architecture": "granitehybrid", "tokenizer.ggml.tokens": ["x"] * 96,
                **{f"granitehybrid.{key}": value for key, value in keys.items()}}
    with pytest.raises(ModelLoadError, match="heads of Bamba as if all of them were turned; load its folder"):
        ModelConfig.from_gguf(metadata, lambda name: None, Path("m.gguf"))


@pytest.mark.parametrize(("variant", "architecture", "keys", "prepared", "changes"), [
    ("lfm 2", "lfm2", LFM2, of_states, {"conv_bias": False}),
    ("qwen 3.5", "qwen35", QWEN, of_delta_heads, {}),
    ("qwen 3 next", "qwen3next", NEXT, of_key_heads, {}),
    ("granite 4", "granitehybrid", GRANITE, of_shared_mlp, {}),
    ("mamba 2", "mamba2", MAMBA | {
        "attention.head_count": 0, "attention.head_count_kv": 0, "feed_forward_length": 0,
        "attention.layer_norm_rms_epsilon": 1e-5}, of_states, {}),
    ("nemotron h", "nemotron_h", NEMOTRON, of_backbone, {}),
    ("nemotron 3 latent", "nemotron_h_moe", NEMOTRON_3, of_experts, {"n_group": 1}),
    ("kimi linear", "kimi-linear", KIMI, of_channels, {
        "num_expert_group": 1, "topk_group": 1, "linear_attn_config": KIMI_DELTA}),
    ("falcon h1", "falcon-h1", FALCON, of_multipliers, {"rope_parameters": {
        "rope_type": "default", "rope_theta": 1e5}})])
def test_a_file_has_the_logits_of_transformers(tmp_path: Path, variant: str, architecture: str,
                                               keys: dict[str, Any], prepared: Any, changes: dict[str, Any]):
    """Value heads in tiles, inputs apart, multipliers in the weights: as llama.cpp's converter does it."""
    model = write_family(tmp_path / "folder", variant, **changes)
    assert_same_logits(write_gguf_family(tmp_path / "m.gguf", model, architecture, keys, prepared), model)
