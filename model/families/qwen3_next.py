"""Qwen 3 Next: the gated delta rule on three layers of four, on the fourth attention with an output gate and
a quarter of each head rotated; mixtures of experts with a shared one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, moe, num_layers, rms_norm, rope, spec
from model.families.names import GGUF, HUGGING_FACE
from model.families.qwen3_moe import with_experts
from model.families.spec import Dense, GatedDelta, HeadNorm, Layer, Moe, Spec

NAMES = replace(
    HUGGING_FACE, norm_offset=1.0, state_in=("linear_attn.in_proj_qkvz",),
    state_heads=("linear_attn.in_proj_ba",), state_conv=("linear_attn.conv1d",),
    state_norm="linear_attn.norm", state_out="linear_attn.out_proj", decay="linear_attn.A_log",
    step_bias="linear_attn.dt_bias")
GGUF_NAMES = replace(GGUF, state_in=("attn_qkv", "attn_gate"), state_heads=("ssm_ba",),
                     mlp_norm="post_attention_norm")
GGUF_KEYS = {
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.state_size": "linear_key_head_dim", "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads", "ssm.inner_size": "linear_inner_size",
    "attention.recurrent_layers": "recurrent_layers", "full_attention_interval": "full_attention_interval"}
MIXTURE_KEYS = {
    "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size"}


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(max_position_embeddings=32768)
    if fields.raw.get("intermediate_size") is None:  # GGUF has none where there is no layer with an mlp
        return hybrid(fields, mixture(fields))
    return with_experts(fields, hybrid(fields, dense(fields)), mixture(fields))


def mixture(fields: Fields) -> Moe:
    """Experts, and one of every token."""
    fields = fields.with_defaults(num_experts_per_tok=8)
    shared = Dense(fields.integer("shared_expert_intermediate_size", 8, 1 << 20, 512))
    expert = Dense(fields.integer("moe_intermediate_size", 8, 1 << 20, 512))
    routing = {"renormalized": fields.boolean("norm_topk_prob", True)}
    return moe(fields, expert, "num_experts", routing, shared=shared, shared_gate=True)


def hybrid(fields: Fields, mlp: Dense | Moe) -> Spec:
    """Layers of both kinds, each with this mlp."""
    fields = fields.with_defaults(partial_rotary_factor=0.25, head_dim=256)
    norm, bias = rms_norm(fields), fields.boolean("attention_bias")
    attends = attention(fields, rope(fields), qk_norm=HeadNorm(norm), qkv_bias=bias, o_bias=bias,
                        output_gate="number")
    delta = _delta(fields)
    return spec(fields, [Layer(attends if is_full else delta, mlp, norm) for is_full in _are_full(fields)],
                norm)


def _delta(fields: Fields) -> GatedDelta:
    keys = fields.integer("linear_num_key_heads", 1, 1024, 16)
    values = fields.integer("linear_num_value_heads", 1, 1024, 32)
    if values % keys:
        raise fields.error("linear_num_value_heads", values, f"a multiple of linear_num_key_heads, {keys}")
    return GatedDelta(keys, values, fields.integer("linear_key_head_dim", 8, 256, 128),
                      fields.integer("linear_value_head_dim", 8, 1024, 128),
                      fields.integer("linear_conv_kernel_dim", 2, 16, 4), rms_norm(fields),
                      tiled=fields.boolean("tiled_value_heads"))


def _are_full(fields: Fields) -> list[bool]:
    """By layer_types, else every so many layers."""
    count = num_layers(fields)
    if fields.raw.get("layer_types") is not None:
        kinds = fields.choices("layer_types", count, ("linear_attention", "full_attention"))
        return [kind == "full_attention" for kind in kinds]
    every = fields.integer("full_attention_interval", 1, 512, 4)
    return [(index + 1) % every == 0 for index in range(count)]


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """GGUF has the size of all value heads together."""
    heads, inner = config.get("linear_num_value_heads"), config.get("linear_inner_size")
    found: dict[str, Any] = {}
    if isinstance(heads, int) and isinstance(inner, int) and heads > 0:
        found["linear_value_head_dim"] = inner // heads
    recurrent = config.get("recurrent_layers")
    if isinstance(recurrent, list):
        found["layer_types"] = ["linear_attention" if is_so else "full_attention"
                                for is_so in recurrent]
    return found


FAMILIES = (Family("qwen3_next", ("Qwen3NextForCausalLM",), from_config, NAMES, Gguf(
    ("qwen3next",), GGUF_NAMES, keys={**GGUF_KEYS, **MIXTURE_KEYS}, complete=completed)),)
