"""gpt-oss: a logit of nothing beside the scores of each head, windows on every other layer, experts with
biases whose activation is clamped. In folders the experts of a layer lie in one tensor, gate and up in turn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, are_windows, attention, moe, rms_norm, rope, spec, window_of
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Dense, Layer, Spec

_ALPHA, _LIMIT = 1.702, 7.0
"""Of the activation, as the kernels have it."""


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(num_experts_per_tok=4, sliding_window=128)
    if "moe_intermediate_size" not in fields.raw:
        fields = fields.with_defaults(moe_intermediate_size=fields.raw.get("intermediate_size"),
                                      num_experts=fields.raw.get("num_local_experts"))
    for key, known in (("swiglu_alpha", _ALPHA), ("swiglu_limit", _LIMIT)):
        if fields.number(key, 0.0, 1e6, known) != known:
            raise fields.error(key, fields.raw[key], f"{known}")
    norm = rms_norm(fields, default=1e-5)
    expert = Dense(fields.integer("moe_intermediate_size", 8, 1 << 20), "clamped", bias=True)
    experts = moe(fields, expert, "num_experts", {"scoring": "softmax of chosen"}, router_bias=True)
    turned, window = rope(fields, theta=150000.0), window_of(fields)
    parts: dict[str, Any] = {"sinks": True, "qkv_bias": True, "o_bias": True}
    layers = [Layer(attention(fields, turned, window=window if is_window else None, **parts), experts, norm)
              for is_window in are_windows(fields, full_every=2)]
    return spec(fields, layers, norm)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The ends of YaRN's ramp are not rounded in these models, which GGUF does not say."""
    scaling = config.get("rope_scaling")
    return {"rope_parameters": {**scaling, "truncate": False}} if isinstance(scaling, dict) else {}


NAMES = replace(HUGGING_FACE, router="mlp.router", expert_gate_up=("mlp.experts.gate_up_proj~#{}",),
                expert_down="mlp.experts.down_proj~#{}", alternates_gate_up=True)
FAMILIES = (Family("gpt_oss", ("GptOssForCausalLM",), from_config, NAMES, Gguf(
    ("gpt-oss",), replace(GGUF, mlp_norm="post_attention_norm"), keys={
        "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size"}, complete=_completed)),)
