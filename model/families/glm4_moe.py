"""GLM-4.5, 4.6 and 4.5-Air, and Solar Open: half of each head rotated, some dense layers, then experts with a
shared one, chosen by sigmoids that a number of each expert corrects. The layer that guesses ahead is left
alone.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    attention,
    dense,
    grouped_routing,
    moe,
    num_layers,
    rms_norm,
    rope,
    spec,
)
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import HeadNorm, Layer, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(partial_rotary_factor=0.5, first_k_dense_replace=1, n_shared_experts=1,
                                  num_experts_per_tok=8, norm_topk_prob=True)
    norm, own = rms_norm(fields, default=1e-5), dense(fields)
    mixer = attention(fields, rope(fields), qkv_bias=fields.boolean("attention_bias"),
                      qk_norm=HeadNorm(norm) if fields.boolean("use_qk_norm") else None)
    expert = replace(own, intermediate_size=fields.integer("moe_intermediate_size", 8, 1 << 20))
    shared = fields.integer("n_shared_experts", 1, 64) * expert.intermediate_size
    experts = moe(fields, expert, "n_routed_experts", grouped_routing(fields, "n_routed_experts"),
                  correction=True, shared=replace(expert, intermediate_size=shared))
    first = fields.integer("first_k_dense_replace", 0, 512)
    return spec(fields, [Layer(mixer, own if index < first else experts, norm)
                         for index in range(num_layers(fields))], norm)


def solar_from_config(fields: Fields) -> Spec:
    """Solar Open: whole heads rotated, experts in every layer."""
    return from_config(fields.with_defaults(partial_rotary_factor=1.0, first_k_dense_replace=0,
                                            intermediate_size=8, rope_theta=1e6))


_NAMES = replace(HUGGING_FACE, shared_gate_up=("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
                 shared_down="mlp.shared_experts.down_proj")
FAMILIES = (
    Family("glm4_moe", ("Glm4MoeForCausalLM",), from_config, _NAMES, Gguf(
        ("glm4moe",), replace(GGUF, mlp_norm="post_attention_norm"), keys={
            "leading_dense_block_count": "first_k_dense_replace", "expert_count": "n_routed_experts",
            "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_count": "n_shared_experts", "expert_weights_scale": "routed_scaling_factor",
            "expert_weights_norm": "norm_topk_prob", "expert_group_count": "n_group",
            "expert_group_used_count": "topk_group"}, present={"attention_bias": "blk.0.attn_q.bias"},
        complete=lambda config: {"partial_rotary_factor": 1.0})),  # of a head, where no less is said
    Family("solar_open", ("SolarOpenForCausalLM",), solar_from_config, _NAMES))
