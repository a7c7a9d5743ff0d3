"""OPT, and BioGPT: learned vectors of positions, of which the first two belong to none, norms with a mean,
biases, an mlp without a gate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.families.family import Family
from model.families.fields import Fields, attention, dense, num_layers, spec
from model.families.names import HUGGING_FACE
from model.families.spec import Layer, Norm, Positions, Spec

_OFFSET = 2


def from_config(fields: Fields) -> Spec:
    """Of all sizes but that of 350M, whose norms stand after branches and whose embeddings are narrower."""
    for key in ("do_layer_norm_before", "layer_norm_elementwise_affine"):
        if not fields.boolean(key, True):
            raise fields.error(key, False, "true")
    width = fields.raw.get("word_embed_proj_dim")
    if width not in (None, fields.raw.get("hidden_size")):
        raise fields.error("word_embed_proj_dim", width, "hidden_size")
    if fields.boolean("_remove_final_layer_norm"):
        raise fields.error("_remove_final_layer_norm", True, "false")
    return _decoder(fields.with_defaults(intermediate_size=fields.raw.get("ffn_dim")), "activation_function",
                    "relu", fields.boolean("enable_bias", True), Norm("layer", 1e-5, has_bias=True))


def bio_from_config(fields: Fields) -> Spec:
    norm = Norm("layer", fields.number("layer_norm_eps", 0.0, 0.1, 1e-12), has_bias=True)
    is_scaled = fields.boolean("scale_embedding", True)
    return _decoder(fields, "hidden_act", "gelu", True, norm, embedding_scale=fields.integer(
        "hidden_size", 8, 1 << 16) ** 0.5 if is_scaled else 1.0)


def _decoder(fields: Fields, key: str, activation: str, bias: bool, norm: Norm, **parts: Any) -> Spec:
    fields = fields.with_defaults(tie_word_embeddings=True)
    layer = Layer(attention(fields, None, qkv_bias=bias, o_bias=bias),
                  dense(fields, key, activation, gated=False, bias=bias), norm)
    return spec(fields, [layer] * num_layers(fields), norm, positions=Positions(_OFFSET), **parts)


_NAMES = replace(HUGGING_FACE, o_proj="self_attn.out_proj", gate_up=("fc1",), down_proj="fc2",
                 attention_norm="self_attn_layer_norm", mlp_norm="final_layer_norm")
FAMILIES = (
    Family("opt", ("OPTForCausalLM",), from_config, replace(
        _NAMES, embeddings="model.decoder.embed_tokens", positions="model.decoder.embed_positions",
        layer="model.decoder.layers.{}.", norm="model.decoder.final_layer_norm")),
    Family("biogpt", ("BioGptForCausalLM",), bio_from_config, replace(
        _NAMES, embeddings="biogpt.embed_tokens", positions="biogpt.embed_positions",
        layer="biogpt.layers.{}.", norm="biogpt.layer_norm", head="output_projection")))
