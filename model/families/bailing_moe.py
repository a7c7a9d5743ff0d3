"""Ling Lite and Plus, the first generation: Llama's attention under names of its own, and experts beside
shared ones, whose shares are a softmax of all.
"""

from __future__ import annotations

from dataclasses import replace

from model.families import deepseek
from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, moe
from model.families.llama import uniform
from model.families.spec import Moe, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        n_routed_experts=fields.raw.get("num_experts"), moe_layer_freq=1, first_k_dense_replace=0)
    found, experts = uniform(fields, qkv_bias=fields.boolean("use_qkv_bias"),
                             o_bias=fields.boolean("use_bias")), _experts(fields)
    head_norm = "columns" if fields.boolean("norm_head") else None
    return replace(found, head_norm=head_norm, layers=tuple(
        replace(layer, mlp=experts) if is_mixture else layer
        for layer, is_mixture in zip(found.layers, deepseek.are_mixtures(fields), strict=True)))


def _experts(fields: Fields) -> Moe:
    expert = replace(dense(fields), intermediate_size=fields.integer("moe_intermediate_size", 8, 1 << 20))
    shared = fields.integer("num_shared_experts", 0, 64, 0) * expert.intermediate_size
    return moe(fields, expert, "n_routed_experts", {"renormalized": fields.boolean("norm_topk_prob", True)},
               shared=replace(expert, intermediate_size=shared) if shared else None)


FAMILIES = (Family("bailing_moe", ("BailingMoeForCausalLM",), from_config, replace(
    deepseek.NAMES, embeddings="model.word_embeddings", qkv=("attention.query_key_value",),
    o_proj="attention.dense"), Gguf(("bailingmoe",), interleaved=True, keys={
        **deepseek.MIXTURE_KEYS, "expert_shared_count": "num_shared_experts"})),)
