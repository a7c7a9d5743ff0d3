"""GLM-4: half of each head rotated in neighbouring pairs, norms before and after both branches."""

from __future__ import annotations

from dataclasses import replace

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


FAMILIES = (Family("glm4", ("Glm4ForCausalLM",), from_config, replace(
    HUGGING_FACE, gate_up=("mlp.gate_up_proj",), attention_out_norm="post_self_attn_layernorm",
    mlp_out_norm="post_mlp_layernorm"), Gguf(("glm4",), replace(GGUF, gate_up=("ffn_up",)))),)
