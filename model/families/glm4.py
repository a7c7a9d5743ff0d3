"""GLM-4, and the text models of GLM-4V: half of each head rotated in neighbouring pairs, norms before and
after both branches; the first of them, and GLM-Edge, have none after.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(partial_rotary_factor=0.5)
    norm = rms_norm(fields, default=1.5625e-7)
    mixer = attention(fields, rope(fields, interleaved=True), qkv_bias=fields.boolean("attention_bias"))
    layer = Layer(mixer, dense(fields), norm, norm_after=True)
    return spec(fields, [layer] * num_layers(fields), norm)


def first_from_config(fields: Fields) -> Spec:
    found = from_config(fields.with_defaults(attention_bias=True))
    return replace(found, layers=tuple(replace(layer, norm_after=False) for layer in found.layers))


def chat_from_config(fields: Fields) -> Spec:
    """ChatGLM 2 and 3 and GLM-4 as first published."""
    for key, known in (("rmsnorm", True), ("apply_residual_connection_post_layernorm", False),
                       ("add_bias_linear", False), ("original_rope", True), ("post_layer_norm", True)):
        if fields.boolean(key, known) != known:
            raise fields.error(key, not known, str(known).lower())
    padded = fields.raw.get("padded_vocab_size", fields.raw.get("vocab_size"))
    fields = replace(fields, raw={**fields.raw, "vocab_size": padded})
    heads = fields.raw.get("num_attention_heads")
    shared = fields.boolean("multi_query_attention")
    return first_from_config(fields.with_defaults(
        num_hidden_layers=fields.raw.get("num_layers"), head_dim=fields.raw.get("kv_channels"),
        num_key_value_heads=fields.raw.get("multi_query_group_num") if shared else heads,
        intermediate_size=fields.raw.get("ffn_hidden_size"), attention_bias=fields.boolean("add_qkv_bias"),
        rms_norm_eps=fields.number("layernorm_epsilon", 0.0, 0.1, 1e-5),
        rope_theta=1e4 * fields.number("rope_ratio", 1e-3, 1e6, 1.0),
        max_position_embeddings=fields.raw.get("seq_length")))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Biases are told by their tensors, whether or not those of queries, keys and values are one."""
    return {"attention_bias": bool(config.get("has_bias") or config.get("has_joined_bias"))}


_GGUF_NAMES = replace(GGUF, gate_up=("ffn_up",))
FAMILIES = (
    Family("glm", ("GlmForCausalLM",), first_from_config, replace(
        HUGGING_FACE, gate_up=("mlp.gate_up_proj",)), Gguf(
            ("chatglm",), _GGUF_NAMES, complete=_completed, present={
                "has_bias": "blk.0.attn_q.bias", "has_joined_bias": "blk.0.attn_qkv.bias"})),
    Family("chatglm", ("ChatGLMModel", "ChatGLMForConditionalGeneration"), chat_from_config, replace(
        HUGGING_FACE, embeddings="transformer.embedding.word_embeddings",
        layer="transformer.encoder.layers.{}.", norm="transformer.encoder.final_layernorm",
        head="transformer.output_layer", qkv=("self_attention.query_key_value",),
        o_proj="self_attention.dense", gate_up=("mlp.dense_h_to_4h",), down_proj="mlp.dense_4h_to_h")),
    Family("glm4", ("Glm4ForCausalLM", "Glm4vForConditionalGeneration"), from_config, replace(
        HUGGING_FACE, gate_up=("mlp.gate_up_proj",), attention_out_norm="post_self_attn_layernorm",
        mlp_out_norm="post_mlp_layernorm"), Gguf(("glm4",), _GGUF_NAMES)))
