"""Laguna: Qwen 3's attention with a gate for each head and as many heads as each layer has, windows on most
layers, and after dense ones experts beside a shared one, chosen by sigmoids that numbers of experts correct.
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
    moe,
    num_layers,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Dense, HeadNorm, Layer, Moe, Spec

_MAX_LAYERS = 512


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(sliding_window=512, head_dim=128, num_experts_per_tok=8)
    if fields.boolean("moe_apply_router_weight_on_input"):
        raise fields.error("moe_apply_router_weight_on_input", True, "false")
    if fields.number("moe_router_logit_softcapping", 0.0, 1e6, 0.0):
        raise fields.error("moe_router_logit_softcapping", fields.raw["moe_router_logit_softcapping"], "0")
    norm, own, experts = rms_norm(fields), dense(fields), _experts(fields)
    return spec(fields, [Layer(_attention(fields, is_window, heads), own if is_dense else experts, norm)
                         for is_window, heads, is_dense in zip(
                             are_windows(fields), _heads(fields), _are_dense(fields), strict=True)], norm)


def _attention(fields: Fields, is_window: bool, heads: int) -> Any:
    of_layer = replace(fields, raw={**fields.raw, "num_attention_heads": heads})
    kind, base, share = ("sliding_attention", 1e4, 1.0) if is_window else ("full_attention", 5e5, 0.5)
    turned = rope(of_layer if fields.raw.get("rope_parameters") is not None else
                  of_layer.with_defaults(partial_rotary_factor=share), kind, base)
    bias, is_whole = fields.boolean("attention_bias"), fields.raw.get("gating") == "per-element"
    return attention(of_layer, turned, window=window_of(fields) if is_window else None,
                     qk_norm=HeadNorm(rms_norm(fields)), qkv_bias=bias, o_bias=bias,
                     output_gate="number" if is_whole else "head", gate_function="softplus")


def _heads(fields: Fields) -> list[int]:
    count, key = num_layers(fields), "num_attention_heads_per_layer"
    if fields.raw.get(key) is None:
        return [fields.integer("num_attention_heads", 1, 1024)] * count
    return [int(heads) for heads in fields.numbers(key, count, 1, 1024)]


def _are_dense(fields: Fields) -> list[bool]:
    count = num_layers(fields)
    if fields.raw.get("mlp_layer_types") is None:
        return [index == 0 for index in range(count)]
    return [kind == "dense" for kind in fields.choices("mlp_layer_types", count, ("dense", "sparse"))]


def _experts(fields: Fields) -> Moe:
    return moe(fields, Dense(fields.integer("moe_intermediate_size", 8, 1 << 20)), "num_experts", {
        "scoring": "sigmoid", "renormalized": True,
        "scale": fields.number("moe_routed_scaling_factor", 0.0, 1e4, 1.0)}, correction=True,
        shared=Dense(fields.integer("shared_expert_intermediate_size", 8, 1 << 20)))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """What is said of the rotation is said of full layers; a file says nothing of the gates, of which there
    are as many as numbers in the one published model without windows."""
    heads, windows, dense = (config.get(key) for key in ("num_attention_heads", "windows", "num_dense"))
    count, has_windows = config.get("num_hidden_layers"), bool(config.get("sliding_window"))
    completed: dict[str, Any] = {} if has_windows else {"gating": "per-element"}
    if isinstance(heads, list) and heads:
        completed["num_attention_heads_per_layer"] = heads
        config["num_attention_heads"] = heads[0]
    indices = range(min(count, _MAX_LAYERS) if isinstance(count, int) else 0)
    if not isinstance(windows, list):
        windows = [has_windows and index % 4 != 0 for index in indices]
    completed["layer_types"] = ["sliding_attention" if is_so else "full_attention" for is_so in windows]
    if isinstance(dense, int):
        completed["mlp_layer_types"] = ["dense" if index < dense else "sparse" for index in indices]
    near, dim, theta = (config.get(key) for key in ("near_dim", "head_dim", "rope_theta"))
    are_known = isinstance(near, int) and isinstance(dim, int) and dim > 0
    share = {"partial_rotary_factor": near / dim} if are_known else {}
    completed["rope_parameters"] = {
        "full_attention": {**(config.pop("rope_scaling", None) or {}), "rope_theta": theta,
                           "partial_rotary_factor": config.pop("partial_rotary_factor", 1.0)},
        "sliding_attention": {"rope_theta": config.get("near_theta") or theta, **share}}
    return completed


FAMILIES = (Family("laguna", ("LagunaForCausalLM",), from_config, replace(
    HUGGING_FACE, output_gate="self_attn.g_proj",
    router_correction="mlp.experts.e_score_correction_bias"), Gguf(
        ("laguna",), replace(GGUF, output_gate="attn_gate"), keys={
            "leading_dense_block_count": "num_dense", "expert_count": "num_experts",
            "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
            "expert_weights_scale": "moe_routed_scaling_factor", "rope.freq_base_swa": "near_theta",
            "rope.dimension_count_swa": "near_dim", "attention.sliding_window_pattern": "windows"},
        complete=_completed)),)
