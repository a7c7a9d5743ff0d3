"""Seed-OSS: Llama's layers with biases of queries, keys and values, and of the output where it is said."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    return uniform(fields, qkv_bias=fields.boolean("attention_bias", True),
                   o_bias=fields.boolean("attention_out_bias"))


FAMILIES = (Family("seed_oss", ("SeedOssForCausalLM",), from_config, HUGGING_FACE, Gguf(
    ("seed_oss",), replace(GGUF, mlp_norm="post_attention_norm"))),)
