"""Gemma 4: as Gemma 3 without scaled scores, its values normed. Layers that see everything have heads of
their own size, whose values may be their keys, and turn a part of them. The small ones (E2B, E4B) bring each
layer an input of its own, and their upper layers attend to what lower ones keep; the mixture (26B-A4B) has
experts beside the mlp. The text model, where images and sounds belong to it.
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
    proportional_rope,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.gemma2 import embedding_scale
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Attention, Dense, HeadNorm, Layer, LayerInputs, Moe, Norm, Rope, Spec
from model.kernels.routing import Routing

_ACTIVATION = "hidden_activation"
_GELU = "gelu_pytorch_tanh"


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        vocab_size=262144, num_attention_heads=8, num_key_value_heads=4, head_dim=256, global_head_dim=512,
        max_position_embeddings=131072, sliding_window=512, tie_word_embeddings=True)
    if fields.raw.get("use_bidirectional_attention") == "all":
        raise fields.error("use_bidirectional_attention", "all", "a model that sees what stands before alone")
    norm, windows = rms_norm(fields), _are_windows(fields)
    shared = fields.integer("num_kv_shared_layers", 0, len(windows), default=0)
    first_shared, kinds = len(windows) - shared, _attentions(fields, norm)
    mlps = _mlps(fields, norm, len(windows), first_shared)
    layers = []
    for index, (is_window, mlp) in enumerate(zip(windows, mlps, strict=True)):
        own = kinds[is_window]
        if index >= first_shared:
            own = replace(own, reads_cache_of=cache_source(fields, windows[:first_shared], is_window))
        layers.append(Layer(own, mlp, norm, norm_after=True, has_scale=True))
    return spec(fields, layers, norm, embedding_scale=embedding_scale(fields),
                logit_softcap=fields.optional_number("final_logit_softcapping", 1e-3, 1e6),
                layer_inputs=layer_inputs(fields, norm))


def _are_windows(fields: Fields) -> list[bool]:
    """The last layer sees everything, whatever the file says."""
    return [*are_windows(fields, full_every=6)[:-1], False]


def cache_source(fields: Fields, kept: list[bool], is_window: bool) -> int:
    """The last layer of its kind that keeps keys and values."""
    if is_window not in kept:
        raise fields.error("num_kv_shared_layers", fields.raw.get("num_kv_shared_layers"),
                           "a number that leaves a layer of each kind")
    return max(index for index, other in enumerate(kept) if other == is_window)


def _attentions(fields: Fields, norm: Norm) -> dict[bool, Attention]:
    """Of layers with a window, and of those without."""
    bias, k_is_v = fields.boolean("attention_bias"), fields.boolean("attention_k_eq_v")
    parts: dict[str, Any] = {"scale": 1.0, "qkv_bias": bias, "o_bias": bias, "qk_norm": HeadNorm(norm),
                             "value_norm": norm}
    far_fields = replace(fields, raw={**fields.raw, **_far_heads(fields, k_is_v)})
    return {True: attention(fields, rope(fields, "sliding_attention"), window=window_of(fields), **parts),
            False: attention(far_fields, _far_rope(far_fields), keys_as_values=k_is_v, **parts)}


def _far_heads(fields: Fields, k_is_v: bool) -> dict[str, Any]:
    """Keys that differ in layers that see everything: under names of their own, or by layer."""
    by_layer = fields.object("per_layer_config")
    if by_layer is None:
        far = {"head_dim": fields.raw.get("global_head_dim")}
        if k_is_v and fields.raw.get("num_global_key_value_heads") is not None:
            far["num_key_value_heads"] = fields.raw["num_global_key_value_heads"]
        return far
    found = [by_layer.raw.get(str(index)) for index, window in enumerate(_are_windows(fields)) if not window]
    if not isinstance(found[0], dict) or any(one != found[0] for one in found):
        raise fields.error("per_layer_config", by_layer.raw, "the same of all layers with full_attention")
    return {key: found[0][key] for key in ("head_dim", "num_key_value_heads") if key in found[0]}


def _far_rope(fields: Fields) -> Rope:
    block = fields.object("rope_parameters")
    block = None if block is None else block.object("full_attention")
    if block is None:
        block = replace(fields, raw={"rope_type": "proportional"})
    if block.raw.get("rope_type") != "proportional":
        return rope(fields, "full_attention", 1e6)
    return proportional_rope(fields, block.with_defaults(partial_rotary_factor=0.25))


def _mlps(fields: Fields, norm: Norm, count: int, first_shared: int) -> list[Dense | Moe]:
    own = dense(fields, _ACTIVATION, _GELU)
    if not fields.boolean("enable_moe_block"):
        wide = replace(own, intermediate_size=2 * own.intermediate_size)
        widens = fields.boolean("use_double_wide_mlp")
        return [wide if widens and index >= first_shared else own for index in range(count)]
    experts = fields.integer("num_experts", 1, 4096)
    expert = replace(own, intermediate_size=fields.integer("moe_intermediate_size", 8, 1 << 20))
    routing = Routing(fields.integer("top_k_experts", 1, experts), renormalized=True)
    return [Moe(experts, expert, routing, expert_scale=True, router_norm=norm, shared=own, apart=True,
                router_scale=fields.integer("hidden_size", 8, 1 << 16) ** -0.5)] * count


def layer_inputs(fields: Fields, norm: Norm) -> LayerInputs | None:
    size = fields.integer("hidden_size_per_layer_input", 0, 1 << 16, default=0)
    if size == 0:
        return None
    vocab_size = fields.integer("vocab_size", 2, 1 << 22)
    rows = fields.integer("vocab_size_per_layer_input", 1, 1 << 22, vocab_size)
    return LayerInputs(size, size ** 0.5, dense(fields, _ACTIVATION, _GELU).activation, norm,
                       rows if rows < vocab_size else None)


NAMES = replace(HUGGING_FACE, mlp_norm="pre_feedforward_layernorm", router="router.proj",
                shared_gate_up=HUGGING_FACE.gate_up, shared_down=HUGGING_FACE.down_proj,
                expert_gate_up=("experts.gate_up_proj#{}",), expert_down="experts.down_proj#{}")
_GGUF_NAMES = replace(GGUF, shared_gate_up=GGUF.gate_up, shared_down=GGUF.down_proj,
                      expert_gate_up=("ffn_gate_up_exps#{}",))
_GGUF_KEYS = {
    "attention.key_length": "global_head_dim", "attention.key_length_swa": "head_dim",
    "attention.head_count_kv": "kv_heads_of_layers", "feed_forward_length": "sizes_of_layers",
    "attention.sliding_window_pattern": "windows_of_layers", "rope.freq_base_swa": "near_theta",
    "attention.shared_kv_layers": "num_kv_shared_layers", "expert_count": "num_experts",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input", "expert_used_count": "top_k_experts",
    "expert_feed_forward_length": "moe_intermediate_size"}


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """What GGUF says layer by layer. Keys are values where layers that see everything have other heads."""
    windows, count = config.get("windows_of_layers"), config.get("num_hidden_layers")
    heads, sizes = config.get("kv_heads_of_layers"), config.get("sizes_of_layers")
    rope_block = config.get("rope_scaling") or {"rope_type": "proportional"}
    found = {"rope_parameters": {"full_attention": {"rope_theta": config.get("rope_theta"), **rope_block},
                                 "sliding_attention": {"rope_theta": config.get("near_theta")}},
             "enable_moe_block": bool(config.get("num_experts"))}
    if isinstance(windows, list) and len(windows) == count:
        found["layer_types"] = ["sliding_attention" if window else "full_attention" for window in windows]
        if isinstance(heads, list) and len(heads) == count:
            near, far = (next((n for n, window in zip(heads, windows, strict=True) if bool(window) == kind),
                              None) for kind in (True, False))
            found |= {"num_key_value_heads": near, "num_global_key_value_heads": far,
                      "attention_k_eq_v": near != far}
    if not isinstance(heads, list):
        found["num_key_value_heads"] = heads
    found["intermediate_size"] = sizes[0] if isinstance(sizes, list) and sizes else sizes
    found["use_double_wide_mlp"] = isinstance(sizes, list) and len(set(sizes)) > 1
    return found


FAMILIES = (
    Family("gemma4", ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"), from_config, NAMES,
           Gguf(("gemma4",), _GGUF_NAMES, keys=_GGUF_KEYS, complete=completed)),
    Family("gemma4_unified", ("Gemma4UnifiedForCausalLM", "Gemma4UnifiedForConditionalGeneration"),
           from_config, NAMES))
