"""LFM3: short convolutions, and attention with norms of queries and keys and a gate for each head; norms on
both sides of branches, windows on some layers, and a share of each head that turns on the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family
from model.families.fields import (
    Fields,
    attention,
    dense,
    num_layers,
    proportional_rope,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.lfm2 import NAMES
from model.families.spec import HeadNorm, Layer, Rope, ShortConv, Spec

_FAR, _NEAR, _CONV = "full_attention", "sliding_attention", "conv"


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        max_position_embeddings=128000, sliding_window=256, head_dim=128,
        tie_word_embeddings=fields.boolean("tie_embedding", True))
    norm, is_after = rms_norm(fields, "norm_eps", 1e-5), fields.boolean("use_sandwich_norm", True)
    mixers = _mixers(fields)
    return spec(fields, [Layer(mixers[kind], dense(fields), norm, norm_after=is_after)
                         for kind in _kinds(fields)], norm)


def _mixers(fields: Fields) -> dict[str, Any]:
    """By kind of layer."""
    bias, norm = fields.boolean("attention_bias"), rms_norm(fields, "norm_eps", 1e-5)
    parts: dict[str, Any] = {
        "qk_norm": HeadNorm(norm), "qkv_bias": bias, "o_bias": bias,
        "output_gate": "head" if fields.boolean("use_attention_gate", True) else None}
    conv = ShortConv(fields.integer("hidden_size", 8, 1 << 16), fields.integer("conv_L_cache", 2, 16, 7),
                     bias=fields.boolean("conv_bias"))
    return {_FAR: attention(fields, _far_rope(fields), **parts), _CONV: conv,
            _NEAR: attention(fields, rope(fields, _NEAR), window=window_of(fields), **parts)}


def _far_rope(fields: Fields) -> Rope:
    block = fields.object("rope_parameters")
    block = block.object(_FAR) if block is not None else None
    if block is None:
        block = replace(fields, raw={"rope_type": "proportional", "partial_rotary_factor": 0.5})
    return proportional_rope(fields, block) if block.raw.get("rope_type") == "proportional" \
        else rope(fields, _FAR, 1e6)


def _kinds(fields: Fields) -> list[str]:
    count = num_layers(fields)
    if fields.raw.get("layer_types") is not None:
        return fields.choices("layer_types", count, (_CONV, _NEAR, _FAR))
    return [_FAR if index % 4 == 2 else _NEAR if index % 4 == 0 and index else _CONV
            for index in range(count)]


FAMILIES = (Family("lfm3", ("Lfm3ForCausalLM",), from_config, replace(
    NAMES, o_proj="self_attn.o_proj", query_norm="self_attn.q_norm", key_norm="self_attn.k_norm",
    output_gate="self_attn.gate_proj", attention_out_norm="post_operator_norm",
    mlp_out_norm="post_ffn_norm")),)
