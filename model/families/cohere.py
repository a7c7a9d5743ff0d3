"""Cohere's Command R and A: attention and mlp side by side behind one norm with a mean, neighbouring pairs
rotated, scaled logits; in the second generation windows with RoPE on three layers of four, neither on others.
"""

from __future__ import annotations

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    num_layers,
    rope,
    spec,
    window_of,
)
from model.families.spec import HeadNorm, Layer, Norm, Spec


def _norm(fields: Fields) -> Norm:
    return Norm("layer", fields.number("layer_norm_eps", 0.0, 0.1, 1e-5))


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(tie_word_embeddings=True, max_position_embeddings=8192)
    norm, bias = _norm(fields), fields.boolean("attention_bias")
    qk_norm = HeadNorm(norm, weight="own") if fields.boolean("use_qk_norm") else None
    mixer = attention(fields, rope(fields, interleaved=True), qk_norm=qk_norm, qkv_bias=bias, o_bias=bias)
    layer = Layer(mixer, dense(fields), norm, parallel="one norm")
    return spec(fields, [layer] * num_layers(fields), norm, logit_scale=_logit_scale(fields))


def second_from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(tie_word_embeddings=True, max_position_embeddings=8192, sliding_window=4096)
    norm, bias, window = _norm(fields), fields.boolean("attention_bias"), window_of(fields)
    every = fields.integer("sliding_window_pattern", 1, 512, 4)
    turned = rope(fields, interleaved=True)
    layers = [Layer(attention(fields, turned if is_window else None, window=window if is_window else None,
                              qkv_bias=bias, o_bias=bias), dense(fields), norm, parallel="one norm")
              for is_window in are_windows(fields, full_every=every)]
    return spec(fields, layers, norm, logit_scale=_logit_scale(fields))


def _logit_scale(fields: Fields) -> float:
    return fields.number("logit_scale", 1e-6, 1e6, 0.0625)


FAMILIES = (Family("cohere", ("CohereForCausalLM",), from_config, gguf=Gguf(("command-r",))),
            Family("cohere2", ("Cohere2ForCausalLM",), second_from_config, gguf=Gguf(("cohere2",))))
