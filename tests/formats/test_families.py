"""Configs of families as Specs: of folders and of GGUF files, and the names that their tensors have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.families.gguf_keys import config_of
from model.families.names import GGUF, HUGGING_FACE, located
from model.families.registry import families, family_of_gguf
from model.families.rope import frequencies
from model.families.spec import Rope, Spec
from model.files import ModelLoadError
from model.model_config import ModelConfig

SIZES = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
         "rms_norm_eps": 1e-6, "rope_theta": 20000.0, "head_dim": 32}
GGUF_KEYS = {"block_count": 6, "context_length": 512, "embedding_length": 64, "feed_forward_length": 96,
             "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 32,
             "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 20000.0}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": ({"architectures": ["LlamaForCausalLM"]}, {"rope.dimension_count": 32}),
    "mistral3": ({"architectures": ["Ministral3ForCausalLM"], "rope_parameters": {
        "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 32, "mscale": 1.0,
        "mscale_all_dim": 1.0, "rope_theta": 20000.0, "llama_4_scaling_beta": 0.1}},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 16.0, "attention.temperature_scale": 0.1,
         "rope.scaling.original_context_length": 32, "rope.scaling.yarn_log_multiplier": 1.0}),
    "qwen2": ({"architectures": ["Qwen2ForCausalLM"]}, {}),
    "qwen3": ({"architectures": ["Qwen3ForCausalLM"]}, {}),
    "qwen3moe": ({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 24, "norm_topk_prob": True},
                 {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 24}),
    "gemma2": ({"architectures": ["Gemma2ForCausalLM"], "sliding_window": 16, "query_pre_attn_scalar": 32,
                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
               {"attention.sliding_window": 16, "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0}),
    "gemma3": ({"architectures": ["Gemma3ForCausalLM"], "sliding_window": 16, "query_pre_attn_scalar": 32,
                "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
               {"attention.sliding_window": 16, "rope.freq_base_swa": 1e4, "rope.scaling.type": "linear",
                "rope.scaling.factor": 8.0}),
    "phi3": ({"architectures": ["Phi3ForCausalLM"], "original_max_position_embeddings": 64, "rope_scaling": {
        "type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}},
        {"rope.scaling.original_context_length": 64}),
    "gemma4": ({"architectures": ["Gemma4ForConditionalGeneration"], "global_head_dim": 64,
                "num_global_key_value_heads": 1, "attention_k_eq_v": True, "final_logit_softcapping": 9.0,
                "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 8,
                "top_k_experts": 2, "moe_intermediate_size": 24, "sliding_window": 16, "rope_parameters": {
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": {
                        "rope_type": "proportional", "rope_theta": 20000.0, "partial_rotary_factor": 0.25}}},
               {"attention.key_length": 64, "attention.key_length_swa": 32, "rope.freq_base_swa": 1e4,
                "attention.head_count_kv": [2, 2, 2, 2, 2, 1], "final_logit_softcapping": 9.0,
                "attention.sliding_window": 16, "attention.shared_kv_layers": 0,
                "attention.sliding_window_pattern": [True] * 5 + [False], "expert_count": 8,
                "embedding_length_per_layer_input": 0, "expert_used_count": 2,
                "expert_feed_forward_length": 24, "rope.dimension_count": 64}),
    "gemma4, small": ({
        "architectures": ["Gemma4ForCausalLM"], "global_head_dim": 64, "sliding_window": 16,
        "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
        "layer_types": ["sliding_attention", "full_attention"] * 3, "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": {
                "rope_type": "proportional", "rope_theta": 20000.0, "partial_rotary_factor": 0.25}}},
        {"attention.key_length": 64, "attention.key_length_swa": 32, "rope.freq_base_swa": 1e4,
         "attention.head_count_kv": 2, "attention.sliding_window": 16, "attention.shared_kv_layers": 2,
         "attention.sliding_window_pattern": [True, False] * 3, "embedding_length_per_layer_input": 8,
         "feed_forward_length": [96, 96, 96, 96, 192, 192]}),
    "deepseek2": ({
        "architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 32, "q_lora_rank": 24, "n_group": 4,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 8,
        "topk_group": 2, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "rope_scaling": {
            "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0,
            "mscale_all_dim": 1.0}},
        {"attention.head_count_kv": 1, "attention.key_length": 40, "attention.key_length_mla": 24,
         "attention.value_length_mla": 16, "attention.q_lora_rank": 24, "attention.kv_lora_rank": 32,
         "rope.dimension_count": 8, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
         "rope.scaling.original_context_length": 32, "rope.scaling.yarn_log_multiplier": 0.1,
         "leading_dense_block_count": 1, "expert_count": 8, "expert_used_count": 2,
         "expert_feed_forward_length": 24, "expert_shared_count": 1, "expert_weights_scale": 2.5,
         "expert_weights_norm": True, "expert_group_count": 4, "expert_group_used_count": 2,
         "expert_gating_func": 2}),
    "kimi-linear": ({
        "architectures": ["KimiLinearForCausalLM"], "kv_lora_rank": 32, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "num_experts": 8, "num_shared_experts": 1, "topk_group": 1,
        "num_experts_per_token": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
        "num_expert_group": 1, "routed_scaling_factor": 2.5, "moe_renormalize": True, "mla_use_nope": True,
        "moe_router_activation_func": "sigmoid", "linear_attn_config": {
            "head_dim": 24, "num_heads": 4, "short_conv_kernel_size": 4, "kda_layers": [1, 2, 3, 5, 6],
            "full_attn_layers": [4]}},
        {"attention.head_count_kv": [0, 0, 0, 1, 0, 0], "attention.key_length": 40,
         "attention.key_length_mla": 24, "attention.value_length_mla": 16, "attention.kv_lora_rank": 32,
         "rope.dimension_count": 8, "kda.head_dim": 24, "ssm.conv_kernel": 4, "leading_dense_block_count": 1,
         "expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 24,
         "expert_shared_count": 1, "expert_weights_scale": 2.5, "expert_group_used_count": 1,
         "expert_gating_func": 2}),
    "smollm3": ({"architectures": ["SmolLM3ForCausalLM"]}, {"rope.dimension_count": 32}),
}


def of_config(**raw: Any) -> Spec:
    return ModelConfig.from_dict({**SIZES, **raw}, {}, "tiny").spec


def of_gguf(architecture: str, keys: dict[str, Any]) -> Spec:
    metadata = {"general.architecture": architecture, "tokenizer.ggml.tokens": ["x"] * 99,
                **{f"{architecture}.{key}": value for key, value in {**GGUF_KEYS, **keys}.items()}}
    factors = {"phi3": {"rope_factors_short.weight": [1.0] * 16, "rope_factors_long.weight": [2.0] * 16},
               "gemma4": {"rope_freqs.weight": [1.0] * 8 + [1e30] * 24}}.get(architecture, {})
    return ModelConfig.from_gguf(metadata, factors.get, Path("tiny.gguf")).spec


@pytest.mark.parametrize("architecture", PAIRS)
def test_a_gguf_file_and_a_folder_of_one_model_give_one_spec(architecture: str):
    """But for two things: rows that GGUF's converter reorders, and the head, which the file tells."""
    raw, keys = PAIRS[architecture]
    architecture = architecture.partition(",")[0]
    spec, theirs = of_config(**raw), of_gguf(architecture, keys)
    assert theirs.tied_head is None
    reorders = architecture in ("llama", "mistral3", "smollm3")
    for layer in theirs.layers:
        rope = layer.attention.rope if layer.attention is not None else None
        assert rope is None or rope.interleaved == (reorders or architecture == "deepseek2")
    assert repr(spec).replace("interleaved=False", f"interleaved={reorders}") == repr(theirs).replace(
        "tied_head=None", f"tied_head={spec.tied_head}")


def test_every_family_is_found_by_its_names_and_no_two_have_the_same():
    names = [name for family in families() for name in family.architectures]
    gguf = [name for family in families() if family.gguf for name in family.gguf.architectures]
    assert len(set(names)) == len(names) > 20 and len(set(gguf)) == len(gguf) > 8
    assert len({family.name for family in families()}) == len(families())


def test_what_is_not_supported_is_named_with_what_is():
    with pytest.raises(ModelLoadError, match=r"is 'KlingonForCausalLM'; expected .* gemma, gl") as told:
        of_config(architectures=["KlingonForCausalLM"])
    assert "gemma3" not in str(told.value) and "docs/models.md has all" in str(told.value)
    with pytest.raises(ModelLoadError, match=r"x\.gguf: general\.arch.* is 'rwkv'; expected .* qwen, s"):
        family_of_gguf("rwkv", "x.gguf")
    with pytest.raises(ModelLoadError, match="rope_type is 'sinc'; expected 'default', 'linear'"):
        of_config(architectures=["LlamaForCausalLM"], rope_scaling={"rope_type": "sinc"})
    for changes, message in (({"mla_use_nope": False}, "mla_use_nope is False; expected true"),
                             ({"moe_router_activation_func": "softmax"}, "is 'softmax'; expected 'sigmoid'"),
                             ({"linear_attn_config": {"full_attn_layers": [7]}}, "a list of layers from 1")):
        with pytest.raises(ModelLoadError, match=message):
            of_config(**{**PAIRS["kimi-linear"][0], **changes})
    with pytest.raises(ModelLoadError, match=r"hybrid_override_pattern is 'MX\*'; expected layers of mamba"):
        of_config(architectures=["NemotronHForCausalLM"], hybrid_override_pattern="MX*", num_hidden_layers=3,
                  mamba_num_heads=8, mamba_head_dim=16)
    metadata = {"general.architecture": "gemma2", "gemma2.expert_count": 8}
    with pytest.raises(ModelLoadError, match="mixture of experts; such are not supported"):
        config_of(metadata, family_of_gguf("gemma2", "x")[1], lambda name: None, "x.gguf")


def test_a_text_model_is_read_out_of_what_also_sees_images():
    text = {key: value for key, value in SIZES.items() if key != "rope_theta"}
    raw = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {**text, "sliding_window": 16},
           "vision_config": {"hidden_size": 7}, "eos_token_id": [1, 5]}
    config = ModelConfig.from_dict(raw, {}, "tiny")
    assert config.is_text_part and config.spec.hidden_size == 64 and config.spec.tied_head
    assert config.eos_token_ids == {1, 5}
    assert config.spec.layers[5].attention.rope == Rope(1e6, 32), "the default of the class"


@pytest.mark.parametrize(("embeddings", "head", "layer"), [
    ("model.embed_tokens", "lm_head", "model.layers.3."),
    ("model.language_model.embed_tokens", "lm_head", "model.language_model.layers.3."),
    ("language_model.model.embed_tokens", "language_model.lm_head", "language_model.model.layers.3."),
])
def test_names_are_found_behind_the_prefix_that_the_file_has(embeddings: str, head: str, layer: str):
    names = located(HUGGING_FACE, {embeddings + ".weight", head + ".weight"}.__contains__)
    assert (names.embeddings, names.head, names.layer.format(3)) == (embeddings, head, layer)
    assert located(GGUF, {"token_embd.weight"}.__contains__) == GGUF


ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn, mscale": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64,
                     "mscale": 0.7, "mscale_all_dim": 1.1, "beta_fast": 20, "beta_slow": 2},
    "yarn, not rounded": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
                          "truncate": False, "attention_factor": 1.3},
    "dynamic": {"rope_type": "dynamic", "factor": 6.0},
    "longrope": {"rope_type": "longrope", "original_max_position_embeddings": 64,
                 "short_factor": [1 + i / 8 for i in range(16)], "long_factor": [2.0 + i for i in range(16)]},
}


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("length", [10, 400, 1200])
def test_scaled_frequencies_are_those_of_transformers(name: str, length: int):
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    block = {"rope_theta": 20000.0, **ROPES[name]}
    config = transformers.LlamaConfig(**{**SIZES, "rope_parameters": dict(block)})
    compute = ROPE_INIT_FUNCTIONS[block["rope_type"]]
    want, magnitude = compute(config, torch.device("cpu"), seq_len=length)
    rope = of_config(architectures=["LlamaForCausalLM"], rope_parameters=block).layers[0].attention.rope
    torch.testing.assert_close(torch.tensor(frequencies(rope, length)), want, rtol=1e-5, atol=0)
    assert rope.magnitude == pytest.approx(magnitude)


def test_the_head_of_the_second_baichuan_is_normed_and_13b_is_refused():
    raw = {"architectures": ["BaichuanForCausalLM"], **SIZES, "num_key_value_heads": 4}
    assert ModelConfig.from_dict(raw, {}, "x").spec.head_norm is None
    assert ModelConfig.from_dict({**raw, "vocab_size": 125696}, {}, "x").spec.head_norm == "rows"
    with pytest.raises(ModelLoadError, match=r"num_hidden_layers is 40; expected 32, .*ALiBi"):
        ModelConfig.from_dict({**raw, "num_hidden_layers": 40}, {}, "x")
