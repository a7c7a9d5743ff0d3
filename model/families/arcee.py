"""Arcee's AFM: Llama's layers, with squared ReLU and no gate in the mlp."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    norm, bias = rms_norm(fields, default=1e-5), fields.boolean("attention_bias")
    mixer = attention(fields, rope(fields), qkv_bias=bias, o_bias=bias)
    mlp = dense(fields, default="relu2", gated=False, bias=fields.boolean("mlp_bias"))
    return spec(fields, [Layer(mixer, mlp, norm)] * num_layers(fields), norm)


FAMILIES = (Family("arcee", ("ArceeForCausalLM",), from_config, replace(
    HUGGING_FACE, gate_up=("mlp.up_proj",)), Gguf(
        ("arcee",), replace(GGUF, gate_up=("ffn_up",)), interleaved=True)),)
