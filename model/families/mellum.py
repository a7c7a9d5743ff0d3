"""Mellum 2: Qwen 3's mixtures with windows on most layers, whose RoPE has a base of its own."""

from __future__ import annotations

from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    moe,
    num_layers,
    plain_rope,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.spec import Dense, HeadNorm, Layer, Rope, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(sliding_window=1024, num_experts_per_tok=8, norm_topk_prob=True)
    norm, bias, window = rms_norm(fields), fields.boolean("attention_bias"), window_of(fields)
    parts: dict[str, Any] = {"qk_norm": HeadNorm(norm), "qkv_bias": bias, "o_bias": bias}
    kinds = {True: attention(fields, _near_rope(fields), window=window, **parts),
             False: attention(fields, rope(fields, "full_attention", theta=5e5), **parts)}
    key = "num_experts" if fields.raw.get("num_experts") is not None else "num_local_experts"
    experts = moe(fields, Dense(fields.integer("moe_intermediate_size", 8, 1 << 20)), key,
                  {"renormalized": fields.boolean("norm_topk_prob")})
    return spec(fields, [Layer(kinds[is_window], dense(fields) if is_dense else experts, norm)
                         for is_window, is_dense in zip(are_windows(fields), _are_dense(fields),
                                                        strict=True)], norm)


def _near_rope(fields: Fields) -> Rope:
    block = fields.object("rope_parameters")
    if block is not None and "sliding_attention" in block.raw:
        return rope(fields, "sliding_attention")
    return plain_rope(fields, "rope_local_base_freq", 1e4)


def _are_dense(fields: Fields) -> list[bool]:
    count = num_layers(fields)
    if fields.raw.get("mlp_layer_types") is None:
        return [False] * count
    return [kind == "dense" for kind in fields.choices("mlp_layer_types", count, ("dense", "sparse"))]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """One base for both kinds of layers, where no other is said."""
    windows = config.get("windows")
    kinds = {} if not isinstance(windows, list) else {
        "layer_types": ["sliding_attention" if is_so else "full_attention" for is_so in windows]}
    return {"rope_local_base_freq": config.get("rope_theta"), **kinds}


FAMILIES = (Family("mellum", ("MellumForCausalLM",), from_config, gguf=Gguf(("mellum",), keys={
    "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size", "rope.freq_base_swa": "rope_local_base_freq",
    "attention.sliding_window_pattern": "windows"}, complete=_completed)),)
