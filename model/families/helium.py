"""Helium: Llama's layers, neighbouring pairs rotated."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, rope
from model.families.llama import uniform
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-8, rope_theta=1e5, max_position_embeddings=4096)
    found = uniform(fields, qkv_bias=fields.boolean("attention_bias"))
    turned = rope(fields, interleaved=True)
    return replace(found, layers=tuple(layer.with_attention(rope=turned) for layer in found.layers))


FAMILIES = (Family("helium", ("HeliumForCausalLM",), from_config),)
