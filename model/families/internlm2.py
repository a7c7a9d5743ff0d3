"""InternLM 2 and 2.5: Llama's layers under names of their own, and for each head of keys the queries that
share it, the key and the value together.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("bias")
    return uniform(fields.with_defaults(rms_norm_eps=1e-5), qkv_bias=bias, o_bias=bias)


FAMILIES = (Family("internlm2", ("InternLM2ForCausalLM",), from_config, replace(
    HUGGING_FACE, embeddings="model.tok_embeddings", head="output", qkv=("attention.wqkv",), fuses_heads=True,
    o_proj="attention.wo", gate_up=("feed_forward.w1", "feed_forward.w3"), down_proj="feed_forward.w2",
    attention_norm="attention_norm", mlp_norm="ffn_norm"), Gguf(("internlm2",), interleaved=True)),)
