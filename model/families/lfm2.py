"""LFM2: short convolutions, attention with norms of heads on some layers; and its mixtures of experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, moe, num_layers, rms_norm, rope, spec
from model.families.mamba import layers_with_heads
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Dense, HeadNorm, Layer, ShortConv, Spec

NAMES = replace(
    HUGGING_FACE, norm="model.embedding_norm", attention_norm="operator_norm", mlp_norm="ffn_norm",
    o_proj="self_attn.out_proj", query_norm="self_attn.q_layernorm", key_norm="self_attn.k_layernorm",
    state_in=("conv.in_proj",), state_conv=("conv.conv",), state_out="conv.out_proj",
    gate_up=("feed_forward.w1", "feed_forward.w3"), down_proj="feed_forward.w2")


_GGUF_NAMES = replace(GGUF, norm="token_embd_norm", state_in=("shortconv.in_proj",),
                      state_conv=("shortconv.conv",), state_out="shortconv.out_proj")


_MIXTURE_NAMES = replace(
    NAMES, router="feed_forward.gate", router_correction="feed_forward.expert_bias",
    expert_gate_up=("feed_forward.experts.{}.w1", "feed_forward.experts.{}.w3"),
    expert_down="feed_forward.experts.{}.w2")


def mixture_from_config(fields: Fields) -> Spec:
    """Experts on all layers but the first ones, chosen by a sigmoid and a correction."""
    fields = fields.with_defaults(block_auto_adjust_ff_dim=False, num_experts_per_tok=4)
    expert = Dense(fields.integer("moe_intermediate_size", 8, 1 << 20))
    experts = moe(fields, expert, "num_experts", {
        "scoring": "sigmoid", "renormalized": fields.boolean("norm_topk_prob", True), "share_eps": 1e-6,
        "scale": fields.number("routed_scaling_factor", 0.0, 1e4, 1.0)},
        correction=fields.boolean("use_expert_bias", True))
    spec = from_config(fields)
    count = fields.integer("num_dense_layers", 0, 512, 2)
    return replace(spec, layers=tuple(layer if index < count else replace(layer, mlp=experts)
                                      for index, layer in enumerate(spec.layers)))


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(max_position_embeddings=128000,
                                  tie_word_embeddings=fields.boolean("tie_embedding", True))
    norm = rms_norm(fields, "norm_eps", 1e-5)
    mlp = dense(replace(fields, raw={**fields.raw, "intermediate_size": _inner_size(fields)}))
    conv = ShortConv(fields.integer("hidden_size", 8, 1 << 16), fields.integer("conv_L_cache", 2, 16, 3),
                     bias=fields.boolean("conv_bias"))
    attends = attention(fields, rope(fields, theta=1e6), qk_norm=HeadNorm(norm))
    layers = [Layer(attends if is_full else conv, mlp, norm) for is_full in _are_full(fields)]
    return spec(fields, layers, norm)


def _are_full(fields: Fields) -> list[bool]:
    """By layer_types; in older files by the numbers of those that attend."""
    count = num_layers(fields)
    if fields.raw.get("layer_types") is not None:
        kinds = fields.choices("layer_types", count, ("conv", "full_attention"))
        return [kind == "full_attention" for kind in kinds]
    indices = fields.raw.get("full_attn_idxs")
    if indices is None:
        return [True] * count
    if not isinstance(indices, list) or not all(index in range(count) for index in indices):
        raise fields.error("full_attn_idxs", indices, f"numbers of layers, 0 to {count - 1}")
    return [index in indices for index in range(count)]


def _inner_size(fields: Fields) -> int:
    """Of the mlp; two thirds of what is said, rounded up, where it is to be adjusted."""
    key = "block_ff_dim" if fields.raw.get("block_ff_dim") is not None else "intermediate_size"
    size = fields.integer(key, 8, 1 << 20, 12288)
    if not fields.boolean("block_auto_adjust_ff_dim", True):
        return size
    multiple = fields.integer("block_multiple_of", 1, 1 << 16, 256)
    size = int(int(2 * size / 3) * fields.number("block_ffn_dim_multiplier", 1e-3, 1e3, 1.0))
    return -(-size // multiple) * multiple


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The width of the mlp needs no adjusting, and layers are told by their heads."""
    completed: dict[str, Any] = {"block_auto_adjust_ff_dim": False}
    attends = layers_with_heads(config)
    if attends is not None:
        completed["layer_types"] = ["full_attention" if is_so else "conv" for is_so in attends]
    return completed


_GGUF_KEYS = {"shortconv.l_cache": "conv_L_cache", "attention.layer_norm_rms_epsilon": "norm_eps"}
_MIXTURE_KEYS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
                 "expert_feed_forward_length": "moe_intermediate_size",
                 "leading_dense_block_count": "num_dense_layers"}

FAMILIES = (
    Family("lfm2", ("Lfm2ForCausalLM", "Lfm2VlForConditionalGeneration"), from_config, NAMES,
           Gguf(("lfm2",), _GGUF_NAMES, complete=_completed, keys=_GGUF_KEYS)),
    Family("lfm2_moe", ("Lfm2MoeForCausalLM",), mixture_from_config, _MIXTURE_NAMES, Gguf(
        ("lfm2moe",), _GGUF_NAMES, complete=_completed, keys={**_GGUF_KEYS, **_MIXTURE_KEYS})))
