"""Hunyuan's dense models: norms of heads after the rotation."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, rms_norm
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import HeadNorm, Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    norm = HeadNorm(rms_norm(fields, default=1e-5), after_rope=True)
    return uniform(fields.with_defaults(rms_norm_eps=1e-5),
                   qk_norm=norm if fields.boolean("use_qk_norm", True) else None, qkv_bias=bias, o_bias=bias)


FAMILIES = (Family("hunyuan_v1_dense", ("HunYuanDenseV1ForCausalLM",), from_config, replace(
    HUGGING_FACE, query_norm="self_attn.query_layernorm", key_norm="self_attn.key_layernorm")),)
