"""SmolLM 3: Llama's layers, of which every fourth rotates nothing."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, are_windows, num_layers, window_of
from model.families.llama import uniform
from model.families.spec import Layer, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rope_theta=2e6, tie_word_embeddings=True)
    bias = fields.boolean("attention_bias")
    spec = uniform(fields, qkv_bias=bias, o_bias=bias)
    every, count = fields.integer("no_rope_layer_interval", 1, 512, 4), num_layers(fields)
    rotates = [(index + 1) % every != 0 for index in range(count)]
    if fields.raw.get("no_rope_layers") is not None:
        rotates = [value == 1 for value in fields.choices("no_rope_layers", count, (0, 1))]
    window = window_of(fields) if fields.boolean("use_sliding_window") else None

    def changed(layer: Layer, has_rope: bool, is_window: bool) -> Layer:
        seen = {"window": window if is_window else None}
        return layer.with_attention(**seen) if has_rope else layer.with_attention(rope=None, **seen)

    return replace(spec, layers=tuple(map(changed, spec.layers, rotates, are_windows(fields))))


FAMILIES = (Family("smollm3", ("SmolLM3ForCausalLM",), from_config,
                   gguf=Gguf(("smollm3",), interleaved=True)),)
