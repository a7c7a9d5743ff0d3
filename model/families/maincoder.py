"""Maincoder: Llama's layers, neighbours of a head turned, and its norm after that."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, rms_norm, rope
from model.families.llama import uniform
from model.families.spec import HeadNorm, Spec


def from_config(fields: Fields) -> Spec:
    found = uniform(fields, qk_norm=HeadNorm(rms_norm(fields), after_rope=True))
    turned = rope(fields, interleaved=True)
    return replace(found, layers=tuple(layer.with_attention(rope=turned) for layer in found.layers))


FAMILIES = (Family("maincoder", ("MaincoderForCausalLM",), from_config, gguf=Gguf(("maincoder",))),)
