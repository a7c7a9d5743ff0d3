"""GGUF files with the keys, names and orders of rows that llama.cpp's converter gives small models of each
family, against transformers. Its files themselves were tried by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.test_families_of_gguf import DEEPSEEK, SIZES, assert_same_logits, of_latents
from tests.helpers.family_models import write_family
from tests.helpers.gguf_families import Tensors, write_gguf_family
from tests.helpers.renamed_models import RENAMED, of_neighbours, renamed, write_renamed

WIDE = {"attention.key_length": 16, "rope.freq_base": 1e4}
EXPERTS = {"expert_used_count": 2, "expert_feed_forward_length": 24}
EPS = {"attention.layer_norm_rms_epsilon": 1e-5}
GRANITE = {"attention.scale": 0.12, "embedding_scale": 3.0, "residual_scale": 0.6, "logit_scale": 0.5,
           "rope.dimension_count": 16, "rope.freq_base": 1e4}
FALCON = {"attention.layer_norm_epsilon": 1e-5}
CORRECTED = EXPERTS | {"expert_gating_func": 2, "expert_weights_norm": True, "leading_dense_block_count": 1}
LATENT = {key: value for key, value in DEEPSEEK.items() if not key.startswith(("expert", "rope.scaling"))}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 512,
            "short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0] * 8}
BLOCK = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class File:
    """turns_heads: queries and keys are in the order of neighbouring pairs; joins: those and values are one
    tensor, and gate and up of experts."""

    architecture: str
    keys: Mapping[str, Any]
    turns_heads: bool = False
    joins: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


FILES = {
    "seed-oss": File("seed_oss", WIDE),
    "gemma": File("gemma", WIDE),
    "olmo 3": File("olmo2", EPS | {
        "attention.head_count_kv": 4, "rope.freq_base": 1e4, "attention.sliding_window": 20,
        "attention.sliding_window_pattern": [True, True, True, False], "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}),
    "glm": File("chatglm", WIDE | {"attention.layer_norm_rms_epsilon": 1.5625e-7, "rope.dimension_count": 8}),
    "glm 4": File("glm4", WIDE | {"attention.layer_norm_rms_epsilon": 1.5625e-7, "rope.dimension_count": 8}),
    "cohere 2": File("cohere2", {
        "attention.layer_norm_epsilon": 1e-5, "attention.sliding_window": 20, "logit_scale": 0.25,
        "rope.dimension_count": 16, "rope.freq_base": 1e4, "rope.scaling.type": "none"}),
    "exaone 4": File("exaone4", EPS | {
        "attention.sliding_window": 20, "attention.sliding_window_pattern": [True, True, True, False],
        "rope.freq_base": 5e5}),
    "ernie 4.5": File("ernie4_5", WIDE | EPS | {"rope.freq_base": 5e5}),
    "starcoder 2": File("starcoder2", {"attention.layer_norm_epsilon": 1e-5, "rope.freq_base": 1e4},
                        changes={"sliding_window": 4096}),
    "hunyuan": File("hunyuan-dense", WIDE | EPS),
    "hunyuan moe": File("hunyuan-moe", WIDE | EPS | {
        "expert_count": 5, "expert_used_count": 2, "expert_feed_forward_length": 80,
        "expert_shared_feed_forward_length": 80, "expert_shared_count": 1}),
    "stablelm": File("stablelm", {"rope.dimension_count": 4, "use_parallel_residual": True,
                                  "attention.layer_norm_epsilon": 1e-5}),
    "stablelm, parallel": File("stablelm", {"rope.dimension_count": 4, "use_parallel_residual": True,
                                            "attention.layer_norm_epsilon": 1e-5}),
    "nemotron": File("nemotron", WIDE | EPS | {
        "attention.layer_norm_epsilon": 1e-5, "rope.dimension_count": 8, "rope.scaling.type": "none"}),
    "jais 2": File("jais2", {"attention.layer_norm_epsilon": 1e-5, "rope.freq_base": 1e4,
                             "rope.dimension_count": 16}),
    "apertus": File("apertus", EPS | {"rope.freq_base": 5e5, "rope.dimension_count": 16}),
    "muse glimmer": File("muse-glimmer", WIDE | EPS | {
        "final_logit_softcapping": 4.0, "logit_scale": 0.5, "attention.sliding_window": 20,
        "attention.sliding_window_pattern": [True, False, True, False]}, turns_heads=True),
    "granite": File("granite", GRANITE | {  # of Granite 4 without Mamba 2
        "attention.head_count_kv": [2, 2, 2, 2], "expert_count": 0, "rope.scaling.finetuned": True},
        turns_heads=True),
    "granite moe": File("granitemoe", GRANITE | EXPERTS | {"expert_count": 5}, turns_heads=True),
    "granite swash": File("granite_swa", GRANITE | EPS | {
        "attention.sliding_window": 20, "attention.sliding_window_pattern": [False, True, True, True],
        "attention.rope_pattern": [False, True, True, True]}, turns_heads=True,
        changes={"layer_rope_theta": [0, 1e4, 1e4, 1e4]}),
    "granite swash moe": File("granite_swa", GRANITE | EXPERTS | {
        "attention.sliding_window": 20, "attention.sliding_window_pattern": [False, True, True, True],
        "expert_count": 5, "expert_shared_feed_forward_length": 40}, turns_heads=True, joins=True,
        changes={"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "arcee": File("arcee", WIDE | EPS | {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
        turns_heads=True),
    "phi": File("phi2", {"attention.head_count_kv": 4, "attention.layer_norm_epsilon": 1e-5,
                         "rope.dimension_count": 8}, joins=True),
    "phi moe": File("phimoe", EPS | {
        "expert_count": 5, "expert_used_count": 2, "rope.freq_base": 1e4, "rope.dimension_count": 16,
        "rope.scaling.attn_factor": 1.19, "rope.scaling.original_context_length": 256},
        changes={"router_jitter_noise": 0.01}),
    "qwen 2.5 vl": File("qwen2vl", EPS | {"rope.freq_base": 1e4, "rope.dimension_sections": [2, 3, 3, 0]}),
    "qwen 3 vl": File("qwen3vl", WIDE | {"rope.dimension_sections": [2, 3, 3, 0], "n_deepstack_layers": 1}),
    "qwen 3 vl moe": File("qwen3vlmoe", WIDE | EXPERTS | {"expert_count": 5, "n_deepstack_layers": 1}),
    "qwen 3 moe": File("qwen3moe", EXPERTS | {"attention.key_length": 24, "rope.freq_base": 1e4,
                                              "expert_count": 6}, joins=True),
    "olmoe": File("olmoe", EPS | EXPERTS | {
        "attention.head_count_kv": 4, "rope.freq_base": 1e4, "expert_count": 5}),
    "minimax m2": File("minimax-m2", WIDE | CORRECTED | {
        "feed_forward_length": 24, "rope.freq_base": 5e6, "rope.dimension_count": 8, "expert_count": 5}),
    "dots 1": File("dots1", WIDE | CORRECTED | {
        "expert_count": 8, "expert_group_count": 4, "expert_group_used_count": 2, "expert_shared_count": 2,
        "expert_weights_scale": 2.5}),
    "exaone moe": File("exaone-moe", WIDE | EPS | CORRECTED | {
        "attention.sliding_window": 20, "attention.sliding_window_pattern": [True, True, True, False],
        "expert_count": 6, "expert_shared_count": 1, "expert_weights_scale": 2.5,
        "rope.scaling.type": "none"}),
    "afmoe": File("afmoe", WIDE | EPS | EXPERTS | {
        "attention.sliding_window": 20, "expert_count": 6, "expert_shared_count": 2,
        "expert_weights_scale": 1.5, "leading_dense_block_count": 1}),
    "solar open": File("glm4moe", WIDE | EPS | CORRECTED | {
        "rope.freq_base": 1e6, "expert_count": 4, "expert_shared_count": 1, "leading_dense_block_count": 0,
        "rope.dimension_count": 16, "expert_weights_scale": 1.5}),
    "glm 4.7 flash": File("deepseek2", DEEPSEEK | EPS | CORRECTED | {  # with a layer that guesses ahead
        "block_count": 5, "nextn_predict_layers": 1, "expert_gating_func": None, "rope.scaling.type": "none",
        "expert_count": 5, "expert_group_count": 1, "expert_group_used_count": 1,
        "expert_weights_scale": 1.8}),
    "youtu": File("deepseek2", LATENT | {"leading_dense_block_count": 4}),
    "mistral 4": File("mistral4", DEEPSEEK | {
        "expert_gating_func": None, "expert_weights_scale": 1.5, "attention.temperature_scale": 0.1,
        "attention.temperature_length": 32}),
    "minicpm 3": File("minicpm3", EPS | {
        "attention.head_count_kv": 4, "attention.key_length": 32, "attention.q_lora_rank": 24,
        "attention.kv_lora_rank": 40, "rope.dimension_count": 16}, changes={
            "scale_emb": 12, "dim_model_base": 256, "rope_parameters": LONGROPE}),
    "hy 3": File("hy_v3", WIDE | EPS | EXPERTS | {
        "expert_count": 5, "expert_shared_feed_forward_length": 24, "expert_weights_scale": 1.5,
        "expert_weights_norm": True, "expert_gating_func": 2}),
    "laguna": File("laguna", WIDE | CORRECTED | {
        "attention.head_count": [4, 6, 4, 2], "attention.sliding_window": 20, "expert_count": 5,
        "attention.sliding_window_pattern": [False, True, True, False], "expert_weights_scale": 1.5,
        "expert_shared_feed_forward_length": 40, "rope.dimension_count": 8, "rope.freq_base": 5e5,
        "rope.dimension_count_swa": 16, "rope.freq_base_swa": 1e4, "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}, changes={
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": {
                    "rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "partial_rotary_factor": 0.5,
                    "original_max_position_embeddings": 32}}}),
    "mellum": File("mellum", WIDE | EXPERTS | {
        "rope.freq_base_swa": 5e3, "expert_count": 5, "attention.sliding_window": 20,
        "attention.sliding_window_pattern": [True, False, True, False], "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}, changes={
            "mlp_layer_types": ["sparse"] * 4, "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}, "full_attention": {
                    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                    "original_max_position_embeddings": 32}}}),
    "cohere 2 moe": File("cohere2moe", WIDE | EPS | {
        "attention.sliding_window": 20, "attention.sliding_window_pattern": [False, True, True, False],
        "logit_scale": 0.25, "rope.scaling.type": "none", "leading_dense_block_count": 1,
        "feed_forward_length": 72, "expert_feed_forward_length": 80, "expert_shared_count": 1,
        "expert_count": 5, "expert_used_count": 2, "expert_gating_func": 2, "expert_weights_norm": True}),
    "exaone": File("exaone", {"attention.key_length": 16, "rope.freq_base": 5e5, "rope.dimension_count": 16,
                              "attention.layer_norm_rms_epsilon": 1e-6}),
    "baichuan": File("baichuan", WIDE | {"attention.head_count_kv": 4}, turns_heads=True),
    "internlm": File("llama", WIDE | {"attention.head_count_kv": 4}, turns_heads=True),
    "pangu": File("pangu-embedded", WIDE),
    "maincoder": File("maincoder", WIDE, turns_heads=True),
    "xverse": File("xverse", WIDE | {"attention.head_count_kv": 4}, turns_heads=True),
    "orion": File("orion", {"attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": None}),
    "qwen": File("qwen", {"attention.head_count_kv": None, "feed_forward_length": 160, "rope.freq_base": 1e4,
                          "rope.dimension_count": 16}, joins=True),
    "open elm": File("openelm", WIDE | {
        "attention.head_count": [4] * 4, "attention.head_count_kv": [2] * 4, "feed_forward_length": [80] * 4},
        joins=True),
    "olmo": File("olmo", {"attention.layer_norm_epsilon": 1e-5, "rope.freq_base": 1e4}, turns_heads=True),
    "code shell": File("codeshell", FALCON | {"rope.freq_base": 1e4}, joins=True),
    "plm": File("plm", {
        "attention.head_count_kv": 4, "attention.key_length": 24, "attention.value_length": 12,
        "attention.kv_lora_rank": 40, "rope.dimension_count": 8, "rope.freq_base": 1e4}),
    "small thinker": File("smallthinker", WIDE | EXPERTS | {
        "expert_count": 5, "expert_gating_func": 2, "attention.sliding_window": 20},
        changes={"sliding_window": 4096}),
    "spark": File("spark2_5", WIDE | {
        "attention.sliding_window": 20, "attention.sliding_window_pattern": [True, True, True, False],
        "rope.freq_base_swa": 1e4, "rope.dimension_count": 16, "rope.dimension_count_swa": 16}),
    "gpt-2": File("gpt2", FALCON | {"attention.head_count_kv": None},
                  changes={"scale_attn_by_inverse_layer_idx": False}),
    "gpt big code": File("starcoder", FALCON | {"attention.head_count_kv": 1}),
    "falcon": File("falcon", FALCON | {"attention.head_count_kv": 1}),
    "falcon 40b": File("falcon", FALCON),
    "internlm 2": File("internlm2", WIDE | {"rope.freq_base": 1e6}, turns_heads=True),
    "minicpm": File("minicpm", GRANITE | {"attention.scale": None}, turns_heads=True),
    "ling 2": File("bailingmoe2", WIDE | EPS | CORRECTED | {
        "expert_count": 8, "expert_group_count": 2, "expert_group_used_count": 1, "rope.dimension_count": 8,
        "expert_shared_count": 1, "expert_weights_scale": 1.5}, joins=True),
    "ling": File("bailingmoe", WIDE | EXPERTS | {
        "expert_count": 5, "expert_shared_count": 2, "expert_weights_scale": 1.0, "expert_weights_norm": True,
        "leading_dense_block_count": 0}, turns_heads=True),
    "deci": File("deci", {
        "attention.head_count": [4, 0, 4, 4], "attention.head_count_kv": [2, 0, 1, 2],
        "feed_forward_length": [256, 256, 256, 0], "attention.key_length": 16, "rope.freq_base": 5e5},
        turns_heads=True),
    "deepseek": File("deepseek", WIDE | EXPERTS | {
        "expert_count": 5, "expert_gating_func": 1, "expert_shared_count": 2, "expert_weights_scale": 1.0,
        "leading_dense_block_count": 1, "rope.scaling.type": "none"}, turns_heads=True),
}


def converted(tensors: Tensors, file: File) -> Tensors:
    """What all have in common: experts stacked with gate and up apart, names without a prefix."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if "vision" in name or "visual" in name:
            continue
        name = name.replace("language_model.", "")
        found = BLOCK.match(name)
        block = f"blk.{found[1]}." if found else ""
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            made |= {block + "ffn_gate_up_exps.weight": tensor} if file.joins else {
                block + "ffn_gate_exps.weight": gate, block + "ffn_up_exps.weight": up}
        elif name.endswith("experts.down_proj"):
            made[block + "ffn_down_exps.weight"] = tensor
        elif name.endswith(("router.weight", "router.gate.weight", "mlp.gate.weight", "mlp.gate.wg.weight")):
            made[block + "ffn_gate_inp.weight"] = tensor
        elif name.endswith(("correction_bias", "expert_bias")):
            made[block + "exp_probs_b.bias"] = tensor
        else:
            made[name] = tensor
    return made


def joined(tensors: Tensors) -> Tensors:
    made = {name: tensor for name, tensor in tensors.items() if not re.search(r"\.[qkv]_proj\.", name)}
    for name in tensors:
        if "q_proj." in name:
            block, end = f"blk.{BLOCK.match(name)[1]}.", name.rpartition(".")[2]
            made[f"{block}attn_qkv.{end}"] = torch.cat(
                [tensors[name.replace("q_proj", f"{kind}_proj")] for kind in "qkv"])
    return made


def of_family(tensors: Tensors, variant: str) -> Tensors:
    """What only some have."""
    if variant == "gemma":
        tensors = {name: tensor + 1 if name.endswith("norm.weight") else tensor
                   for name, tensor in tensors.items()}
    if variant == "nemotron":
        return {name: tensor + 1 if name.endswith("norm.weight") else tensor
                for name, tensor in tensors.items()}
    if variant.startswith("falcon"):
        kv_heads = 2 if variant.endswith("b") else 1
        return {name: torch.cat([part.flatten(0, 2) for part in tensor.unflatten(0, (kv_heads, -1, 16)).split(
            (4 // kv_heads, 1, 1), dim=1)]) if "query_key_value" in name else tensor
                for name, tensor in tensors.items()}
    if variant == "gpt-2":
        return {name: tensor.T if re.search(r"\.c_(attn|proj|fc)\.weight", name) else tensor
                for name, tensor in tensors.items()}
    if variant == "apertus":  # numbers of the mlps are in the metadata
        return {name: tensor for name, tensor in tensors.items() if "act_fn" not in name}
    if variant == "stablelm, parallel":
        norms = [name for name in tensors if re.search(r"layernorm\.norms\.0\.", name)]
        made = {name: tensor for name, tensor in tensors.items() if ".norms." not in name}
        for name in norms:
            heads = [tensors[other] for other in tensors if other.startswith(name.split(".norms.")[0] + ".")]
            kind = "q" if "q_layernorm" in name else "k"
            made[f"blk.{BLOCK.match(name)[1]}.attn_{kind}_norm.weight"] = torch.stack(heads)
        return made
    if variant == "muse glimmer":
        return of_muse_glimmer(tensors)
    if variant.startswith("granite swash"):
        return block_named(tensors, {"self_attn.sinks": "attn_sinks.weight",
                                     "shared_mlp.input_linear.weight": "ffn_up_shexp.weight",
                                     "shared_mlp.output_linear.weight": "ffn_down_shexp.weight"})
    if variant == "spark":
        return block_named(tensors, {"self_attn.o_proj.gate.weight": "attn_gate.weight",
                                     "self_attn.o_proj.out.weight": "attn_output.weight"})
    if variant == "laguna":
        return block_named(tensors, {"self_attn.g_proj.weight": "attn_gate.weight"})
    return of_latents(tensors) if variant in ("glm 4.7 flash", "youtu", "mistral 4") else tensors


def block_named(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """The tensors of layers under these names."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        found = BLOCK.match(name)
        own = names.get(name[found.end():]) if found else None
        made[name if own is None else f"blk.{found[1]}.{own}"] = tensor
    return made


def of_muse_glimmer(tensors: Tensors) -> Tensors:
    """1 is added to norms of layers, and a norm of queries has the factor of the scores as its weights."""
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
             "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
             "self_attn.gate_proj": "attn_gate"}
    made: Tensors = {}
    for name, tensor in tensors.items():
        found = BLOCK.match(name)
        part = name[found.end():].removesuffix(".weight") if found else ""
        if part in names:
            made[f"blk.{found[1]}.{names[part]}.weight"] = tensor + ("norm" in part)
        else:
            made[name] = tensor
        if part == "self_attn.q_proj":
            made |= {f"blk.{found[1]}.attn_q_norm.weight": torch.full((16,), 3.87),
                     f"blk.{found[1]}.attn_k_norm.weight": torch.ones(16)}
    return made


def extra_tensors(variant: str, folder: Path) -> dict[str, list[float]]:
    """The divisors of RoPE, where it is Llama 3's or LongRoPE."""
    from model.model_config import ModelConfig

    if variant not in ("apertus", "exaone", "exaone 4", "deci", "minicpm 3", "phi moe"):
        return {}
    rope = ModelConfig.from_folder(folder).spec.layers[0].attention.rope
    if rope.long is not None:
        return {"rope_factors_short.weight": list(rope.divisors),
                "rope_factors_long.weight": list(rope.long.divisors)}
    return {"rope_freqs.weight": list(rope.divisors)}


@pytest.mark.parametrize("variant", FILES)
def test_a_file_of_each_family_has_the_logits_of_transformers(tmp_path: Path, variant: str):
    file, folder = FILES[variant], tmp_path / "folder"
    is_renamed = variant in RENAMED
    model = (write_renamed(folder, variant, **file.changes) if is_renamed
             else write_family(folder, variant, **file.changes))
    keys = {key: value for key, value in (SIZES | dict(file.keys)).items() if value is not None}
    metadata: dict[str, Any] = {}
    if variant == "apertus":
        metadata = {f"xielu.alpha_{kind}": np.array(
            [getattr(layer.mlp.act_fn, f"alpha_{kind}").item() for layer in model.model.layers],
            dtype=np.float32) for kind in "pn"}

    def prepared(tensors: Tensors) -> Tensors:
        if variant == "deci":
            tensors = renamed(RENAMED[variant], tensors)
        if variant in ("deepseek", "ling", "small thinker"):
            tensors = stacked(tensors)
        made = of_family(converted(tensors, file), variant)
        made = of_neighbours(made) if file.turns_heads else made
        return joined(made) if file.joins else made

    path = write_gguf_family(tmp_path / "m.gguf", model, file.architecture, keys, prepared,
                             extra_tensors(variant, folder), metadata)
    assert_same_logits(path, model)


def stacked(tensors: Tensors) -> Tensors:
    """Experts that have a tensor each as one."""
    made, found = {}, re.compile(r"(.*experts)\.(\d+)\.(gate|up|down)_proj\.weight")
    for name, tensor in tensors.items():
        match = found.match(name)
        if match is None:
            made[name] = tensor
        elif match[2] == "0":
            block = f"blk.{BLOCK.match(name)[1]}."
            made[f"{block}ffn_{match[3]}_exps.weight"] = torch.stack([
                tensors[f"{match[1]}.{index}.{match[3]}_proj.weight"] for index in range(5)])
    return made
