"""Granite 3, and Granite 4 where its layers are all attention: Llama's with multipliers of four kinds."""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import Fields, num_layers
from model.families.llama import uniform
from model.families.names import HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    bias = fields.boolean("attention_bias")
    scale = fields.number("attention_multiplier", 1e-6, 1e6, 1.0)
    spec = uniform(fields, scale=scale, qkv_bias=bias, o_bias=bias)
    residual = fields.number("residual_multiplier", 1e-6, 1e6, 1.0)
    return replace(spec, layers=tuple(replace(layer, residual_scale=residual) for layer in spec.layers),
                   embedding_scale=fields.number("embedding_multiplier", 1e-6, 1e6, 1.0),
                   logit_scale=1 / fields.number("logits_scaling", 1e-6, 1e6, 1.0))


def hybrid_from_config(fields: Fields) -> Spec:
    count = num_layers(fields)
    kinds = fields.choices("layer_types", count, ("attention", "mamba"))
    if "mamba" in kinds:
        raise fields.error("layer_types", "mamba", "'attention' only: layers with a state are not supported")
    if fields.raw.get("num_local_experts"):
        raise fields.error("num_local_experts", fields.raw["num_local_experts"],
                           "0: mixtures of experts are not supported")
    size = fields.integer("shared_intermediate_size", 8, 1 << 20, 1024)
    raw = {key: value for key, value in fields.raw.items() if key != "layer_types"}
    spec = from_config(replace(fields, raw={**raw, "intermediate_size": size}))
    if fields.raw.get("position_embedding_type") == "rope":
        return spec
    return replace(spec, layers=tuple(layer.with_attention(rope=None) for layer in spec.layers))


FAMILIES = (
    Family("granite", ("GraniteForCausalLM",), from_config,
           gguf=Gguf(("granite",), interleaved=True, keys={"logit_scale": "logits_scaling"})),
    Family("granitemoehybrid", ("GraniteMoeHybridForCausalLM",), hybrid_from_config,
           replace(HUGGING_FACE, gate_up=("shared_mlp.input_linear",), down_proj="shared_mlp.output_linear")))
