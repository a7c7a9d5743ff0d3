"""dots.llm1: Qwen 3's attention, and after some dense layers DeepSeek V3's experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families import deepseek, qwen3
from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(moe_layer_freq=1, n_shared_experts=1, num_experts_per_tok=8)
    found, experts = qwen3.from_config(fields), deepseek.mixture(fields)
    return replace(found, layers=tuple(
        replace(layer, mlp=experts) if is_mixture else layer
        for layer, is_mixture in zip(found.layers, deepseek.are_mixtures(fields), strict=True)))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A file without a word on it chooses by sigmoids, too."""
    return {"topk_method": "noaux_tc"}


FAMILIES = (Family("dots1", ("Dots1ForCausalLM",), from_config, deepseek.NAMES, Gguf(
    ("dots1",), keys=deepseek.MIXTURE_KEYS, complete=_completed)),)
