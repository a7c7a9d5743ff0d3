"""OLMo 2 and 3: norms only after attention and mlp, and one over all heads of queries, of keys; the third
with windows on three layers of four, and scaled RoPE on the others; FlexOlmo is the second with experts.
"""

from __future__ import annotations

from dataclasses import replace

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    moe,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.spec import HeadNorm, Layer, Rope, Spec


def from_config(fields: Fields) -> Spec:
    norm, bias = rms_norm(fields, default=1e-5), fields.boolean("attention_bias")
    parts = {"qk_norm": HeadNorm(norm, span="projection"), "qkv_bias": bias, "o_bias": bias}
    far, near, window = rope(fields, "full_attention"), _near_rope(fields), window_of(fields)
    kinds = {True: attention(fields, near, window=window, **parts), False: attention(fields, far, **parts)}
    layers = [Layer(kinds[is_window], dense(fields), norm, norm_before=False, norm_after=True)
              for is_window in are_windows(fields, full_every=4 if window else 1)]
    return spec(fields, layers, norm)


def mixture_from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(rms_norm_eps=1e-6, rope_theta=5e5, num_experts_per_tok=5)
    found = from_config(fields)
    experts = moe(fields, dense(fields), "num_experts", {"renormalized": fields.boolean("norm_topk_prob")})
    return replace(found, layers=tuple(replace(layer, mlp=experts) for layer in found.layers))


def _near_rope(fields: Fields) -> Rope:
    """Of the layers with a window: the same base, unscaled."""
    block = fields.object("rope_parameters")
    if block is not None and "sliding_attention" in block.raw:
        return rope(fields, "sliding_attention")
    far = rope(fields, "full_attention")
    return Rope(far.theta, far.dim)


FAMILIES = (Family("olmo2", ("Olmo2ForCausalLM",), from_config, gguf=Gguf(("olmo2",))),
            Family("olmo3", ("Olmo3ForCausalLM",), from_config),
            Family("flex_olmo", ("FlexOlmoForCausalLM",), mixture_from_config))
