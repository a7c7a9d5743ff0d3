"""OLMo 1: Llama's layers; norms with a mean and without weights. Of those that clip queries, keys and values
none.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.spec import Norm, Spec

_NORM = Norm("layer", 1e-5, has_weight=False)


def from_config(fields: Fields) -> Spec:
    clip = fields.optional_number("clip_qkv", 0.0, 1e6)
    if clip:
        raise fields.error("clip_qkv", clip, "null: clipped queries, keys and values are not supported")
    bias = fields.boolean("attention_bias")
    found = uniform(fields, qkv_bias=bias, o_bias=bias)
    return replace(found, norm=_NORM, layers=tuple(replace(layer, norm=_NORM) for layer in found.layers))


FAMILIES = (Family("olmo", ("OlmoForCausalLM",), from_config, gguf=Gguf(
    ("olmo",), interleaved=True, keys={"attention.clamp_kqv": "clip_qkv"})),)
