"""Mixtral: Mistral's attention, experts whose chosen weights add up to 1."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, moe, window_of
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import Dense, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-5, num_experts_per_tok=2, num_local_experts=8)
    size = fields.integer("intermediate_size", 8, 1 << 20)
    experts = moe(fields, Dense(size), "num_local_experts", {"renormalized": True})
    spec = uniform(fields, window=window_of(fields))
    return replace(spec, layers=tuple(replace(layer, mlp=experts) for layer in spec.layers))


_EXPERT = "block_sparse_moe.experts.{}."
FAMILIES = (Family("mixtral", ("MixtralForCausalLM",), from_config, replace(
    HUGGING_FACE, router="block_sparse_moe.gate", expert_gate_up=(_EXPERT + "w1", _EXPERT + "w3"),
    expert_down=_EXPERT + "w2")),)
