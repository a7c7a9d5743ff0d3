"""Gemma 3: as Gemma 2 with norms of heads instead of caps; five layers with a window and a RoPE of their own
to one that sees everything. Its text model, where images belong to it.
"""

from __future__ import annotations

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    plain_rope,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.gemma2 import NAMES, completed, embedding_scale, query_scale
from model.families.spec import HeadNorm, Layer, Rope, Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        vocab_size=262208, num_attention_heads=8, num_key_value_heads=4, head_dim=256,
        max_position_embeddings=131072, query_pre_attn_scalar=256, sliding_window=4096,
        tie_word_embeddings=True)
    norm, bias = rms_norm(fields), fields.boolean("attention_bias")
    parts = {"scale": query_scale(fields), "qkv_bias": bias, "o_bias": bias, "qk_norm": HeadNorm(norm),
             "softcap": fields.optional_number("attn_logit_softcapping", 1e-3, 1e6)}
    window, near, far = window_of(fields), _near_rope(fields), rope(fields, "full_attention", 1e6)
    every = fields.integer("sliding_window_pattern", 1, 512, fields.integer(
        "_sliding_window_pattern", 1, 512, 6))
    mlp = dense(fields, "hidden_activation", "gelu_pytorch_tanh")
    kinds = {True: attention(fields, near, window=window, **parts), False: attention(fields, far, **parts)}
    layers = [Layer(kinds[is_window], mlp, norm, norm_after=True)
              for is_window in are_windows(fields, full_every=every)]
    return spec(fields, layers, norm, embedding_scale=embedding_scale(fields),
                logit_softcap=fields.optional_number("final_logit_softcapping", 1e-3, 1e6))


def _near_rope(fields: Fields) -> Rope:
    """Of the layers with a window."""
    block = fields.object("rope_parameters")
    if block is not None and "sliding_attention" in block.raw:
        return rope(fields, "sliding_attention")
    return plain_rope(fields, "rope_local_base_freq", 1e4)


FAMILIES = (Family("gemma3", ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"), from_config, NAMES,
                   Gguf(("gemma3",), keys={"rope.freq_base_swa": "rope_local_base_freq"},
                        complete=completed)),)
