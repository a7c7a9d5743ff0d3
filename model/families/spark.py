"""Spark X2.5: a gate for each head behind attention, windows with a RoPE of their own on most layers, GELU
between the products of a gated mlp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    if fields.raw.get("gate_attn_act_mode", "sigmoid") != "sigmoid":
        raise fields.error("gate_attn_act_mode", fields.raw["gate_attn_act_mode"], "'sigmoid'")
    if not fields.boolean("headwise_attn_output_gate", True):
        raise fields.error("headwise_attn_output_gate", False, "true")
    norm, mlp = rms_norm(fields), dense(fields, default="gelu")
    kinds = {True: attention(fields, rope(fields, "sliding_attention"), window=window_of(fields),
                             output_gate="head"),
             False: attention(fields, rope(fields, "full_attention"), output_gate="head")}
    return spec(fields, [Layer(kinds[is_window], mlp, norm) for is_window in are_windows(fields)], norm)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """How windows are rotated is told by two keys of their own, and the activation by none."""
    windows, theta = config.get("windows"), config.get("rope_theta")
    dim, near = config.get("head_dim"), config.get("near_dim")
    share = near / dim if isinstance(near, int) and isinstance(dim, int) and dim > 0 else 1.0
    kinds = {"layer_types": ["sliding_attention" if is_so else "full_attention" for is_so in windows]
             } if isinstance(windows, list) else {}
    return {**kinds, "hidden_act": "gelu", "rope_parameters": {
        "full_attention": {**(config.pop("rope_scaling", None) or {}), "rope_theta": theta,
                           "partial_rotary_factor": config.pop("partial_rotary_factor", 1.0)},
        "sliding_attention": {"rope_theta": config.get("near_theta") or theta,
                              "partial_rotary_factor": share}}}


FAMILIES = (Family("spark2_5", ("Spark2_5ForCausalLM",), from_config, replace(
    HUGGING_FACE, qkv=("self_attn.q_k_v_proj",), output_gate="self_attn.g_proj"), Gguf(
        ("spark2_5",), replace(GGUF, output_gate="attn_gate"), keys={
            "rope.freq_base_swa": "near_theta", "rope.dimension_count_swa": "near_dim",
            "attention.sliding_window_pattern": "windows"}, complete=_completed)),)
