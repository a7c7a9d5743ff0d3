"""Code World Model: Llama's layers, of which three of four see a window."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family
from model.families.fields import Fields, are_windows, num_layers, window_of
from model.families.llama import uniform
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-5, sliding_window=8192, rope_theta=1e6)
    found, window = uniform(fields), window_of(fields)
    seen = [index % 4 != 0 for index in range(num_layers(fields))]
    if fields.raw.get("layer_types") is not None:
        seen = are_windows(fields)
    return replace(found, layers=tuple(layer.with_attention(window=window if is_window else None)
                                       for layer, is_window in zip(found.layers, seen, strict=True)))


FAMILIES = (Family("cwm", ("CwmForCausalLM",), from_config),)
