"""Qwen 2 and 2.5, VL's text models among them: biases of queries, keys and values; windows, where they are
on, in the upper layers.
"""

from __future__ import annotations

from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import Fields, attention, dense, num_layers, rms_norm, rope, spec, window_of
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    return layered(fields, qkv_bias=True)


def layered(fields: Fields, **parts: Any) -> Spec:
    """Layers that differ in their window only; `parts` are further fields of Attention."""
    norm, mlp = rms_norm(fields), dense(fields)
    window = window_of(fields) if fields.boolean("use_sliding_window") else None
    count = num_layers(fields)
    first = fields.integer("max_window_layers", 0, 1 << 20, default=28)
    seen = [window if index >= first else None for index in range(count)]
    if fields.raw.get("layer_types") is not None:
        kinds = fields.choices("layer_types", count, ("sliding_attention", "full_attention"))
        seen = [window if kind == "sliding_attention" else None for kind in kinds]
    layers = [Layer(attention(fields, rope(fields), window=w, **parts), mlp, norm) for w in seen]
    return spec(fields, layers, norm)


FAMILIES = (Family("qwen2", ("Qwen2ForCausalLM", "Qwen2VLForConditionalGeneration",
                             "Qwen2_5_VLForConditionalGeneration"), from_config,
                   gguf=Gguf(("qwen2", "qwen2vl"))),)
