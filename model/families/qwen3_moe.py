"""Qwen 2's and Qwen 3's mixtures: their attention, and experts in all layers but those that are named."""

from __future__ import annotations

from dataclasses import replace

from model.families import qwen2, qwen3
from model.families.family import Family, Gguf
from model.families.fields import Fields, moe
from model.families.names import HUGGING_FACE
from model.families.spec import Dense, Moe, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(num_experts_per_tok=8)
    key = "num_experts" if fields.raw.get("num_experts") is not None else "num_local_experts"
    experts = moe(fields, Dense(fields.integer("moe_intermediate_size", 8, 1 << 20, 768)), key,
                  {"renormalized": fields.boolean("norm_topk_prob")})
    return with_experts(fields, qwen3.from_config(fields), experts)


def vision_from_config(fields: Fields) -> Spec:
    """The text model of Qwen 3 VL, whose shares always add up to 1."""
    return from_config(fields.with_defaults(norm_topk_prob=True))


def second_from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(num_experts_per_tok=4)
    shared = Dense(fields.integer("shared_expert_intermediate_size", 8, 1 << 20, 5632))
    expert = Dense(fields.integer("moe_intermediate_size", 8, 1 << 20, 1408))
    experts = moe(fields, expert, "num_experts", {"renormalized": fields.boolean("norm_topk_prob")},
                  shared=shared, shared_gate=True)
    spec = qwen2.layered(fields, qkv_bias=fields.boolean("qkv_bias", True))
    return with_experts(fields, spec, experts)


def with_experts(fields: Fields, spec: Spec, experts: Moe) -> Spec:
    """In all layers but those that config.json leaves out."""
    every = fields.integer("decoder_sparse_step", 1, 512, 1)
    dense = fields.raw.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise fields.error("mlp_only_layers", dense, "a list of layers")
    return replace(spec, layers=tuple(
        layer if index in dense or (index + 1) % every else replace(layer, mlp=experts)
        for index, layer in enumerate(spec.layers)))


FAMILIES = (
    Family("qwen3_moe", ("Qwen3MoeForCausalLM",), from_config, gguf=Gguf(("qwen3moe", "qwen3vlmoe"), keys={
        "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size"},
        complete=lambda config: {"norm_topk_prob": True})),
    Family("qwen3_vl_moe", ("Qwen3VLMoeForConditionalGeneration",), vision_from_config, replace(
        HUGGING_FACE, expert_gate_up=("mlp.experts.gate_up_proj~#{}",),
        expert_down="mlp.experts.down_proj~#{}")),
    Family("qwen2_moe", ("Qwen2MoeForCausalLM",), second_from_config, gguf=Gguf(("qwen2moe",), keys={
        "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size"})))
