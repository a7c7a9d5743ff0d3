"""Mamba 2 alone, as Codestral Mamba: every layer keeps a state, none attends and none has an mlp."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, num_layers, spec
from model.families.mamba import checked, step_limits
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import Layer, Norm, Spec

_POSITIONS = 1 << 18
"""A file says of no length, or of one that nobody has tried."""


def from_config(fields: Fields) -> Spec:
    hidden = fields.integer("hidden_size", 8, 1 << 16)
    heads = fields.integer("num_heads", 1, 4096)
    inner = int(fields.number("expand", 0.1, 64, 2) * hidden)
    if inner % heads:
        raise fields.error("num_heads", heads, f"a divisor of the inner size, {inner:,}")
    fields = replace(fields, raw={**fields.raw, "max_position_embeddings": _POSITIONS})
    norm, bias = Norm("rms", fields.number("layer_norm_epsilon", 0.0, 0.1, 1e-5)), fields.boolean("use_bias")
    mixer = checked(fields, heads, inner // heads, fields.integer("n_groups", 1, 4096, 8),
                    fields.integer("state_size", 8, 256, 128), fields.integer("conv_kernel", 2, 16, 4),
                    norm=norm, conv_bias=fields.boolean("use_conv_bias", True), in_bias=bias, out_bias=bias,
                    step_limits=step_limits(fields))
    return spec(fields, [Layer(mixer, None, norm)] * num_layers(fields), norm)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    inner, hidden = config.get("inner_size"), config.get("hidden_size")
    return {"expand": inner / hidden} if isinstance(inner, int) and isinstance(hidden, int) and hidden else {}


FAMILIES = (Family("mamba2", ("Mamba2ForCausalLM",), from_config, replace(
    HUGGING_FACE, embeddings="backbone.embeddings", layer="backbone.layers.{}.", norm="backbone.norm_f",
    attention_norm="norm", state_in=("mixer.in_proj",), state_conv=("mixer.conv1d",), state_norm="mixer.norm",
    state_out="mixer.out_proj", decay="mixer.A_log", step_bias="mixer.dt_bias", skip="mixer.D"), Gguf(
        ("mamba2",), GGUF, keys={
            "attention.layer_norm_rms_epsilon": "layer_norm_epsilon", "ssm.conv_kernel": "conv_kernel",
            "ssm.state_size": "state_size", "ssm.group_count": "n_groups", "ssm.inner_size": "inner_size",
            "ssm.time_step_rank": "num_heads"}, complete=_completed)),)
