"""Jais 2: Llama's layers with norms that have a mean and a bias, biases everywhere, and squared ReLU without
a gate.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(max_position_embeddings=8192)
    norm = Norm("layer", fields.number("layer_norm_eps", 0.0, 0.1, 1e-5), has_bias=True)
    bias = fields.boolean("attention_bias", True)
    mixer = attention(fields, rope(fields), qkv_bias=bias, o_bias=bias)
    mlp = dense(fields, default="relu2", gated=False, bias=fields.boolean("mlp_bias", True))
    return spec(fields, [Layer(mixer, mlp, norm)] * num_layers(fields), norm)


FAMILIES = (Family("jais2", ("Jais2ForCausalLM",), from_config, replace(
    HUGGING_FACE, gate_up=("mlp.up_proj",)), Gguf(("jais2",), replace(GGUF, gate_up=("ffn_up",)))),)
