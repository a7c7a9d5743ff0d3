"""Phi 3 and 4: one tensor for queries, keys and values, one for gate and up; RoPE of two lengths."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, window_of
from model.families.llama import uniform
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    return uniform(fields.with_defaults(rms_norm_eps=1e-5, max_position_embeddings=4096),
                   window=window_of(fields))


FAMILIES = (Family(
    "phi3", ("Phi3ForCausalLM", "Phi4ForCausalLM"), from_config,
    replace(HUGGING_FACE, qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",)),
    Gguf(("phi3",), replace(GGUF, qkv=("attn_qkv",), gate_up=("ffn_up",)))),)
