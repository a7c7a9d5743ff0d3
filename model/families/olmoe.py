"""OLMoE: experts in every layer, one norm over all heads of queries and one over all of keys."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, moe, rms_norm
from model.families.llama import uniform
from model.families.spec import HeadNorm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-5, num_experts_per_tok=8, num_experts=64)
    if fields.raw.get("clip_qkv") is not None:
        raise fields.error("clip_qkv", fields.raw["clip_qkv"], "null")
    bias = fields.boolean("attention_bias")
    found = uniform(fields, qk_norm=HeadNorm(rms_norm(fields), span="projection"), qkv_bias=bias, o_bias=bias)
    experts = moe(fields, dense(fields), "num_experts", {"renormalized": fields.boolean("norm_topk_prob")})
    return replace(found, layers=tuple(replace(layer, mlp=experts) for layer in found.layers))


FAMILIES = (Family("olmoe", ("OlmoeForCausalLM",), from_config, gguf=Gguf(("olmoe",), keys={
    "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"})),)
