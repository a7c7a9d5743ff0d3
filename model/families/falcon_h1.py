"""Falcon-H1: attention and Mamba 2 side by side in every layer, and multipliers everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec
from model.families.mamba import GGUF_KEYS, mamba2
from model.families.names import HUGGING_FACE
from model.families.spec import Layer, Spec

_NAMES = replace(HUGGING_FACE, norm="model.final_layernorm", mlp_norm="pre_ff_layernorm",
                 gate_up=("feed_forward.gate_proj", "feed_forward.up_proj"),
                 down_proj="feed_forward.down_proj")


def from_config(fields: Fields) -> Spec:
    """What multiplies queries, keys and values is the scores' scale, and the result's."""
    norm, bias = rms_norm(fields, default=1e-5), fields.boolean("attention_bias")
    into = _factor(fields, "attention_in_multiplier")
    attends = attention(fields, rope(fields, theta=100000.0), qkv_bias=bias, o_bias=bias)
    attends = replace(attends, scale=attends.scale * into * into * _factor(fields, "key_multiplier"),
                      out_scale=into * _factor(fields, "attention_out_multiplier"))
    gate, down = _factors(fields, "mlp_multipliers", 2)
    mlp = dense(fields, bias=fields.boolean("mlp_bias"), gate_scale=gate, out_scale=down)
    layer = Layer(attends, mlp, norm, beside=mamba2(
        fields, norm=norm if fields.boolean("mamba_rms_norm") else None,
        norm_before_gate=fields.boolean("mamba_norm_before_gate", True),
        out_bias=fields.boolean("projectors_bias"), out_scale=_factor(fields, "ssm_out_multiplier"),
        scales=tuple(factor * _factor(fields, "ssm_in_multiplier")
                     for factor in _factors(fields, "ssm_multipliers", 5))))
    return spec(fields, [layer] * num_layers(fields), norm,
                embedding_scale=_factor(fields, "embedding_multiplier"),
                logit_scale=_factor(fields, "lm_head_multiplier"))


def _factor(fields: Fields, key: str) -> float:
    return fields.number(key, 1e-6, 1e6, 1.0)


def _factors(fields: Fields, key: str, count: int) -> tuple[float, ...]:
    return fields.numbers(key, count, 1e-6, 1e6) if fields.raw.get(key) is not None else (1.0,) * count


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp's converter multiplies the weights; its norm of heads, where there is one, comes last."""
    return {"mamba_norm_before_gate": False}


FAMILIES = (Family("falcon_h1", ("FalconH1ForCausalLM",), from_config, _NAMES, Gguf(
    ("falcon-h1",), keys=GGUF_KEYS, present={"mamba_rms_norm": "blk.0.ssm_norm.weight"},
    complete=_completed)),)
