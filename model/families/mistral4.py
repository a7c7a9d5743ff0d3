"""Mistral Small 4: DeepSeek's attention to latents, with queries that grow with their position, and experts
beside a shared one, whose shares are a softmax of all.
"""

from __future__ import annotations

from dataclasses import replace

from model.families import deepseek
from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, grouped_routing, moe, rms_norm, spec
from model.families.mistral import query_scale
from model.families.spec import Layer, Moe, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=64, v_head_dim=128, n_shared_experts=1,
        num_experts_per_tok=4, moe_layer_freq=1, first_k_dense_replace=0, norm_topk_prob=True)
    norm, own, experts = rms_norm(fields), dense(fields), _experts(fields)
    mixer = replace(deepseek.attention(fields), query_scale=query_scale(fields))
    return spec(fields, [Layer(mixer, experts if is_mixture else own, norm)
                         for is_mixture in deepseek.are_mixtures(fields)], norm)


def _experts(fields: Fields) -> Moe:
    expert = replace(dense(fields), intermediate_size=fields.integer("moe_intermediate_size", 8, 1 << 20))
    shared = fields.integer("n_shared_experts", 1, 64) * expert.intermediate_size
    return moe(fields, expert, "n_routed_experts", grouped_routing(fields, "n_routed_experts", "softmax"),
               shared=replace(expert, intermediate_size=shared))


FAMILIES = (Family("mistral4", ("Mistral4ForCausalLM",), from_config, replace(
    deepseek.NAMES, expert_gate_up=("mlp.experts.gate_up_proj#{}",),
    expert_down="mlp.experts.down_proj#{}"), Gguf(
        ("mistral4",), complete=deepseek.completed,
        keys={**deepseek.GGUF_KEYS, "attention.temperature_scale": "llama_4_scaling_beta"})),)
