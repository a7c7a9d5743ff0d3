"""Falcon 7B, 40B and 11B: branches side by side behind one norm with a mean or one each, an mlp without a
gate; for each head of keys the queries that share it, the key and the value together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    if fields.boolean("alibi"):
        raise fields.error("alibi", True, "false: positions by ALiBi are not supported")
    fields = fields.with_defaults(
        num_attention_heads=fields.raw.get("n_head"), num_hidden_layers=fields.raw.get("n_layer"),
        num_kv_heads=fields.raw.get("n_head_kv"))  # as the first of them had it
    hidden = fields.integer("hidden_size", 8, 1 << 16)
    is_later = fields.boolean("new_decoder_architecture", fields.raw.get("n_head_kv") is not None)
    kv_heads: Any = fields.raw.get("num_attention_heads")
    if is_later:
        kv_heads = fields.raw.get("num_kv_heads")
    elif fields.boolean("multi_query", True):
        kv_heads = 1
    count = fields.raw.get("num_ln_in_parallel_attn")
    has_two = count == 2 or (count is None and is_later)
    fields = fields.with_defaults(num_key_value_heads=kv_heads, tie_word_embeddings=True,
                                  intermediate_size=fields.raw.get("ffn_hidden_size", 4 * hidden))
    bias = fields.boolean("bias")
    norm = Norm("layer", fields.number("layer_norm_epsilon", 0.0, 0.1, 1e-5), has_bias=True)
    side_by_side = fields.boolean("parallel_attn", True) or is_later
    layer = Layer(attention(fields, rope(fields), qkv_bias=bias, o_bias=bias),
                  dense(fields, "activation", "gelu", gated=False, bias=bias), norm,
                  parallel=None if not side_by_side else "two norms" if has_two else "one norm")
    return spec(fields, [layer] * num_layers(fields), norm)


FAMILIES = (Family("falcon", ("FalconForCausalLM", "RWForCausalLM"), from_config, replace(
    HUGGING_FACE, embeddings="transformer.word_embeddings", layer="transformer.h.{}.",
    norm="transformer.ln_f", qkv=("self_attention.query_key_value",), fuses_heads=True,
    o_proj="self_attention.dense", gate_up=("mlp.dense_h_to_4h",), down_proj="mlp.dense_4h_to_h"), Gguf(
        ("falcon",), replace(GGUF, qkv=("attn_qkv",), gate_up=("ffn_up",)),
        keys={"attention.layer_norm_epsilon": "layer_norm_epsilon"},
        present={"has_two_norms": "blk.0.attn_norm_2.weight"},
        complete=lambda config: {"num_ln_in_parallel_attn": 2 if config.get("has_two_norms") else 1})),)
