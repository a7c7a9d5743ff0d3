"""DeepSeek's mixtures of experts with a shared one, after some dense layers, and GLM-4.7-Flash: all but the
first attend to latents. It and V2 take the softmax of all scores; V3 (R1) and GLM sigmoids, corrected for the
choice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, grouped_routing, moe, num_layers, rms_norm, rope, spec
from model.families.llama import uniform
from model.families.names import GGUF, HUGGING_FACE
from model.families.rope import yarn_magnitude
from model.families.spec import LatentAttention, Layer, Moe, Norm, Rope, Spec

_LATENT_NORM = Norm("rms", 1e-6)
"""Of latents it is this, whatever rms_norm_eps is."""


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, rms_norm_eps=1e-6,
        n_shared_experts=1, num_experts_per_tok=8, moe_layer_freq=1, norm_topk_prob=True)
    norm, attends, kinds = rms_norm(fields), attention(fields), are_mixtures(fields)
    own, experts = dense(fields), mixture(fields) if any(kinds) else None
    return spec(fields, [Layer(attends, experts if is_mixture else own, norm) for is_mixture in kinds], norm)


def youtu_from_config(fields: Fields) -> Spec:
    """Youtu-LLM: no experts."""
    return from_config(fields.with_defaults(tie_word_embeddings=True))


def second_from_config(fields: Fields) -> Spec:
    return from_config(fields.with_defaults(topk_method="greedy", n_shared_experts=2))


def first_from_config(fields: Fields) -> Spec:
    """Llama's attention; shares of chosen experts as the softmax of all gives them."""
    fields = fields.with_defaults(n_shared_experts=2, num_experts_per_tok=6, moe_layer_freq=1,
                                  first_k_dense_replace=1, topk_method="greedy")
    bias = fields.boolean("attention_bias")
    found, experts = uniform(fields, qkv_bias=bias, o_bias=bias), mixture(fields)
    return replace(found, layers=tuple(
        replace(layer, mlp=experts) if is_mixture else layer
        for layer, is_mixture in zip(found.layers, are_mixtures(fields), strict=True)))


def attention(fields: Fields) -> LatentAttention:
    """With the key that all heads share rotated, and YaRN's factor of scores."""
    latent = latent_attention(fields, shared_rope(fields, fields.boolean("rope_interleave", True)))
    return replace(latent, scale=latent.scale * _yarn_scale(fields))


def shared_rope(fields: Fields, interleaved: bool) -> Rope:
    """Of the key that all heads share: all of it is rotated."""
    whole: dict[str, Any] = {"partial_rotary_factor": 1.0}
    blocks = {key: {**block.raw, **whole} for key in ("rope_parameters", "rope_scaling")
              if (block := fields.object(key)) is not None}
    shared = fields.integer("qk_rope_head_dim", 8, 512)
    return rope(replace(fields, raw={**fields.raw, **blocks, **whole, "head_dim": shared}),
                interleaved=interleaved)


def latent_attention(fields: Fields, turned: Rope | None) -> LatentAttention:
    """`turned`: how the key that all heads share is rotated."""
    plain, shared = (fields.integer(f"qk_{part}_head_dim", 8, 512) for part in ("nope", "rope"))
    query_rank = None
    if fields.raw.get("q_lora_rank") is not None:
        query_rank = fields.integer("q_lora_rank", 8, 1 << 16)
    rank = fields.integer("kv_lora_rank", 8, 1024 - shared)
    if (rank + shared) % 8:
        raise fields.error("kv_lora_rank", rank, f"with qk_rope_head_dim, {shared}, a multiple of 8")
    return LatentAttention(
        fields.integer("num_attention_heads", 1, 1024), rank, plain, fields.integer("v_head_dim", 4, 512),
        shared, turned, (plain + shared) ** -0.5, _LATENT_NORM, query_rank, fields.boolean("attention_bias"))


def _yarn_scale(fields: Fields) -> float:
    """Scores are multiplied by the square of YaRN's magnitude, as it is for all dimensions."""
    block = fields.object("rope_parameters") or fields.object("rope_scaling")
    if block is None or block.raw.get("rope_type", block.raw.get("type")) != "yarn":
        return 1.0
    of_all = block.optional_number("mscale_all_dim", 0.0, 100.0)
    return yarn_magnitude(block.number("factor", 1.0, 4096.0), of_all) ** 2 if of_all else 1.0


def are_mixtures(fields: Fields) -> list[bool]:
    """Which layers have experts."""
    count = num_layers(fields)
    if fields.raw.get("n_routed_experts") is None:
        return [False] * count
    if fields.raw.get("mlp_layer_types") is not None:
        return [kind == "sparse" for kind in fields.choices("mlp_layer_types", count, ("dense", "sparse"))]
    first = fields.integer("first_k_dense_replace", 0, 512, 0 if _is_softmax(fields) else 1)
    every = fields.integer("moe_layer_freq", 1, 512)
    return [index >= first and index % every == 0 for index in range(count)]


def _is_softmax(fields: Fields) -> bool:
    method = fields.raw.get("topk_method")
    return method in ("greedy", "group_limited_greedy") or fields.raw.get("scoring_func") == "softmax"


def mixture(fields: Fields) -> Moe:
    """Experts in groups, and those of every token."""
    expert = replace(dense(fields), intermediate_size=fields.integer("moe_intermediate_size", 8, 1 << 20))
    shared = fields.integer("n_shared_experts", 0, 64)
    parts: dict[str, Any] = {"shared": replace(expert, intermediate_size=shared * expert.intermediate_size)
                             if shared else None}
    if not _is_softmax(fields):
        return moe(fields, expert, "n_routed_experts", grouped_routing(fields, "n_routed_experts"),
                   correction=True, **parts)
    rules = grouped_routing(fields, "n_routed_experts", "softmax") | {
        "renormalized": False, "share_eps": 0.0, "best_of_group": 1}
    if fields.raw.get("topk_method") == "greedy":
        rules |= {"num_groups": 1, "top_groups": 1}
    return moe(fields, expert, "n_routed_experts", rules, **parts)


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """What GGUF says in other words. MLA's keys are those of one head before it meets the latent; in files of
    before April 2025 the others are. Not all that choose by sigmoids say so, but they have corrections."""
    rotated, whole = config.get("rotated_dim"), config.get("query_dim", config.get("kept_dim"))
    found: dict[str, Any] = {"qk_rope_head_dim": rotated}
    if "v_head_dim" not in config:
        found["v_head_dim"] = config.get("kept_value_dim")
    if isinstance(whole, int) and isinstance(rotated, int):
        found["qk_nope_head_dim"] = whole - rotated
    has_correction = config.get("has_correction") or config.get("has_later_correction")
    is_sigmoid = config.get("gating") == 2 or has_correction
    found["topk_method"] = "noaux_tc" if is_sigmoid else "group_limited_greedy"
    scaling = config.get("rope_scaling")
    if isinstance(scaling, dict):
        of_all = scaling.get("mscale_all_dim")
        share = 10 * of_all if isinstance(of_all, float) else None
        found["rope_parameters"] = {**scaling, "mscale": share, "mscale_all_dim": share}
    return found


NAMES = replace(HUGGING_FACE, shared_gate_up=("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
                shared_down="mlp.shared_experts.down_proj")
MIXTURE_KEYS = {
    "leading_dense_block_count": "first_k_dense_replace", "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts", "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob", "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group"}
GGUF_KEYS = {
    "attention.key_length": "kept_dim", "attention.key_length_mla": "query_dim",
    "attention.value_length": "kept_value_dim", "attention.value_length_mla": "v_head_dim",
    "attention.q_lora_rank": "q_lora_rank", "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "rotated_dim", "expert_gating_func": "gating", **MIXTURE_KEYS}
_GGUF = Gguf(("deepseek2",), GGUF, keys=GGUF_KEYS, complete=completed, present={
    "has_correction": "blk.1.exp_probs_b.bias", "has_later_correction": "blk.3.exp_probs_b.bias"})

FAMILIES = (
    Family("deepseek", ("DeepseekForCausalLM",), first_from_config, NAMES, Gguf(
        ("deepseek",), interleaved=True, keys=MIXTURE_KEYS)),
    Family("deepseek_v2", ("DeepseekV2ForCausalLM",), second_from_config, NAMES),
    Family("deepseek_v3", ("DeepseekV3ForCausalLM",), from_config, NAMES, _GGUF),
    Family("youtu", ("YoutuForCausalLM",), youtu_from_config, NAMES),
    Family("glm4_moe_lite", ("Glm4MoeLiteForCausalLM",), from_config, NAMES))
