"""Kimi Linear: the delta rule with a decay for each channel on three layers of four, on the fourth attention
to latents without rotation; after a dense layer experts as DeepSeek V3's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families import deepseek
from model.families.family import Family, Gguf
from model.families.fields import Fields, dense, num_layers, rms_norm, spec
from model.families.mamba import layers_with_heads
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import ChannelDelta, Layer, Spec

_DEEPSEEK_KEYS = {
    "num_experts": "n_routed_experts", "num_experts_per_token": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts", "num_expert_group": "n_group",
    "moe_renormalize": "norm_topk_prob", "model_max_length": "max_position_embeddings"}
_DELTA_KEYS = {"head_dim": "linear_head_dim", "num_heads": "linear_num_heads",
               "short_conv_kernel_size": "linear_conv_kernel_dim"}
"""Of linear_attn_config, which transformers writes beside these only where it was given one."""


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(**{theirs: fields.raw.get(ours) for ours, theirs in _DEEPSEEK_KEYS.items()})
    fields = fields.with_defaults(
        kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, rms_norm_eps=1e-5,
        n_shared_experts=1, num_experts_per_tok=8, moe_layer_freq=1, norm_topk_prob=True,
        moe_router_activation_func="sigmoid", mla_use_nope=True)
    for key, expected in (("moe_router_activation_func", "sigmoid"), ("mla_use_nope", True)):
        if fields.raw[key] != expected:
            raise fields.error(key, fields.raw[key], repr(expected).lower())
    norm, own, experts = rms_norm(fields), dense(fields), deepseek.mixture(fields)
    attends, delta = deepseek.latent_attention(fields, None), _delta(fields)
    return spec(fields, [
        Layer(attends if is_full else delta, experts if is_mixture else own, norm)
        for is_full, is_mixture in zip(_are_full(fields), deepseek.are_mixtures(fields), strict=True)], norm)


def _delta(fields: Fields) -> ChannelDelta:
    sizes = fields.object("linear_attn_config") or replace(
        fields, raw={key: fields.raw.get(own) for key, own in _DELTA_KEYS.items()})
    head_dim = sizes.integer("head_dim", 8, 256, 128)
    return ChannelDelta(sizes.integer("num_heads", 1, 1024, 32), head_dim, head_dim,
                        sizes.integer("short_conv_kernel_size", 2, 16, 4), rms_norm(fields))


def _are_full(fields: Fields) -> list[bool]:
    """By layer_types, else by the list of those that attend, which counts from 1."""
    count = num_layers(fields)
    if fields.raw.get("layer_types") is not None:
        kinds = fields.choices("layer_types", count, ("linear_attention", "full_attention"))
        return [kind == "full_attention" for kind in kinds]
    own = fields.object("linear_attn_config")
    listed = None if own is None else own.raw.get("full_attn_layers")
    if not isinstance(listed, list) or not all(type(one) is int and 1 <= one <= count for one in listed):
        raise fields.error("full_attn_layers", listed, f"a list of layers from 1 to {count}")
    return [index + 1 in listed for index in range(count)]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The numbers of heads tell which layers attend; both kinds have as many."""
    attends = layers_with_heads(config) or []
    return {**deepseek.completed(config), "topk_method": "noaux_tc",
            "moe_router_activation_func": "sigmoid" if config.get("gating", 2) == 2 else "softmax",
            "linear_attn_config": {
                "full_attn_layers": [index + 1 for index, is_so in enumerate(attends) if is_so],
                "head_dim": config.get("delta_head_dim"), "num_heads": config.get("num_attention_heads"),
                "short_conv_kernel_size": config.get("delta_kernel")}}


_MIXTURE = "block_sparse_moe."
_SHARED = _MIXTURE + "shared_experts."
_NAMES = replace(
    HUGGING_FACE, state_in=tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v", "g_a")),
    state_heads=("self_attn.f_a_proj", "self_attn.b_proj"),
    state_conv=tuple(f"self_attn.{part}_conv1d" for part in "qkv"), state_norm="self_attn.o_norm",
    state_out="self_attn.o_proj", decay="self_attn.A_log", step_bias="self_attn.dt_bias",
    router=_MIXTURE + "gate", router_correction=_MIXTURE + "gate.e_score_correction_bias",
    expert_gate_up=(_MIXTURE + "experts.{}.w1", _MIXTURE + "experts.{}.w3"),
    expert_down=_MIXTURE + "experts.{}.w2", shared_gate_up=(_SHARED + "gate_proj", _SHARED + "up_proj"),
    shared_down=_SHARED + "down_proj")
_GGUF_NAMES = replace(
    GGUF, state_in=("attn_q", "attn_k", "attn_v", "ssm_g_a"), state_heads=("ssm_f_a", "ssm_beta"),
    state_conv=tuple(f"ssm_conv1d_{part}" for part in "qkv"), state_out="attn_output")

FAMILIES = (Family("kimi_linear", ("KimiLinearForCausalLM",), from_config, _NAMES, Gguf(
    ("kimi-linear",), _GGUF_NAMES, complete=_completed,
    keys={**deepseek.GGUF_KEYS, "kda.head_dim": "delta_head_dim", "ssm.conv_kernel": "delta_kernel"})),)
