"""Nemotron: norms with a mean, weights stored less 1; squared ReLU without a gate; half of a head rotated."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(partial_rotary_factor=0.5, max_position_embeddings=4096)
    bias = fields.boolean("attention_bias")
    norm = Norm("layer", fields.number("norm_eps", 0.0, 0.1, 1e-5), has_bias=True)
    mixer = attention(fields, rope(fields), qkv_bias=bias, o_bias=bias)
    mlp = dense(fields, default="relu2", gated=False, bias=fields.boolean("mlp_bias"))
    return spec(fields, [Layer(mixer, mlp, norm)] * num_layers(fields), norm)


FAMILIES = (Family("nemotron", ("NemotronForCausalLM",), from_config, replace(
    HUGGING_FACE, gate_up=("mlp.up_proj",), norm_offset=1.0), Gguf(
        ("nemotron",), replace(GGUF, gate_up=("ffn_up",)),
        keys={"attention.layer_norm_epsilon": "norm_eps"})),)
