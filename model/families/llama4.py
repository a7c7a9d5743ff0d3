"""Llama 4: layers that see their own chunk alone and three times as often as one that sees everything, has no
RoPE and scales its queries by position; norms of heads without weights; one expert of many, which reads its
input times its share, beside a shared one. Its text model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    attention,
    dense,
    max_positions,
    moe,
    num_layers,
    rms_norm,
    rope,
    spec,
)
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Attention, Dense, HeadNorm, Layer, Moe, QueryScale, Spec

_FAR_EVERY = 4


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        max_position_embeddings=131072, num_experts_per_tok=1, attention_chunk_size=8192, floor_scale=8192,
        attn_scale=0.1, intermediate_size=8192, intermediate_size_mlp=16384)
    norm, kinds = rms_norm(fields, default=1e-5), _attentions(fields)
    mlps = {True: _experts(fields), False: _dense(fields, "intermediate_size_mlp")}
    layers = [Layer(kinds[is_turned, is_chunked], mlps[is_mixture], norm)
              for is_turned, is_chunked, is_mixture in zip(
                  _are_turned(fields), _are_chunked(fields), _are_mixtures(fields), strict=True)]
    return spec(fields, layers, norm)


def _attentions(fields: Fields) -> dict[tuple[bool, bool], Attention]:
    """By whether heads are turned, and whether a chunk is seen."""
    chunk, bias = fields.integer("attention_chunk_size", 1, 1 << 24), fields.boolean("attention_bias")
    scale = QueryScale(fields.number("attn_scale", 0.0, 1e3), fields.integer("floor_scale", 1, 1 << 24), 1)
    parts: dict[str, Any] = {"qkv_bias": bias, "o_bias": bias}
    near = dict(parts)
    if fields.boolean("use_qk_norm", True):
        near["qk_norm"] = HeadNorm(rms_norm(fields, default=1e-5), weight="none", after_rope=True)
    if fields.boolean("attn_temperature_tuning", True):
        parts["query_scale"] = scale
    turned = rope(fields, theta=5e5, interleaved=True)
    seen = {True: chunk if chunk < max_positions(fields) else None, False: None}
    return {(is_turned, is_chunked): attention(fields, turned if is_turned else None, chunk=seen[is_chunked],
                                               **(near if is_turned else parts))
            for is_turned in (True, False) for is_chunked in (True, False)}


def _are_turned(fields: Fields) -> list[bool]:
    """By no_rope_layers, where 1 stands for RoPE."""
    count = num_layers(fields)
    if fields.raw.get("no_rope_layers"):
        return [turned == 1 for turned in fields.choices("no_rope_layers", count, (0, 1))]
    every = fields.integer("no_rope_layer_interval", 1, 512, _FAR_EVERY)
    return [(index + 1) % every != 0 for index in range(count)]


def _are_chunked(fields: Fields) -> list[bool]:
    if fields.raw.get("layer_types") is None:
        return _are_turned(fields)
    kinds = fields.choices("layer_types", num_layers(fields), ("chunked_attention", "full_attention"))
    return [kind == "chunked_attention" for kind in kinds]


def _are_mixtures(fields: Fields) -> list[bool]:
    count, named = num_layers(fields), fields.raw.get("moe_layers")
    if named is None:
        every = fields.integer("interleave_moe_layer_step", 1, 512, 1)
        return [(index + 1) % every == 0 for index in range(count)]
    if not isinstance(named, list) or not all(index in range(count) for index in named):
        raise fields.error("moe_layers", named, f"numbers of layers, 0 to {count - 1}")
    return [index in named for index in range(count)]


def _dense(fields: Fields, key: str) -> Dense:
    return replace(dense(fields), intermediate_size=fields.integer(key, 8, 1 << 20))


def _experts(fields: Fields) -> Moe:
    expert = dense(fields)
    return moe(fields, expert, "num_local_experts", {"scoring": "sigmoid"}, shared=expert, scales_input=True)


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp takes for granted, and it has no norms of heads in the model of 128 experts."""
    return {"attention_chunk_size": 8192, "use_qk_norm": config.get("num_local_experts") != 128}


_NAMES = replace(
    HUGGING_FACE, gate_up=("feed_forward.gate_proj", "feed_forward.up_proj"),
    down_proj="feed_forward.down_proj", router="feed_forward.router",
    expert_gate_up=("feed_forward.experts.gate_up_proj~#{}",),
    expert_down="feed_forward.experts.down_proj~#{}",
    shared_gate_up=("feed_forward.shared_expert.gate_proj", "feed_forward.shared_expert.up_proj"),
    shared_down="feed_forward.shared_expert.down_proj")
_GGUF = Gguf(("llama4",), GGUF, keys={
    "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok",
    "feed_forward_length": "intermediate_size_mlp", "expert_feed_forward_length": "intermediate_size",
    "interleave_moe_layer_step": "interleave_moe_layer_step"}, complete=completed)
FAMILIES = (Family("llama4", ("Llama4ForCausalLM", "Llama4ForConditionalGeneration"), from_config, _NAMES,
                   _GGUF),)
