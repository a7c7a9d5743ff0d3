"""Mixtral: Mistral's attention, experts whose chosen weights add up to 1. Its GGUF files are llama.py's."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, window_of
from model.families.llama import uniform, with_experts
from model.families.names import HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-5, num_experts_per_tok=2, num_local_experts=8)
    return with_experts(fields, uniform(fields, window=window_of(fields)))


_EXPERT = "block_sparse_moe.experts.{}."
NAMES = replace(HUGGING_FACE, router="block_sparse_moe.gate", expert_down=_EXPERT + "w2",
                expert_gate_up=(_EXPERT + "w1", _EXPERT + "w3"))
FAMILIES = (Family("mixtral", ("MixtralForCausalLM",), from_config, NAMES),)
