"""Muse Glimmer: normed embeddings, norms on both sides of branches, those of heads without weights, what is
attended to behind a gate of its own; layers that see everything have no RoPE. Its text model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    attention,
    dense,
    head_sizes,
    num_layers,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.names import GGUF, HUGGING_FACE
from model.families.spec import HeadNorm, Layer, Norm, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(sliding_window=2048, final_logit_softcapping=20.0)
    norm = rms_norm(fields, default=1e-5)
    after = Norm("rms", fields.number("post_norm_eps", 0.0, 0.1, 1e-8))
    bias = fields.boolean("attention_bias")
    scale = head_sizes(fields)[2] ** -0.5 * fields.number("qk_scale_factor", 1e-3, 1e3, 3.87)
    weight: Any = "shared" if fields.boolean("weighs_heads") else "none"
    turned, mlp = rope(fields, theta=5e5), dense(fields, "hidden_activation")
    layers = []
    for is_window, is_turned in zip(_are_windows(fields), _are_turned(fields), strict=True):
        mixer = attention(fields, turned if is_turned else None, scale=scale, qkv_bias=bias, o_bias=bias,
                          window=window_of(fields) if is_window else None, output_gate="number",
                          qk_norm=HeadNorm(norm, weight=weight))
        layers.append(Layer(mixer, mlp, norm, norm_after=True, after=after))
    return spec(fields, layers, norm, embedding_norm=norm,
                logit_scale=fields.number("output_multiplier", 1e-6, 1e6, 0.19611613513818404),
                logit_softcap=fields.number("final_logit_softcapping", 1e-3, 1e6))


def _are_far(fields: Fields) -> list[bool]:
    """Every fourth layer, counted from the last."""
    count = num_layers(fields)
    return [(count - 1 - index) % 4 == 0 for index in range(count)]


def _are_windows(fields: Fields) -> list[bool]:
    if fields.raw.get("layer_types") is None:
        return [not far for far in _are_far(fields)]
    kinds = fields.choices("layer_types", num_layers(fields), ("sliding_attention", "full_attention"))
    return [kind == "sliding_attention" for kind in kinds]


def _are_turned(fields: Fields) -> list[bool]:
    """By layer_rope_theta, which is the one base or 0."""
    if fields.raw.get("layer_rope_theta") is None:
        return [not far for far in _are_far(fields)]
    return [theta > 0 for theta in fields.numbers("layer_rope_theta", num_layers(fields), 0.0, 1e12)]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The factor of scores is the weight of the norm of queries."""
    windows = config.get("windows")
    kinds = {"layer_types": ["sliding_attention" if is_so else "full_attention" for is_so in windows],
             "layer_rope_theta": [1.0 if is_so else 0.0 for is_so in windows]
             } if isinstance(windows, list) else {}
    return {"weighs_heads": True, "qk_scale_factor": 1.0, **kinds}


_NAMES = replace(HUGGING_FACE, mlp_norm="pre_feedforward_layernorm", norm_offset=1.0, last_norm_offset=0.0,
                 output_gate="self_attn.gate_proj")
FAMILIES = (Family("muse_glimmer", ("MuseGlimmerForConditionalGeneration",), from_config, _NAMES, Gguf(
    ("muse-glimmer",), replace(GGUF, output_gate="attn_gate"), interleaved=True, complete=_completed, keys={
        "logit_scale": "output_multiplier", "attention.sliding_window_pattern": "windows"})),)
