"""Gemma and Gemma 2: norms whose weights are stored less 1, scaled embeddings; in the second norms after the
branches too, windows on every other layer, and caps of scores and logits.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    num_layers,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.names import HUGGING_FACE
from model.families.spec import Dense, Layer, Spec

NAMES = replace(HUGGING_FACE, mlp_norm="pre_feedforward_layernorm", norm_offset=1.0)
_GELU = "gelu_pytorch_tanh"


def first_from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(head_dim=256, max_position_embeddings=8192, tie_word_embeddings=True)
    norm = rms_norm(fields)
    bias = fields.boolean("attention_bias")
    layer = Layer(attention(fields, rope(fields), qkv_bias=bias, o_bias=bias), _mlp(fields), norm)
    return spec(fields, [layer] * num_layers(fields), norm, embedding_scale=embedding_scale(fields))


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        num_attention_heads=8, num_key_value_heads=4, head_dim=256, max_position_embeddings=8192,
        query_pre_attn_scalar=256, sliding_window=4096, tie_word_embeddings=True,
        attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    norm, bias = rms_norm(fields), fields.boolean("attention_bias")
    parts = {"scale": query_scale(fields), "qkv_bias": bias, "o_bias": bias,
             "softcap": fields.number("attn_logit_softcapping", 1e-3, 1e6)}
    layers = [Layer(attention(fields, rope(fields), window=window_of(fields) if is_window else None, **parts),
                    _mlp(fields), norm, norm_after=True) for is_window in are_windows(fields, full_every=2)]
    return spec(fields, layers, norm, embedding_scale=embedding_scale(fields),
                logit_softcap=fields.number("final_logit_softcapping", 1e-3, 1e6))


def vault_from_config(fields: Fields) -> Spec:
    """VaultGemma: no norms after the branches."""
    found = from_config(fields)
    return replace(found, layers=tuple(replace(layer, norm_after=False) for layer in found.layers))


def _mlp(fields: Fields) -> Dense:
    key = "hidden_activation" if fields.raw.get("hidden_activation") else "hidden_act"
    return dense(fields, key, _GELU)


def query_scale(fields: Fields) -> float:
    return fields.number("query_pre_attn_scalar", 1.0, 1e6) ** -0.5


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """What GGUF does not say: queries are scaled by head_dim, but in the models of 27B, which have 46 and 62
    layers, by another number."""
    heads, hidden, dim = (config.get(key) for key in ("num_attention_heads", "hidden_size", "head_dim"))
    if config.get("num_hidden_layers") in (46, 62) and isinstance(hidden, int) and isinstance(heads, int):
        return {"query_pre_attn_scalar": hidden // max(1, heads)}
    return {"query_pre_attn_scalar": dim}


def embedding_scale(fields: Fields) -> float:
    """The square root of hidden_size, rounded to bfloat16 as the model's authors have it."""
    root = math.sqrt(fields.integer("hidden_size", 8, 1 << 16))
    step = 2.0 ** (math.floor(math.log2(root)) - 7)
    return round(root / step) * step


FAMILIES = (
    Family("gemma", ("GemmaForCausalLM",), first_from_config, replace(HUGGING_FACE, norm_offset=1.0),
           Gguf(("gemma",), complete=completed)),
    Family("gemma2", ("Gemma2ForCausalLM",), from_config, NAMES, Gguf(("gemma2",), complete=completed)),
    Family("vaultgemma", ("VaultGemmaForCausalLM",), vault_from_config, NAMES))
