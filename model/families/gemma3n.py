"""Gemma 3n (E2B, E4B): Gemma 4's inputs of layers and shared keys; the hidden state in several copies; in the
first layers mlps of which most numbers are cut off. The text model, where images and sounds belong to it.
"""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from statistics import NormalDist
from typing import Any

from model.families.family import Family, Gguf
from model.families.fields import (
    Fields,
    are_windows,
    attention,
    dense,
    rms_norm,
    rope,
    spec,
    window_of,
)
from model.families.gemma2 import embedding_scale
from model.families.gemma4 import NAMES, cache_source, layer_inputs
from model.families.spec import Attention, Dense, HeadNorm, Layer, Norm, Spec, Streams

_ACTIVATION, _GELU = "hidden_activation", "gelu_pytorch_tanh"


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(
        vocab_size=262400, hidden_size=2048, num_hidden_layers=35, num_attention_heads=8,
        num_key_value_heads=2, head_dim=256, intermediate_size=16384, max_position_embeddings=32768,
        sliding_window=512, num_kv_shared_layers=15, tie_word_embeddings=True, altup_num_inputs=4,
        final_logit_softcapping=30.0, laurel_rank=64, hidden_size_per_layer_input=256)
    if fields.integer("altup_active_idx", 0, 63, 0) != 0:
        raise fields.error("altup_active_idx", fields.raw["altup_active_idx"], "0")
    norm, windows = rms_norm(fields), are_windows(fields, full_every=5)
    first_shared = len(windows) - fields.integer("num_kv_shared_layers", 0, len(windows))
    kinds, layers = _attentions(fields, norm), []
    for index, (is_window, mlp) in enumerate(zip(windows, _mlps(fields, len(windows)), strict=True)):
        own = kinds[is_window]
        if index >= first_shared:
            own = replace(own, reads_cache_of=cache_source(fields, windows[:first_shared], is_window))
        layers.append(Layer(own, mlp, norm, norm_after=True))
    streams = Streams(fields.integer("altup_num_inputs", 2, 16), fields.integer("laurel_rank", 1, 1 << 14),
                      norm, fields.boolean("altup_correct_scale", True))
    return spec(fields, layers, norm, embedding_scale=embedding_scale(fields), streams=streams,
                logit_softcap=fields.optional_number("final_logit_softcapping", 1e-3, 1e6),
                layer_inputs=layer_inputs(_with_width(fields), norm))


def _attentions(fields: Fields, norm: Norm) -> dict[bool, Attention]:
    """Of layers with a window, and of those without."""
    bias, near = fields.boolean("attention_bias"), fields.number("rope_local_base_freq", 1.0, 1e12, 1e4)
    parts: dict[str, Any] = {"scale": 1.0, "qkv_bias": bias, "o_bias": bias, "qk_norm": HeadNorm(norm),
                             "value_norm": norm}
    of_near = replace(fields, raw={key: value for key, value in fields.raw.items() if key != "rope_theta"})
    return {True: attention(fields, rope(of_near, "sliding_attention", near), window=window_of(fields),
                            **parts),
            False: attention(fields, rope(fields, "full_attention", 1e6), **parts)}


def _with_width(fields: Fields, width: float | None = None) -> Fields:
    """With this as the one width of mlps, or any that is allowed."""
    return replace(fields, raw={**fields.raw, "intermediate_size": 8 if width is None else int(width)})


def _mlps(fields: Fields, count: int) -> list[Dense]:
    """Widths are one for all layers, or one each; so is the share that is cut off."""
    widths, shares = fields.raw["intermediate_size"], fields.raw.get("activation_sparsity_pattern")
    widths = list(fields.numbers("intermediate_size", count, 8, 1 << 20)) if isinstance(widths, list) else [
        fields.integer("intermediate_size", 8, 1 << 20)] * count
    if shares is None:
        shares = [0.95 if count > 10 and index < 10 else 0.0 for index in range(count)]
    shares = replace(fields, raw={"activation_sparsity_pattern": shares}).numbers(
        "activation_sparsity_pattern", count, 0.0, 1.0 - 1e-6)
    return [dense(_with_width(fields, width), _ACTIVATION, _GELU,
                  cut=NormalDist().inv_cdf(share) if share > 0 else None)
            for width, share in zip(widths, shares, strict=True)]


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Layers by their windows; what is cut off is told in deviations, -inf where nothing is."""
    windows, count = config.get("windows_of_layers"), config.get("num_hidden_layers")
    deviations = config.get("deviations_of_layers")
    found: dict[str, Any] = {}
    if isinstance(windows, list) and len(windows) == count:
        found["layer_types"] = ["sliding_attention" if is_so else "full_attention" for is_so in windows]
    if isinstance(deviations, list) and not any(map(isnan, deviations)):
        found["activation_sparsity_pattern"] = [NormalDist().cdf(x) for x in deviations]
    return found


_GGUF_KEYS = {
    "attention.sliding_window_pattern": "windows_of_layers", "rope.freq_base_swa": "rope_local_base_freq",
    "altup.num_inputs": "altup_num_inputs", "altup.active_idx": "altup_active_idx",
    "activation_sparsity_scale": "deviations_of_layers", "attention.shared_kv_layers": "num_kv_shared_layers",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input"}

FAMILIES = (Family("gemma3n", ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"), from_config, NAMES,
                   Gguf(("gemma3n",), keys=_GGUF_KEYS, complete=_completed)),)
