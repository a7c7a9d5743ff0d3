"""Orion 14B: Llama's layers; its norms have a mean and a bias, whatever config.json calls them."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.spec import Norm, Spec


def from_config(fields: Fields) -> Spec:
    found = uniform(fields)
    norm = Norm("layer", fields.number("rms_norm_eps", 0.0, 0.1, 1e-5), has_bias=True)
    return replace(found, norm=norm, layers=tuple(replace(layer, norm=norm) for layer in found.layers))


FAMILIES = (Family("orion", ("OrionForCausalLM",), from_config, gguf=Gguf(
    ("orion",), keys={"attention.layer_norm_epsilon": "rms_norm_eps"})),)
