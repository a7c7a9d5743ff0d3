"""EXAONE 4: norms only after attention and mlp, norms of heads; where windows are used, three layers of four
have one and RoPE, and the others neither.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    num_layers,
    rms_norm,
    rope,
    spec,
)
from model.families.names import GGUF
from model.families.spec import HeadNorm, Layer, Spec


def from_config(fields: Fields) -> Spec:
    norm, turned = rms_norm(fields, default=1e-5), rope(fields)
    window = fields.integer("sliding_window", 1, 1 << 24) if fields.raw.get("sliding_window") else None

    def layer(is_window: bool) -> Layer:
        has_rope = window is None or is_window
        mixer = attention(fields, turned if has_rope else None, qk_norm=HeadNorm(norm),
                          window=window if is_window else None)
        return Layer(mixer, dense(fields), norm, norm_before=False, norm_after=True)

    kinds = [False] * num_layers(fields) if window is None else _are_windows(fields)
    return spec(fields, list(map(layer, kinds)), norm)


def _are_windows(fields: Fields) -> list[bool]:
    pattern = fields.raw.get("sliding_window_pattern")
    is_pattern = isinstance(pattern, str) and pattern != "" and set(pattern) <= {"L", "G"}
    if fields.raw.get("layer_types") is None and is_pattern:
        return [pattern[index % len(pattern)] == "L" for index in range(num_layers(fields))]
    return are_windows(fields, full_every=4)


FAMILIES = (Family("exaone4", ("Exaone4ForCausalLM",), from_config, gguf=Gguf(("exaone4",), replace(
    GGUF, attention_out_norm="post_attention_norm", mlp_out_norm="post_ffw_norm"))),)
