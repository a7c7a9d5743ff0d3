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


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Biases are told by their tensors, whether or not those of queries, keys and values are one."""
    return {"attention_bias": bool(config.get("has_bias") or config.get("has_joined_bias"))}


_GGUF_NAMES = replace(GGUF, gate_up=("ffn_up",))
FAMILIES = (
    Family("glm", ("GlmForCausalLM",), first_from_config, replace(
        HUGGING_FACE, gate_up=("mlp.gate_up_proj",)), Gguf(
            ("chatglm",), _GGUF_NAMES, complete=_completed, present={
                "has_bias": "blk.0.attn_q.bias", "has_joined_bias": "blk.0.attn_qkv.bias"})),
    Family("glm4", ("Glm4ForCausalLM", "Glm4vForConditionalGeneration"), from_config, replace(
        HUGGING_FACE, gate_up=("mlp.gate_up_proj",), attention_out_norm="post_self_attn_layernorm",
        mlp_out_norm="post_mlp_layernorm"), Gguf(("glm4",), _GGUF_NAMES)))
