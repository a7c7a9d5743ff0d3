"""Phi 1, 1.5 and 2: branches side by side behind one norm with a mean, biases everywhere, the head's among
them; a part of a head is turned.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(partial_rotary_factor=0.5)
    if fields.boolean("qk_layernorm"):
        raise fields.error("qk_layernorm", True, "false")
    norm = Norm("layer", fields.number("layer_norm_eps", 0.0, 0.1, 1e-5), has_bias=True)
    mixer = attention(fields, rope(fields), qkv_bias=True, o_bias=True)
    layer = Layer(mixer, dense(fields, default="gelu_new", gated=False, bias=True), norm, parallel="one norm")
    return spec(fields, [layer] * num_layers(fields), norm)


FAMILIES = (Family("phi", ("PhiForCausalLM",), from_config, replace(
    HUGGING_FACE, norm="model.final_layernorm", o_proj="self_attn.dense", gate_up=("mlp.fc1",),
    down_proj="mlp.fc2"), Gguf(("phi2",), replace(GGUF, gate_up=("ffn_up",)))),)
