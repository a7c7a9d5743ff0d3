"""Flint: Qwen 3's mixtures with a logit of nothing beside the scores of each head, windows and RoPE on most
layers and neither on others, and experts chosen by sigmoids beside a shared one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family
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
from model.families.names import HUGGING_FACE
from model.families.qwen3_moe import with_experts
from model.families.spec import Dense, HeadNorm, Layer, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(sliding_window=513, num_experts_per_tok=6, mlp_only_layers=[0, 1])
    norm, bias, window = rms_norm(fields), fields.boolean("attention_bias"), window_of(fields)
    parts: dict[str, Any] = {"qk_norm": HeadNorm(norm), "qkv_bias": bias, "o_bias": bias, "sinks": True}
    kinds = {True: attention(fields, rope(fields), window=window, **parts),
             False: attention(fields, None, **parts)}
    experts = moe(fields, Dense(fields.integer("moe_intermediate_size", 8, 1 << 20, 512)), "num_experts", {
        "scoring": "sigmoid", "renormalized": fields.boolean("norm_topk_prob", True)},
        shared=Dense(fields.integer("shared_expert_intermediate_size", 8, 1 << 20, 1024)))
    layers = [Layer(kinds[is_window], dense(fields), norm) for is_window in _are_windows(fields)]
    return with_experts(fields, spec(fields, layers, norm), experts)


def _are_windows(fields: Fields) -> list[bool]:
    """All but the first two, every fourth and the last."""
    if fields.raw.get("layer_types") is not None:
        return are_windows(fields)
    count = num_layers(fields)
    return [1 < index < count - 1 and index % 4 != 1 for index in range(count)]


FAMILIES = (Family("flint", ("FlintForCausalLM",), from_config, replace(
    HUGGING_FACE, sinks="self_attn.softmax_offset")),)
