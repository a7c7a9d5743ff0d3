"""GGUF's metadata as the keys of a config.json, so that a family is read by one function whatever its file.

Source: gguf-py/gguf/constants.py of llama.cpp and its convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model.families.family import Gguf
from model.families.other_models import GUESSES
from model.files import ModelLoadError

_KEYS = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps", "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta", "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping", "logit_scale": "logit_scale",
    "embedding_scale": "embedding_multiplier", "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier"}
_SCALING = {
    "type": "rope_type", "factor": "factor", "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow", "attn_factor": "attention_factor",
    "yarn_log_multiplier": "mscale_all_dim"}

_FURTHER = "nextn_predict_layers"
"""Layers at the end that predict a further token; they are not run here."""
_FIRST_NORM = "blk.0.attn_norm.weight"
_QUERY_NORM = "blk.0.attn_q_norm.weight"

Numbers = Callable[[str], Sequence[float] | None]
"""The numbers of a small tensor; None where the file has none of that name."""


def config_of(metadata: Mapping[str, Any], gguf: Gguf, numbers: Numbers, source: str) -> dict[str, Any]:
    """The keys of config.json. Raises ModelLoadError."""
    prefix = f"{metadata['general.architecture']}."
    if plain(metadata.get(prefix + "expert_count")) and "expert_count" not in gguf.keys:
        raise ModelLoadError(f"{source}: the model is a mixture of experts; such are not supported")
    keys = {**_KEYS, **gguf.keys}
    found = {ours: plain(metadata[prefix + theirs]) for theirs, ours in keys.items()
             if prefix + theirs in metadata}
    if plain(metadata.get(prefix + _FURTHER)) and not _is_there(_FIRST_NORM, numbers):
        raise ModelLoadError(f"{source} {GUESSES}")
    config = _without_further(found, plain(metadata.get(prefix + _FURTHER)))
    config["vocab_size"] = _vocab_size(metadata, source)
    heads, hidden, dim = (config.get(key) for key in ("num_attention_heads", "hidden_size", "head_dim"))
    if dim is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        dim = config["head_dim"] = hidden // heads
    rotated = plain(metadata.get(prefix + "rope.dimension_count"))
    if isinstance(rotated, int) and isinstance(dim, int) and 0 < rotated < dim:
        config["partial_rotary_factor"] = rotated / dim
    scaling = {ours: plain(metadata[f"{prefix}rope.scaling.{theirs}"]) for theirs, ours in _SCALING.items()
               if f"{prefix}rope.scaling.{theirs}" in metadata}
    config["rope_scaling"] = _scaling(scaling, numbers)
    if _is_there(_QUERY_NORM, numbers):
        config["use_qk_norm"] = True  # no key says so
    config |= {key: _is_there(name, numbers) for key, name in gguf.present.items()}
    return gguf.complete(config) | config


def _without_further(found: dict[str, Any], further: Any) -> dict[str, Any]:
    """Without the last `further` layers, which block_count and lists of layers count, too."""
    count = found.get("num_hidden_layers")
    if not isinstance(count, int) or not isinstance(further, int) or not 0 < further < count:
        return dict(found)
    kept = {key: value[:count - further] if isinstance(value, list) and len(value) == count else value
            for key, value in found.items()}
    return kept | {"num_hidden_layers": count - further}


def _is_there(name: str, numbers: Numbers) -> bool:
    try:
        return numbers(name) is not None
    except ModelLoadError:  # it is no single row of numbers
        return True


def plain(value: Any) -> Any:
    """A number or a list of them, of whatever kind the reader has made."""
    return value.tolist() if hasattr(value, "tolist") else value


def _vocab_size(metadata: Mapping[str, Any], source: str) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        raise ModelLoadError(f"{source} has no tokenizer.ggml.tokens; expected a model with its vocabulary")
    return len(tokens)


def _scaling(scaling: dict[str, Any], numbers: Numbers) -> dict[str, Any] | None:
    """The RoPE block. llama3 and longrope lie in tensors of divisors."""
    if (divisors := numbers("rope_freqs.weight")) is not None:
        return {"rope_type": "divisors", "divisors": [float(x) for x in divisors]}
    long, short = (numbers(f"rope_factors_{which}.weight") for which in ("long", "short"))
    if long is not None and short is not None:
        return {**scaling, "rope_type": "longrope", "long_factor": [float(x) for x in long],
                "short_factor": [float(x) for x in short]}
    if scaling.get("rope_type") in (None, "none"):
        return None
    return {**scaling, "mscale": scaling.get("mscale_all_dim")}
