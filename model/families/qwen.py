"""Qwen 1: Llama's layers under names of their own, with biases of queries, keys and values, which lie in one
tensor. Longer contexts than it was trained with are rotated and scaled in a way of its own: it is loaded as
far as that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, max_positions
from model.families.llama import uniform
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Spec

_TRAINED = 8192
"""Positions of all but the models of 72B, whose base of RoPE is another, too."""


def from_config(fields: Fields) -> Spec:
    theta = fields.number("rotary_emb_base", 1.0, 1e12, 1e4)
    longest = max_positions(fields)
    raw = {**fields.raw, "intermediate_size": fields.integer("intermediate_size", 16, 1 << 21) // 2,
           "max_position_embeddings": min(longest, fields.integer("seq_length", 1, 1 << 24, longest))}
    return uniform(replace(fields, raw=raw).with_defaults(
        rms_norm_eps=fields.raw.get("layer_norm_epsilon", 1e-6), rope_theta=theta,
        head_dim=fields.raw.get("kv_channels")), qkv_bias=True)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    return {"seq_length": _TRAINED} if config.get("rope_theta", 1e4) == 1e4 else {}


FAMILIES = (Family("qwen", ("QWenLMHeadModel",), from_config, replace(
    HUGGING_FACE, embeddings="transformer.wte", layer="transformer.h.{}.", norm="transformer.ln_f",
    qkv=("attn.c_attn",), o_proj="attn.c_proj", gate_up=("mlp.w2", "mlp.w1"), down_proj="mlp.c_proj",
    attention_norm="ln_1", mlp_norm="ln_2"), Gguf(
        ("qwen",), replace(GGUF, qkv=("attn_qkv",)), complete=_completed)),)
