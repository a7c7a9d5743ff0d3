"""ERNIE 4.5: Llama's layers, neighbouring pairs rotated; the larger ones with experts and a shared one, by a
softmax that a number of each expert corrects for the choice."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, moe, rope
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-5, tie_word_embeddings=True)
    bias = fields.boolean("use_bias")
    spec = uniform(replace(fields, raw={**fields.raw, "mlp_bias": bias}), qkv_bias=bias, o_bias=bias)
    turned = rope(fields, theta=500000.0, interleaved=True)
    return replace(spec, layers=tuple(layer.with_attention(rope=turned) for layer in spec.layers))


def mixture_from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(num_experts_per_tok=fields.raw.get("moe_k", 6), moe_num_experts=64,
                                  moe_intermediate_size=1536, moe_num_shared_experts=2)
    spec = from_config(fields)
    expert = replace(dense(fields), intermediate_size=fields.integer("moe_intermediate_size", 8, 1 << 20),
                     bias=fields.boolean("use_bias"))
    count = fields.integer("moe_num_shared_experts", 0, 64)
    shared = replace(expert, intermediate_size=count * expert.intermediate_size) if count else None
    experts = moe(fields, expert, "moe_num_experts", {"renormalized": True}, correction=True, shared=shared)
    first = fields.integer("moe_layer_start_index", 0, 512, 1)
    every = fields.integer("moe_layer_interval", 1, 512, 1)
    last = fields.integer("moe_layer_end_index", -1, 512, -1)
    last = spec.num_layers - 1 if last == -1 else last
    return replace(spec, layers=tuple(
        replace(layer, mlp=experts) if first <= index <= last and (index + 1) % every == 0 else layer
        for index, layer in enumerate(spec.layers)))


FAMILIES = (
    Family("ernie4_5", ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"), from_config,
           gguf=Gguf(("ernie4_5",))),
    Family("ernie4_5_moe", ("Ernie4_5_MoeForCausalLM",), mixture_from_config, replace(
        HUGGING_FACE, router_correction="mlp.moe_statics.e_score_correction_bias",
        shared_gate_up=("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
        shared_down="mlp.shared_experts.down_proj"), Gguf(("ernie4_5-moe",), keys={
            "expert_count": "moe_num_experts", "expert_used_count": "num_experts_per_tok",
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_count": "moe_num_shared_experts",
            "leading_dense_block_count": "moe_layer_start_index",
            "interleave_moe_layer_step": "moe_layer_interval"})))
