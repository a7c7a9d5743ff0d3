"""Llama 1 to 3, and those who publish their models in its form. InternLM3 names its biases differently."""

from __future__ import annotations

from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    return uniform(fields, qkv_bias=fields.boolean("qkv_bias", bias), o_bias=fields.boolean("bias", bias))


def uniform(fields: Fields, **parts: Any) -> Spec:
    """Equal layers with norms before both branches; `parts` are further fields of Attention."""
    norm = rms_norm(fields)
    mlp = dense(fields, bias=fields.boolean("mlp_bias"))
    layer = Layer(attention(fields, rope(fields), **parts), mlp, norm)
    return spec(fields, [layer] * num_layers(fields), norm)


FAMILIES = (Family("llama", ("LlamaForCausalLM", "InternLM3ForCausalLM"), from_config,
                   gguf=Gguf(("llama",), interleaved=True)),)
