"""SmallThinker: experts of every layer with ReLU, chosen by what the layer begins with, before attention; in
the larger one three layers of four see a window and have RoPE, the first of four neither.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, moe, num_layers, rms_norm, rope, spec, window_of
from model.families.names import HUGGING_FACE
from model.families.spec import Dense, Layer, Spec

_WINDOW = 4096
_FAR_EVERY = 4


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(sliding_window=fields.raw.get("sliding_window_size"))
    norm, count, turned = rms_norm(fields), num_layers(fields), rope(fields)
    if not fields.boolean("moe_enable_early_router", True):
        raise fields.error("moe_enable_early_router", False, "true")
    scoring = "softmax" if fields.boolean("moe_primary_router_apply_softmax") else "sigmoid"
    fields = fields.with_defaults(num_experts_per_tok=fields.raw.get("moe_num_active_primary_experts"))
    expert = Dense(fields.integer("moe_ffn_hidden_size", 8, 1 << 20), "relu")
    experts = moe(fields, expert, "moe_num_primary_experts", {"scoring": scoring, "renormalized": True},
                  routes_ahead=True)
    ropes, seen = {True: turned, False: None}, {True: window_of(fields), False: None}
    return spec(fields, [Layer(attention(fields, ropes[is_turned], window=seen[is_near]), experts, norm)
                         for is_turned, is_near in zip(
                             _flags(fields, "rope_layout", count, True),
                             _flags(fields, "sliding_window_layout", count, False), strict=True)], norm)


def _flags(fields: Fields, key: str, count: int, default: bool) -> list[bool]:
    if fields.raw.get(key) is None:
        return [default] * count
    return [flag == 1 for flag in fields.choices(key, count, (0, 1))]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """As llama.cpp has it: with a window it is this one, on all layers but the first of four."""
    found: dict[str, Any] = {"moe_primary_router_apply_softmax": config.get("gating") != 2}
    count = config.get("num_hidden_layers")
    if config.get("sliding_window") and isinstance(count, int):
        config["sliding_window"] = _WINDOW
        flags = [int(index % _FAR_EVERY != 0) for index in range(min(count, 512))]
        found |= {"rope_layout": flags, "sliding_window_layout": flags}
    return found


_EXPERT = "block_sparse_moe.experts.{}."
FAMILIES = (Family("smallthinker", ("SmallThinkerForCausalLM",), from_config, replace(
    HUGGING_FACE, router="block_sparse_moe.primary_router", expert_gate_up=(_EXPERT + "gate", _EXPERT + "up"),
    expert_down=_EXPERT + "down"), Gguf(("smallthinker",), keys={
        "expert_count": "moe_num_primary_experts", "expert_used_count": "moe_num_active_primary_experts",
        "expert_feed_forward_length": "moe_ffn_hidden_size", "expert_gating_func": "gating"},
        complete=_completed)),)
