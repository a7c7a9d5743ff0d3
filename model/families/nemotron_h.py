"""Nemotron-H, Nemotron 3: every layer is one thing alone: Mamba 2, attention without RoPE, an mlp of squared
ReLU, or experts that are such mlps, beside a shared one; in the larger ones they read and give latents.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, grouped_routing, moe, num_layers, spec
from model.families.mamba import checked, layers_with_heads
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Dense, Layer, Mamba2, Moe, Norm, Spec

_NAMES = replace(
    HUGGING_FACE, embeddings="backbone.embeddings", layer="backbone.layers.{}.", norm="backbone.norm_f",
    attention_norm="norm", mlp_norm="norm", qkv=("mixer.q_proj", "mixer.k_proj", "mixer.v_proj"),
    o_proj="mixer.o_proj", gate_up=("mixer.up_proj",), down_proj="mixer.down_proj",
    state_in=("mixer.in_proj",), state_conv=("mixer.conv1d",), state_norm="mixer.norm",
    state_out="mixer.out_proj", decay="mixer.A_log", step_bias="mixer.dt_bias", skip="mixer.D",
    router="mixer.gate", router_correction="mixer.gate.e_score_correction_bias",
    expert_gate_up=("mixer.experts.{}.up_proj",), expert_down="mixer.experts.{}.down_proj",
    shared_gate_up=("mixer.shared_experts.up_proj",), shared_down="mixer.shared_experts.down_proj",
    expert_latents=("mixer.fc1_latent_proj", "mixer.fc2_latent_proj"))
_KINDS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe", "linear_attention": "mamba",
          "full_attention": "attention", "mamba": "mamba", "attention": "attention", "mlp": "mlp",
          "moe": "moe"}


def from_config(fields: Fields) -> Spec:
    if fields.raw.get("head_dim") is None and fields.raw.get("attention_head_dim") is not None:
        fields = fields.with_defaults(head_dim=fields.raw["attention_head_dim"])
    norm = Norm("rms", fields.number("layer_norm_epsilon", 0.0, 0.1, 1e-5))
    bias = fields.boolean("attention_bias")
    attends = attention(fields, None, qkv_bias=bias, o_bias=bias)
    kinds = _layer_kinds(fields)
    made = {"mamba": Layer(_mamba(fields, norm), None, norm), "attention": Layer(attends, None, norm)}
    if "mlp" in kinds:
        made["mlp"] = Layer(None, _mlp(fields), norm)
    if "moe" in kinds:
        made["moe"] = Layer(None, _experts(fields), norm)
    return spec(fields, [made[kind] for kind in kinds], norm)


def _mlp(fields: Fields, key: str = "intermediate_size", **parts: Any) -> Dense:
    """With the width at `key`."""
    width = fields.integer(key, 8, 1 << 20)
    return dense(replace(fields, raw={**fields.raw, "intermediate_size": width}), "mlp_hidden_act", "relu2",
                 **{"gated": False, "bias": fields.boolean("mlp_bias"), **parts})


def _experts(fields: Fields) -> Moe:
    fields = fields.with_defaults(num_experts_per_tok=2, norm_topk_prob=True)
    latent = None
    if fields.raw.get("moe_latent_size") is not None:
        latent = fields.integer("moe_latent_size", 8, 1 << 16)
    return moe(fields, _mlp(fields, "moe_intermediate_size", bias=False), "n_routed_experts",
               grouped_routing(fields, "n_routed_experts"), correction=True, latent_size=latent,
               shared=_mlp(fields, "moe_shared_expert_intermediate_size"))


def _mamba(fields: Fields, norm: Norm) -> Mamba2:
    bias = fields.boolean("use_bias")
    return checked(
        fields, fields.integer("mamba_num_heads", 1, 4096), fields.integer("mamba_head_dim", 8, 1024),
        fields.integer("n_groups", 1, 4096, 8), fields.integer("ssm_state_size", 8, 256, 128),
        fields.integer("conv_kernel", 2, 16, 4), norm=norm, conv_bias=fields.boolean("use_conv_bias", True),
        in_bias=bias, out_bias=bias, step_limits=(fields.number("time_step_min", 0.0, 1.0, 0.0), math.inf))


def _layer_kinds(fields: Fields) -> list[str]:
    key = "hybrid_override_pattern" if fields.raw.get("hybrid_override_pattern") else "layers_block_type"
    pattern = fields.raw.get(key)
    count = num_layers(fields.with_defaults(
        num_hidden_layers=len(pattern) if isinstance(pattern, str | list) else None))
    if not isinstance(pattern, str | list) or len(pattern) != count:
        raise fields.error(key, pattern, f"{count} layers of {', '.join(_KINDS)}")
    kinds = [_KINDS.get(kind) if isinstance(kind, str) else None for kind in pattern]
    if None in kinds:
        raise fields.error(key, pattern, "layers of mamba (M), attention (*), mlp (-) and experts (E)")
    return [kind for kind in kinds if kind is not None]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """GGUF tells layers by their heads and by the width of their mlp, each 0 where there is none."""
    attends, widths = layers_with_heads(config), config.get("intermediate_size")
    kind = "moe" if config.get("n_routed_experts") else "mlp"
    heads, inner = config.get("mamba_num_heads"), config.get("mamba_inner_size")
    completed: dict[str, Any] = {"time_step_min": 0.001}
    if isinstance(heads, int) and isinstance(inner, int) and heads > 0:
        completed["mamba_head_dim"] = inner // heads
    if attends is not None and isinstance(widths, list) and len(widths) == len(attends):
        config["intermediate_size"] = max((width for width in widths if isinstance(width, int)), default=0)
        completed["layers_block_type"] = ["attention" if is_so else kind if width else "mamba"
                                          for is_so, width in zip(attends, widths, strict=True)]
    return completed


_GGUF_KEYS = {"attention.layer_norm_epsilon": "layer_norm_epsilon",
              "attention.layer_norm_rms_epsilon": "layer_norm_epsilon", "ssm.conv_kernel": "conv_kernel",
              "ssm.state_size": "ssm_state_size", "ssm.group_count": "n_groups",
              "ssm.inner_size": "mamba_inner_size", "ssm.time_step_rank": "mamba_num_heads",
              "expert_count": "n_routed_experts",
              "expert_used_count": "num_experts_per_tok", "moe_latent_size": "moe_latent_size",
              "expert_feed_forward_length": "moe_intermediate_size", "expert_group_count": "n_group",
              "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
              "expert_weights_norm": "norm_topk_prob", "expert_weights_scale": "routed_scaling_factor"}
_GGUF_NAMES = replace(GGUF, mlp_norm="attn_norm", gate_up=("ffn_up",), expert_gate_up=("ffn_up_exps#{}",),
                      shared_gate_up=("ffn_up_shexp",))

FAMILIES = (Family("nemotron_h", ("NemotronHForCausalLM",), from_config, _NAMES, Gguf(
    ("nemotron_h", "nemotron_h_moe"), _GGUF_NAMES, keys=_GGUF_KEYS, complete=_completed)),)
