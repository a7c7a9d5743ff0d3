"""Qwen 3.5: as Qwen 3 Next, with an mlp or a mixture of experts, and the delta rule's inputs apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, dense
from model.families.qwen3_next import (
    GGUF_KEYS,
    GGUF_NAMES,
    MIXTURE_KEYS,
    NAMES,
    completed,
    hybrid,
    mixture,
)
from model.families.spec import Spec

_NAMES = replace(NAMES, state_in=("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),
                 state_heads=("linear_attn.in_proj_b", "linear_attn.in_proj_a"))
_MIXTURE_NAMES = replace(_NAMES, expert_gate_up=("mlp.experts.gate_up_proj#{}",),
                         expert_down="mlp.experts.down_proj#{}")
_GGUF_NAMES = replace(GGUF_NAMES, state_heads=("ssm_beta", "ssm_alpha"))


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(max_position_embeddings=32768)
    return hybrid(fields, dense(fields))


def mixture_from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(max_position_embeddings=32768)
    return hybrid(fields, mixture(fields))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """GGUF has the value heads in another order."""
    return {"tiled_value_heads": True, **completed(config)}


FAMILIES = (
    Family("qwen3_5", ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"), from_config, _NAMES,
           Gguf(("qwen35",), _GGUF_NAMES, keys=GGUF_KEYS, complete=_completed)),
    Family("qwen3_5_moe", ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
           mixture_from_config, _MIXTURE_NAMES, Gguf(
               ("qwen35moe",), _GGUF_NAMES, keys={**GGUF_KEYS, **MIXTURE_KEYS}, complete=_completed)))
