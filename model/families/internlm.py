"""InternLM 1: Llama's layers with biases around attention. GGUF files call it a Llama."""

from __future__ import annotations

from model.families.family import Family
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("bias", True)
    return uniform(fields, qkv_bias=bias, o_bias=bias)


FAMILIES = (Family("internlm", ("InternLMForCausalLM",), from_config),)
