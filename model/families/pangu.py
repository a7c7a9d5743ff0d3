"""openPangu Embedded: Llama's layers with biases around attention."""

from __future__ import annotations

from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("bias", True)
    return uniform(fields.with_defaults(rms_norm_eps=1e-5), qkv_bias=bias, o_bias=bias)


FAMILIES = (Family("pangu", ("PanguEmbeddedForCausalLM",), from_config, gguf=Gguf(
    ("pangu-embedded",), present={"bias": "blk.0.attn_q.bias"})),)
