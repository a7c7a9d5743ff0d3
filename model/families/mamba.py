"""Mamba 2's part of hybrid families, and how GGUF tells it."""

from __future__ import annotations

import math
from typing import Any

from model.families.fields import Fields, rms_norm
from model.families.spec import Mamba2

GGUF_KEYS = {"ssm.conv_kernel": "mamba_d_conv", "ssm.state_size": "mamba_d_state",
             "ssm.group_count": "mamba_n_groups", "ssm.inner_size": "mamba_d_ssm",
             "ssm.time_step_rank": "mamba_n_heads"}


def mamba2(fields: Fields, **parts: Any) -> Mamba2:
    """As Bamba's config has it, and Granite's and Falcon-H1's; `parts` are further fields of Mamba2."""
    heads = fields.integer("mamba_n_heads", 1, 4096)
    inner = fields.raw.get("mamba_d_ssm")
    if inner is None:
        hidden, expand = fields.integer("hidden_size", 8, 1 << 16), fields.number("mamba_expand", 0.1, 64, 2)
        inner = int(expand * hidden)
    elif isinstance(inner, bool) or not isinstance(inner, int) or not 8 <= inner <= 1 << 20:
        raise fields.error("mamba_d_ssm", inner, "a whole number from 8 to 1,048,576")
    if inner % heads:
        raise fields.error("mamba_n_heads", heads, f"a divisor of the inner size, {inner:,}")
    given = {"norm": rms_norm(fields), "conv_bias": fields.boolean("mamba_conv_bias", True),
             "in_bias": fields.boolean("mamba_proj_bias"), "out_bias": fields.boolean("mamba_proj_bias"),
             "step_limits": step_limits(fields)}
    return checked(fields, heads, inner // heads, fields.integer("mamba_n_groups", 1, 4096, 1),
                   fields.integer("mamba_d_state", 8, 256), fields.integer("mamba_d_conv", 2, 16, 4),
                   **{**given, **parts})


def checked(fields: Fields, heads: int, head_dim: int, groups: int, state: int, kernel: int,
            **parts: Any) -> Mamba2:
    """Raises ModelLoadError if heads and groups do not fit together."""
    if heads % groups:
        raise fields.error("mamba_n_groups", groups, f"a divisor of the number of heads, {heads}")
    return Mamba2(heads, head_dim, groups, state, kernel, **parts)


def step_limits(fields: Fields) -> tuple[float, float]:
    """time_step_limit; infinity is written in several ways, none of them JSON."""
    limits = fields.raw.get("time_step_limit")
    if limits is None:
        return 0.0, math.inf
    if not isinstance(limits, list) or len(limits) != 2:
        raise fields.error("time_step_limit", limits, "two numbers")
    low = limits[0] if isinstance(limits[0], int | float) else 0.0
    high = limits[1] if isinstance(limits[1], int | float) else math.inf
    if not 0 <= low < high:
        raise fields.error("time_step_limit", limits, "the smaller one first, not below 0")
    return float(low), float(high)


def layers_with_heads(config: dict[str, Any]) -> list[bool] | None:
    """GGUF tells layers that attend by their number of heads of keys and values, 0 where there is none.
    Leaves the one number in `config`."""
    heads = config.get("num_key_value_heads")
    if not isinstance(heads, list):
        return None
    config["num_key_value_heads"] = max((count for count in heads if isinstance(count, int)), default=0)
    return [bool(count) for count in heads]
