"""gpt-oss: a logit of nothing beside the scores of each head, windows on every other layer, experts with
biases whose activation is clamped. From GGUF files: folders keep the experts' rows in an order of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, are_windows, attention, moe, rms_norm, rope, spec, window_of
from model.families.names import GGUF
from model.families.spec import Dense, Layer, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(num_experts_per_tok=4, sliding_window=128)
    if "moe_intermediate_size" not in fields.raw:
        raise fields.error("architectures", "GptOssForCausalLM", "a GGUF file of gpt-oss: folders of it are "
                           "not supported")
    norm = rms_norm(fields, default=1e-5)
    expert = Dense(fields.integer("moe_intermediate_size", 8, 1 << 20), "clamped", bias=True)
    experts = moe(fields, expert, "num_experts", {"scoring": "softmax of chosen"}, router_bias=True)
    turned, window = rope(fields, theta=150000.0), window_of(fields)
    parts: dict[str, Any] = {"sinks": True, "qkv_bias": True, "o_bias": True}
    layers = [Layer(attention(fields, turned, window=window if is_window else None, **parts), experts, norm)
              for is_window in are_windows(fields, full_every=2)]
    return spec(fields, layers, norm)


FAMILIES = (Family("gpt_oss", ("GptOssForCausalLM",), from_config, gguf=Gguf(
    ("gpt-oss",), replace(GGUF, mlp_norm="post_attention_norm"), keys={
        "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size"})),)
