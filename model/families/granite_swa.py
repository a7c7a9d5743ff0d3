"""Granite Swash: Granite's multipliers, with windows on three layers of four, a logit of nothing beside the
scores of each head, and a base of RoPE for each layer, or none; dense or with experts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families import granite
from model.families.family import Family, Gguf
from model.families.fields import Fields, are_windows, num_layers, rope, window_of
from model.families.names import GGUF
from model.families.spec import Rope, Spec


def from_config(fields: Fields) -> Spec:
    if fields.raw.get("num_local_experts"):  # GGUF has one name for both
        return mixture_from_config(fields)
    fields = fields.with_defaults(rms_norm_eps=1e-5, tie_word_embeddings=True)
    return _with_windows(fields, granite.from_config(fields))


def mixture_from_config(fields: Fields) -> Spec:
    return _with_windows(fields, granite.mixture_from_config(fields))


def _with_windows(fields: Fields, found: Spec) -> Spec:
    fields = fields.with_defaults(sliding_window=128)
    window, count = window_of(fields), num_layers(fields)
    seen = [index % 4 != 0 for index in range(count)]
    if fields.raw.get("layer_types") is not None:
        seen = are_windows(fields)
    return replace(found, layers=tuple(
        layer.with_attention(window=window if is_window else None, rope=turned, sinks=True)
        for layer, is_window, turned in zip(found.layers, seen, _ropes(fields), strict=True)))


def _ropes(fields: Fields) -> list[Rope | None]:
    """By layer_rope_theta, whose 0 stands for none."""
    count = num_layers(fields)
    if fields.raw.get("layer_rope_theta") is None:
        return [rope(fields)] * count
    block = fields.object("rope_parameters") or fields.object("rope_scaling")
    raw = {} if block is None else block.raw
    return [rope(replace(fields, raw={**fields.raw, "rope_parameters": {**raw, "rope_theta": theta}}))
            if theta else None for theta in fields.numbers("layer_rope_theta", count, 0.0, 1e12)]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """GGUF says of each layer whether it has a window and whether it is turned: all of those by one base."""
    windows, turned = config.get("windows"), config.get("turned")
    completed: dict[str, Any] = {}
    if isinstance(windows, list):
        completed["layer_types"] = [
            "sliding_attention" if is_so else "full_attention" for is_so in windows]
    if isinstance(turned, list):
        completed["layer_rope_theta"] = [config.get("rope_theta") if is_so else 0.0 for is_so in turned]
    return completed


_EXPERTS = "block_sparse_moe.experts."
FAMILIES = (
    Family("granite_swa", ("GraniteSWAForCausalLM",), from_config, gguf=Gguf(
        ("granite_swa",), replace(GGUF, shared_gate_up=("ffn_up_shexp",)), interleaved=True, keys={
            "attention.sliding_window_pattern": "windows", "attention.rope_pattern": "turned",
            **granite.MIXTURE_KEYS}, complete=_completed)),
    Family("granitemoe_swa", ("GraniteMoeSWAForCausalLM",), mixture_from_config, replace(
        granite.MIXTURE_NAMES, router="block_sparse_moe.router",
        expert_gate_up=(_EXPERTS + "gate_up_proj#{}",), expert_down=_EXPERTS + "down_proj#{}")))
