"""PLaMo 13B of GGUF files: Llama's layers with both branches side by side. Its folders have the queries of a
key apart, which is not supported.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields
from model.families.llama import uniform
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    found = uniform(fields)
    return replace(found, layers=tuple(replace(layer, parallel="one norm") for layer in found.layers))


FAMILIES = (Family("plamo", (), from_config, gguf=Gguf(("plamo",))),)
