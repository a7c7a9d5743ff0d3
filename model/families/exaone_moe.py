"""K-EXAONE: EXAONE 4's attention behind norms, and after some dense layers DeepSeek V3's experts."""

from __future__ import annotations

from dataclasses import replace

from model.families import deepseek, exaone4
from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        n_routed_experts=fields.raw.get("num_experts"),
        n_shared_experts=fields.raw.get("num_shared_experts", 1),
        moe_layer_freq=1, num_experts_per_tok=8, routed_scaling_factor=2.5, norm_topk_prob=True)
    found, experts = exaone4.from_config(fields), deepseek.mixture(fields)
    return replace(found, layers=tuple(
        replace(layer, mlp=experts if is_mixture else layer.mlp, norm_before=True, norm_after=False)
        for layer, is_mixture in zip(found.layers, deepseek.are_mixtures(fields), strict=True)))


FAMILIES = (Family(
    "exaone_moe", ("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"), from_config,
    replace(deepseek.NAMES, router_correction="mlp.e_score_correction_bias"),
    Gguf(("exaone-moe",), keys=deepseek.MIXTURE_KEYS)),)
