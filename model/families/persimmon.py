"""Persimmon 8B, and Fuyu's text model: norms with a mean, those of heads too, half of a head turned, squared
ReLU without a gate; queries, keys and values of a head lie together.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.names import HUGGING_FACE
from model.families.spec import HeadNorm, Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        partial_rotary_factor=0.5, rope_theta=25000.0, max_position_embeddings=16384)
    norm = Norm("layer", fields.number("layer_norm_eps", 0.0, 0.1, 1e-5), has_bias=True)
    qk_norm = HeadNorm(norm) if fields.boolean("qk_layernorm", True) else None
    mixer = attention(fields, rope(fields), qk_norm=qk_norm, qkv_bias=True, o_bias=True)
    layer = Layer(mixer, dense(fields, default="relu2", gated=False, bias=True), norm)
    return spec(fields, [layer] * num_layers(fields), norm)


FAMILIES = (Family("persimmon", ("PersimmonForCausalLM", "FuyuForCausalLM"), from_config, replace(
    HUGGING_FACE, norm="model.final_layernorm", qkv=("self_attn.query_key_value",), fuses_heads=True,
    o_proj="self_attn.dense", query_norm="self_attn.q_layernorm", key_norm="self_attn.k_layernorm",
    gate_up=("mlp.dense_h_to_4h",), down_proj="mlp.dense_4h_to_h")),)
