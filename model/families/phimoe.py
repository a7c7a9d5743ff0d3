"""Phi 3.5 MoE: norms with a mean, biases, and two experts of each layer, chosen and weighed as SparseMixer
does.

Cosine and sine have a factor of the config's own, which must be one for short and long sequences. GGUF files
have another in its place, and there is one model: its factor is known here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, moe, num_layers, rope, spec, window_of
from model.families.mixtral import NAMES
from model.families.spec import Layer, Norm, Rope, Spec

_MAGNITUDE = 1.243163121016122
"""https://huggingface.co/microsoft/Phi-3.5-MoE-instruct/blob/main/config.json"""


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        rms_norm_eps=1e-5, num_experts_per_tok=2, num_local_experts=16, rope_theta=1e6,
        max_position_embeddings=131072)
    if fields.integer("num_experts_per_tok", 1, 4096) != 2:
        raise fields.error("num_experts_per_tok", fields.raw["num_experts_per_tok"], "2")
    norm = Norm("layer", fields.number("rms_norm_eps", 0.0, 0.1), has_bias=True)
    bias = fields.boolean("attention_bias")
    mixer = attention(fields, _rope(fields), window=window_of(fields), qkv_bias=bias, o_bias=bias)
    experts = moe(fields, dense(fields), "num_local_experts", {
        "scoring": "softmax of near", "margin": 2 * fields.number("router_jitter_noise", 0.0, 1.0, 0.01)})
    return spec(fields, [Layer(mixer, experts, norm)] * num_layers(fields), norm)


def _rope(fields: Fields) -> Rope:
    block = fields.object("rope_parameters") or fields.object("rope_scaling")
    if block is None or block.raw.get("short_mscale") is None:
        return rope(fields)
    short, long = (block.number(key, 0.0, 100.0) for key in ("short_mscale", "long_mscale"))
    if short != long:
        raise block.error("long_mscale", long, f"the same as short_mscale, {short:g}")
    raw = {**block.raw, "attention_factor": short}
    return rope(replace(fields, raw={**fields.raw, "rope_parameters": raw}))


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    if config["rope_scaling"] is not None and config["rope_scaling"]["rope_type"] == "longrope":
        config["rope_scaling"]["attention_factor"] = _MAGNITUDE
    return {}


FAMILIES = (Family("phimoe", ("PhiMoEForCausalLM", "PhimoeForCausalLM"), from_config, NAMES, Gguf(
    ("phimoe",), keys={"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
    present={"attention_bias": "blk.0.attn_q.bias"}, complete=_completed)),)
