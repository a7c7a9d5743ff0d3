"""ERNIE 4.5's dense models: Llama's layers, neighbouring pairs rotated."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, rope
from model.families.llama import uniform
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-5, tie_word_embeddings=True)
    bias = fields.boolean("use_bias")
    spec = uniform(replace(fields, raw={**fields.raw, "mlp_bias": bias}), qkv_bias=bias, o_bias=bias)
    turned = rope(fields, theta=500000.0, interleaved=True)
    return replace(spec, layers=tuple(layer.with_attention(rope=turned) for layer in spec.layers))


FAMILIES = (Family("ernie4_5", ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"), from_config,
                   gguf=Gguf(("ernie4_5",))),)
