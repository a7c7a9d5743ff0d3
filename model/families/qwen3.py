"""Qwen 3, VL's text models among them: as Qwen 2, with a norm for each head of queries and keys."""

from __future__ import annotations

from model.families.family import Family, Gguf
from model.families.fields import Fields, rms_norm
from model.families.qwen2 import layered
from model.families.spec import HeadNorm, Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    return layered(fields, qk_norm=HeadNorm(rms_norm(fields)), qkv_bias=bias, o_bias=bias)


FAMILIES = (Family("qwen3", ("Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration"), from_config,
                   gguf=Gguf(("qwen3", "qwen3vl"))),)
