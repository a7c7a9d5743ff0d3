"""Cohere's Command R and A: attention and mlp side by side behind one norm with a mean, neighbouring pairs
rotated, scaled logits; in the second generation windows with RoPE on three layers of four, neither on others.
Command A+ has experts in place of most mlps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families import deepseek
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
from model.families.spec import HeadNorm, Layer, Moe, Norm, Spec


def _norm(fields: Fields) -> Norm:
    return Norm("layer", fields.number("layer_norm_eps", 0.0, 0.1, 1e-5))


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(tie_word_embeddings=True, max_position_embeddings=8192)
    norm, bias = _norm(fields), fields.boolean("attention_bias")
    qk_norm = HeadNorm(norm, weight="own") if fields.boolean("use_qk_norm") else None
    mixer = attention(fields, rope(fields, interleaved=True), qk_norm=qk_norm, qkv_bias=bias, o_bias=bias)
    layer = Layer(mixer, dense(fields), norm, parallel="one norm")
    return spec(fields, [layer] * num_layers(fields), norm, logit_scale=_logit_scale(fields))


def second_from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(tie_word_embeddings=True, max_position_embeddings=8192, sliding_window=4096)
    norm, bias, window = _norm(fields), fields.boolean("attention_bias"), window_of(fields)
    every = fields.integer("sliding_window_pattern", 1, 512, 4)
    turned = rope(fields, interleaved=True)
    layers = [Layer(attention(fields, turned if is_window else None, window=window if is_window else None,
                              qkv_bias=bias, o_bias=bias), dense(fields), norm, parallel="one norm")
              for is_window in are_windows(fields, full_every=every)]
    return spec(fields, layers, norm, logit_scale=_logit_scale(fields))


def mixture_from_config(fields: Fields) -> Spec:
    """Norms may be without a mean; the first layers may have an mlp of its own size, and always RoPE then."""
    fields = fields.with_defaults(tie_word_embeddings=True, max_position_embeddings=8192, sliding_window=4096)
    norm = _norm(fields) if fields.raw.get("rms_norm_eps") is None else rms_norm(fields)
    bias, window, experts = fields.boolean("attention_bias"), window_of(fields), _experts(fields)
    turned, own = rope(fields, interleaved=True), dense(fields)
    if fields.raw.get("prefix_dense_intermediate_size") is not None:
        own = replace(own, intermediate_size=fields.integer("prefix_dense_intermediate_size", 8, 1 << 20))
    always_turned = fields.integer("prefix_dense_sliding_window_pattern", 1, 512, 1) == 1
    layers = []
    for is_window, is_dense in zip(_are_windows(fields), _are_dense(fields), strict=True):
        mixer = attention(fields, turned if is_window or (is_dense and always_turned) else None,
                          window=window if is_window else None, qkv_bias=bias, o_bias=bias)
        layers.append(Layer(mixer, own if is_dense else experts, norm, parallel="one norm"))
    return spec(fields, layers, norm, logit_scale=_logit_scale(fields))


def _are_dense(fields: Fields) -> list[bool]:
    count = num_layers(fields)
    if fields.raw.get("mlp_layer_types") is not None:
        return [kind == "dense" for kind in fields.choices("mlp_layer_types", count, ("dense", "sparse"))]
    first = fields.integer("first_k_dense_replace", 0, count, 0)
    return [index < first for index in range(count)]


def _are_windows(fields: Fields) -> list[bool]:
    """Of mixtures: the first layers, which are dense, and the others have a pattern each."""
    if fields.raw.get("layer_types") is not None:
        return are_windows(fields)
    first = fields.integer("first_k_dense_replace", 0, num_layers(fields), 0)
    before = fields.integer("prefix_dense_sliding_window_pattern", 1, 512, 1)
    every = fields.integer("sliding_window_pattern", 1, 512, 4)
    return [(index + 1) % before != 0 for index in range(first)] + [
        (index + 1) % every != 0 for index in range(num_layers(fields) - first)]


def _experts(fields: Fields) -> Moe:
    expert = dense(fields)
    scoring, joining = (fields.raw.get(key) or default for key, default in (
        ("expert_selection_fn", "softmax"), ("shared_expert_combination_strategy", "average")))
    if scoring not in ("softmax", "sigmoid"):
        raise fields.error("expert_selection_fn", scoring, "'softmax' or 'sigmoid'")
    if joining not in ("average", "sum"):
        raise fields.error("shared_expert_combination_strategy", joining, "'average' or 'sum'")
    rules: dict[str, Any] = {"scoring": "softmax of chosen"} if scoring == "softmax" else {
        "scoring": "sigmoid", "renormalized": fields.boolean("norm_topk_prob", True)}
    shared = fields.integer("num_shared_experts", 0, 64, 0) * expert.intermediate_size
    return moe(fields.with_defaults(num_experts_per_tok=2), expert, "num_experts", rules,
               shared=replace(expert, intermediate_size=shared) if shared else None,
               out_scale=0.5 if shared and joining == "average" else 1.0)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp knows no other scoring where none is said."""
    windows = config.get("windows")
    kinds = {} if not isinstance(windows, list) else {
        "layer_types": ["sliding_attention" if is_so else "full_attention" for is_so in windows]}
    return {"expert_selection_fn": "softmax" if config.get("gating") == 1 else "sigmoid",
            "norm_topk_prob": False, **kinds}


def _logit_scale(fields: Fields) -> float:
    return fields.number("logit_scale", 1e-6, 1e6, 0.0625)


FAMILIES = (Family("cohere", ("CohereForCausalLM",), from_config, gguf=Gguf(("command-r",))),
            Family("cohere2", ("Cohere2ForCausalLM",), second_from_config, gguf=Gguf(("cohere2",))),
            Family("cohere2_moe", ("Cohere2MoeForCausalLM",), mixture_from_config, deepseek.NAMES, Gguf(
                ("cohere2moe",), complete=_completed, keys={
                    "feed_forward_length": "prefix_dense_intermediate_size",
                    "expert_feed_forward_length": "intermediate_size", "expert_count": "num_experts",
                    "expert_used_count": "num_experts_per_tok", "expert_shared_count": "num_shared_experts",
                    "leading_dense_block_count": "first_k_dense_replace", "expert_gating_func": "gating",
                    "expert_weights_norm": "norm_topk_prob", "attention.sliding_window_pattern": "windows",
                    "rope.freq_base": "rope_theta"})))
