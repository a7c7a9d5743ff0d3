"""Mistral 7B to Small 3, and Ministral 3, whose queries grow with their position."""

from __future__ import annotations

from model.families.family import Family, Gguf
from model.families.fields import Fields, window_of
from model.families.llama import uniform
from model.families.spec import QueryScale, Spec


def from_config(fields: Fields) -> Spec:
    return uniform(fields, window=window_of(fields), query_scale=query_scale(fields))


def query_scale(fields: Fields) -> QueryScale | None:
    block, key = fields.object("rope_parameters") or fields.object("rope_scaling"), "llama_4_scaling_beta"
    if block is None or (block.raw.get(key) is None and fields.raw.get(key) is None):
        return None
    beta = (fields if block.raw.get(key) is None else block).number(key, 0.0, 10.0)
    return QueryScale(beta, block.integer("original_max_position_embeddings", 1, 1 << 24))


FAMILIES = (Family("mistral", ("MistralForCausalLM", "Ministral3ForCausalLM", "MinistralForCausalLM",
                               "Mistral3ForConditionalGeneration"), from_config,
                   gguf=Gguf(("mistral3",), interleaved=True, keys={
                       "attention.temperature_scale": "llama_4_scaling_beta"})),)
