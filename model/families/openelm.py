"""OpenELM: Llama's layers with norms of heads; each has its own number of heads and its own width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import HeadNorm, Layer, Spec

_LEAST_SHARE = 0.9
"""Of a width, that rounding it down to a multiple leaves."""


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        hidden_size=fields.raw.get("model_dim"), num_hidden_layers=fields.raw.get("num_transformer_layers"),
        max_position_embeddings=fields.raw.get("max_context_length"), tie_word_embeddings=True,
        rope_theta=fields.raw.get("rope_freq_constant"))
    for key in ("ffn_with_glu", "normalize_qk_projections", "share_input_output_layers"):
        if not fields.boolean(key, True):
            raise fields.error(key, False, "true")
    norm, count = rms_norm(fields), num_layers(fields)
    heads, kv_heads = ([int(each) for each in fields.numbers(key, count, 1, 1024)]
                       for key in ("num_query_heads", "num_kv_heads"))
    layers = []
    for own, kept, width in zip(heads, kv_heads, _widths(fields, count), strict=True):
        of_layer = replace(fields, raw={**fields.raw, "num_attention_heads": own, "num_key_value_heads": kept,
                                        "intermediate_size": width})
        layers.append(Layer(attention(of_layer, rope(of_layer), qk_norm=HeadNorm(norm)),
                            dense(of_layer, "activation_fn_name", "swish"), norm))
    return spec(fields, layers, norm)


def _widths(fields: Fields, count: int) -> list[int]:
    """Of each layer's mlp: multiples of ffn_dim_divisor."""
    if fields.raw.get("intermediate_size") is not None:
        return [int(width) for width in fields.numbers("intermediate_size", count, 8, 1 << 20)]
    hidden = fields.integer("hidden_size", 8, 1 << 16)
    step = fields.integer("ffn_dim_divisor", 1, 1 << 16, 256)
    widths = [share * hidden for share in fields.numbers("ffn_multipliers", count, 1e-3, 1e3)]
    rounded = [max(step, int(width + step / 2) // step * step) for width in widths]
    return [near + step * (near < _LEAST_SHARE * width) for near, width in zip(rounded, widths, strict=True)]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Heads are lists, one for each layer."""
    return {ours: config.pop(theirs, None) for ours, theirs in (
        ("num_query_heads", "num_attention_heads"), ("num_kv_heads", "num_key_value_heads"))}


FAMILIES = (Family("openelm", ("OpenELMForCausalLM",), from_config, replace(
    HUGGING_FACE, embeddings="transformer.token_embeddings", layer="transformer.layers.{}.",
    norm="transformer.norm", qkv=("attn.qkv_proj",), o_proj="attn.out_proj", query_norm="attn.q_norm",
    key_norm="attn.k_norm", attention_norm="attn_norm", mlp_norm="ffn_norm", gate_up=("ffn.proj_1",),
    down_proj="ffn.proj_2"), Gguf(("openelm",), replace(GGUF, qkv=("attn_qkv",)), complete=_completed)),)
