"""Llama 1 to 3, and those who publish their models in its form: SmolVLM's text models, too. InternLM3
names its biases differently.

GGUF files call Mixtral a Llama, too, with experts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, moe, num_layers, rms_norm, rope, spec
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    found = uniform(fields, qkv_bias=fields.boolean("qkv_bias", bias), o_bias=fields.boolean("bias", bias))
    return with_experts(fields, found) if fields.raw.get("num_local_experts") else found


def uniform(fields: Fields, **parts: Any) -> Spec:
    """Equal layers with norms before both branches; `parts` are further fields of Attention."""
    norm = rms_norm(fields)
    mlp = dense(fields, bias=fields.boolean("mlp_bias"))
    layer = Layer(attention(fields, rope(fields), **parts), mlp, norm)
    return spec(fields, [layer] * num_layers(fields), norm)


def with_experts(fields: Fields, found: Spec) -> Spec:
    """Mixtral's in place of each mlp: their chosen shares add up to 1."""
    experts = moe(fields, dense(fields), "num_local_experts", {"renormalized": True})
    return replace(found, layers=tuple(replace(layer, mlp=experts) for layer in found.layers))


_SEEING = ("SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration")
_TEXT = ("LlamaForCausalLM", "InternLM3ForCausalLM", "IQuestCoderForCausalLM")
FAMILIES = (Family("llama", (*_TEXT, *_SEEING), from_config, gguf=Gguf(
    ("llama",), interleaved=True, present={"qkv_bias": "blk.0.attn_q.bias", "bias": "blk.0.attn_output.bias"},
    keys={"expert_count": "num_local_experts",
          "expert_used_count": "num_experts_per_tok"})),)
