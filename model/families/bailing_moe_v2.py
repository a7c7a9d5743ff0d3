"""Ling 2.0 and Ring 2.0: half of each head rotated, norms of heads, and after some dense layers DeepSeek V3's
experts.
"""

from __future__ import annotations

from dataclasses import replace

from model.families import deepseek
from model.families.family import Family, Gguf
from model.families.fields import Fields, rms_norm
from model.families.llama import uniform
from model.families.names import GGUF
from model.families.spec import HeadNorm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        n_routed_experts=fields.raw.get("num_experts"),
        n_shared_experts=fields.raw.get("num_shared_experts", 1),
        moe_layer_freq=1, partial_rotary_factor=0.5, first_k_dense_replace=1, norm_topk_prob=True)
    bias = fields.boolean("use_bias")
    norm = HeadNorm(rms_norm(fields)) if fields.boolean("use_qk_norm", True) else None
    found = uniform(fields, qk_norm=norm, qkv_bias=fields.boolean("use_qkv_bias"), o_bias=bias)
    experts = deepseek.mixture(fields)
    return replace(found, layers=tuple(
        replace(layer, mlp=experts) if is_mixture else layer
        for layer, is_mixture in zip(found.layers, deepseek.are_mixtures(fields), strict=True)))


def sarvam_from_config(fields: Fields) -> Spec:
    """Sarvam's: all of a head is turned. That corrections have their mean taken off changes no choice."""
    return from_config(fields.with_defaults(partial_rotary_factor=1.0))


_NAMES = replace(
    deepseek.NAMES, embeddings="model.word_embeddings", qkv=("attention.query_key_value",),
    o_proj="attention.dense", query_norm="attention.query_layernorm", key_norm="attention.key_layernorm",
    router_correction="mlp.gate.expert_bias")
FAMILIES = (
    Family("bailing_moe_v2", ("BailingMoeV2ForCausalLM",), from_config, _NAMES, Gguf(
        ("bailingmoe2",), replace(GGUF, qkv=("attn_qkv",)), keys=deepseek.MIXTURE_KEYS,
        complete=lambda config: {"partial_rotary_factor": 1.0})),  # where the file says of no part
    Family("sarvam_moe", ("SarvamMoEForCausalLM",), sarvam_from_config, _NAMES))
