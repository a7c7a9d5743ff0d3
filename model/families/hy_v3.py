"""Hy 3: Qwen 3's attention, and after a dense layer experts beside a shared one, chosen by sigmoids that a
number of each expert corrects.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families import deepseek, qwen3
from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.names import HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        rms_norm_eps=1e-5, rope_theta=11158840.0, moe_layer_freq=1, num_experts_per_tok=8,
        n_routed_experts=fields.raw.get("num_experts"), norm_topk_prob=True,
        n_shared_experts=fields.raw.get("num_shared_experts", 1),
        routed_scaling_factor=fields.raw.get("router_scaling_factor"))
    found, experts = qwen3.from_config(fields), deepseek.mixture(fields)
    return replace(found, layers=tuple(
        replace(layer, mlp=experts) if is_mixture else layer
        for layer, is_mixture in zip(found.layers, deepseek.are_mixtures(fields), strict=True)))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The width of the shared experts together."""
    width, all_shared = config.get("moe_intermediate_size"), config.get("shared_size")
    if not isinstance(width, int) or not isinstance(all_shared, int) or width < 1:
        return {}
    return {"num_shared_experts": all_shared // width}


FAMILIES = (Family("hy_v3", ("HYV3ForCausalLM",), from_config, replace(
    HUGGING_FACE, router="mlp.router.gate", router_correction="mlp.expert_bias",
    shared_gate_up=("mlp.shared_mlp.gate_proj", "mlp.shared_mlp.up_proj"),
    shared_down="mlp.shared_mlp.down_proj"), Gguf(("hy_v3",), complete=_completed, keys={
        "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size", "expert_weights_norm": "norm_topk_prob",
        "expert_shared_feed_forward_length": "shared_size", "expert_weights_scale": "router_scaling_factor",
        "leading_dense_block_count": "first_k_dense_replace"})),)
