"""Apertus, and the text model of Apertus 1.5, whose head has no rows for images and sounds: xIELU, whose
slopes are each layer's own, between the products of an mlp without a gate; norms of heads.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, num_layers, rms_norm, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Dense, HeadNorm, Layer, Spec

_ROPE = {"rope_type": "llama3", "rope_theta": 12e6, "factor": 8.0, "original_max_position_embeddings": 8192,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(max_position_embeddings=65536)
    if fields.raw.get("rope_scaling") is None:
        fields = fields.with_defaults(rope_parameters=_ROPE)
    if fields.raw.get("hidden_act", "xielu") != "xielu":
        raise fields.error("hidden_act", fields.raw["hidden_act"], "'xielu'")
    if fields.boolean("post_norm"):
        raise fields.error("post_norm", True, "false")
    norm, bias = rms_norm(fields, default=1e-5), fields.boolean("attention_bias")
    qk_norm = HeadNorm(norm) if fields.boolean("qk_norm", True) else None
    mlp = Dense(fields.integer("intermediate_size", 8, 1 << 20), "xielu", gated=False,
                bias=fields.boolean("mlp_bias"))
    mixer = attention(fields, rope(fields, theta=12e6), qk_norm=qk_norm, qkv_bias=bias, o_bias=bias)
    vocab_size = fields.integer("vocab_size", 2, 1 << 22)
    rows = fields.integer("output_vocab_size", 1, vocab_size, vocab_size)
    return spec(fields, [Layer(mixer, mlp, norm)] * num_layers(fields), norm,
                head_rows=rows if rows < vocab_size else None)


_FOLDERS = ("ApertusForCausalLM", "Apertus1p5TextForCausalLM", "Apertus1p5ForConditionalGeneration")
FAMILIES = (Family("apertus", _FOLDERS, from_config, replace(
    HUGGING_FACE, attention_norm="attention_layernorm", mlp_norm="feedforward_layernorm",
    gate_up=("mlp.up_proj",)), Gguf(("apertus",), replace(
        GGUF, gate_up=("ffn_up",), slopes=("xielu.alpha_p", "xielu.alpha_n")))),)
