"""Arcee's Trinity: three layers of four see a window and have RoPE, the fourth neither; a gate behind
attention, norms on both sides of branches, and after some dense layers experts with a shared one.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    moe,
    num_layers,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import HeadNorm, Layer, Moe, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(num_dense_layers=1, num_experts_per_tok=6, num_shared_experts=2)
    norm, own, experts = rms_norm(fields, default=1e-5), dense(fields), _experts(fields)
    bias, count = fields.boolean("attention_bias"), fields.integer("num_dense_layers", 0, 512)
    turned, window = rope(fields), window_of(fields)
    layers = [Layer(attention(fields, turned if is_window else None, window=window if is_window else None,
                              qk_norm=HeadNorm(norm), qkv_bias=bias, o_bias=bias, output_gate="number"),
                    own if index < count else experts, norm, norm_after=True)
              for index, is_window in enumerate(_are_windows(fields))]
    scale = fields.integer("hidden_size", 8, 1 << 16) ** 0.5 if fields.boolean("mup_enabled") else 1.0
    return spec(fields, layers, norm, embedding_scale=scale)


def _are_windows(fields: Fields) -> list[bool]:
    every = fields.integer("global_attn_every_n_layers", 1, 512, 4)
    found = are_windows(fields, full_every=every)
    return found if fields.raw.get("sliding_window") else [False] * num_layers(fields)


def _experts(fields: Fields) -> Moe:
    expert = replace(dense(fields), intermediate_size=fields.integer("moe_intermediate_size", 8, 1 << 20))
    shared = fields.integer("num_shared_experts", 0, 64) * expert.intermediate_size
    return moe(fields, expert, "num_experts", {
        "scoring": "sigmoid", "renormalized": fields.boolean("route_norm", True), "share_eps": 1e-20,
        "scale": fields.number("route_scale", 0.0, 1e4, 1.0)}, correction=True,
        shared=replace(expert, intermediate_size=shared) if shared else None)


FAMILIES = (Family("afmoe", ("AfmoeForCausalLM",), from_config, replace(
    HUGGING_FACE, output_gate="self_attn.gate_proj", mlp_norm="pre_mlp_layernorm",
    mlp_out_norm="post_mlp_layernorm", router="mlp.router.gate", router_correction="mlp.expert_bias",
    shared_gate_up=("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
    shared_down="mlp.shared_experts.down_proj"), Gguf(
        ("afmoe",), replace(GGUF, output_gate="attn_gate"), keys={
            "leading_dense_block_count": "num_dense_layers", "expert_count": "num_experts",
            "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_count": "num_shared_experts", "expert_weights_scale": "route_scale",
            "expert_weights_norm": "route_norm"}, complete=lambda config: {"mup_enabled": True})),)
