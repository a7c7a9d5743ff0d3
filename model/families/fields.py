"""Values of an untrusted config, each checked against its range, and the parts of a Spec made of them.

The keys are those of config.json as transformers 4 and 5 write it; gguf_keys.py turns GGUF's into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.config import shown
from model.families import rope as scaling
from model.families.spec import (
    Activation,
    Attention,
    Dense,
    DynamicRope,
    Layer,
    LongRope,
    Moe,
    Norm,
    Rope,
    Spec,
)
from model.files import ModelLoadError
from model.kernels.routing import Routing

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu2": "relu2", "relu": "relu"}
_MAX_POSITIONS = 1 << 24
_STILL = 1e30
"""What a frequency is divided by so that its pair does not turn; GGUF files have the same."""


@dataclass(frozen=True)
class Fields:
    """A JSON object whose values are asked for by key. `source`: what it is called in errors."""

    raw: dict[str, Any]
    source: str = "config.json"

    def with_defaults(self, **defaults: Any) -> Fields:
        """Keys that are not there, or null, take these."""
        given = {key: value for key, value in self.raw.items() if value is not None}
        return replace(self, raw={**defaults, **given})

    def error(self, key: str, value: Any, expected: str) -> ModelLoadError:
        return ModelLoadError(f"{self.source}: {key} is {shown(value)}; expected {expected}")

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.raw.get(key)
        if value is None and default is not None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(key, value, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.raw.get(key)
        if value is None and default is not None:
            value = default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # NaN compares false
            raise self.error(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        return None if self.raw.get(key) is None else self.number(key, low, high)

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return default if value is None else value

    def object(self, key: str) -> Fields | None:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, value, "an object")
        return None if value is None else replace(self, raw=value)

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """A list of `count` numbers."""
        value = self.raw.get(key)
        if not isinstance(value, list | tuple) or len(value) != count:
            raise self.error(key, value, f"{count} numbers")
        return tuple(replace(self, raw={key: part}).number(key, low, high) for part in value)

    def choices(self, key: str, count: int, choices: Sequence[Any]) -> list[Any]:
        """A list of `count` values, each one of `choices`."""
        value = self.raw.get(key)
        fits = isinstance(value, list | tuple) and len(value) == count and all(
            any(type(part) is type(choice) and part == choice for choice in choices) for part in value)
        if not fits:
            raise self.error(key, value, f"{count} of {', '.join(map(repr, choices))}")
        return list(value)


# ---- parts of a Spec -------------------------------------------------------------------------------------


def num_layers(fields: Fields) -> int:
    return fields.integer("num_hidden_layers", 1, 512)


def rms_norm(fields: Fields, key: str = "rms_norm_eps", default: float = 1e-6) -> Norm:
    return Norm("rms", fields.number(key, 0.0, 0.1, default=default))


def attention(fields: Fields, rope: Rope | None, **parts: Any) -> Attention:
    """Heads of the usual keys; `parts` are further fields of Attention."""
    heads, kv_heads, head_dim = head_sizes(fields)
    return Attention(heads, kv_heads, head_dim, rope, **{"scale": head_dim ** -0.5, **parts})


def head_sizes(fields: Fields) -> tuple[int, int, int]:
    """(num_heads, num_kv_heads, head_dim)."""
    hidden = fields.integer("hidden_size", 8, 1 << 16)
    heads = fields.integer("num_attention_heads", 1, 1024)
    kv_heads = fields.integer("num_key_value_heads", 1, 1024, default=heads)
    if heads % kv_heads:
        raise fields.error("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads, {heads}")
    if fields.raw.get("head_dim") is None and hidden % heads:
        raise fields.error("hidden_size", hidden,
                           f"a multiple of num_attention_heads, {heads}, or a head_dim")
    head_dim = fields.integer("head_dim", 8, 512, default=hidden // heads)
    if head_dim % 8:
        raise fields.error("head_dim", head_dim, "a multiple of 8")
    return heads, kv_heads, head_dim


def dense(fields: Fields, key: str = "hidden_act", default: str = "silu", **parts: Any) -> Dense:
    """`parts` are further fields of Dense."""
    name = fields.raw.get(key) or default
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise fields.error(key, name, f"one of {', '.join(_ACTIVATIONS)}")
    size = fields.integer("intermediate_size", 8, 1 << 20)
    return Dense(size, **{"activation": _ACTIVATIONS[name], **parts})


def moe(fields: Fields, expert: Dense, count_key: str, routing: dict[str, Any] | None = None,
        **parts: Any) -> Moe:
    """`routing`: fields of Routing besides top_k; `parts`: further fields of Moe."""
    count = fields.integer(count_key, 1, 4096)
    chosen = Routing(fields.integer("num_experts_per_tok", 1, count), **(routing or {}))
    return Moe(count, expert, chosen, **parts)


def grouped_routing(fields: Fields, count_key: str, scoring: str = "sigmoid") -> dict[str, Any]:
    """Fields of Routing as DeepSeek's configs have them: n_group, topk_group, norm_topk_prob,
    routed_scaling_factor."""
    count, groups = fields.integer(count_key, 1, 4096), fields.integer("n_group", 1, 4096, 1)
    if count % groups or (groups > 1 and count // groups < 2):
        raise fields.error("n_group", groups, f"a divisor of {count_key}, {count}, that leaves two "
                           "experts or more to a group")
    return {"scoring": scoring, "renormalized": fields.boolean("norm_topk_prob"), "share_eps": 1e-20,
            "scale": fields.number("routed_scaling_factor", 0.0, 1e4, 1.0), "num_groups": groups,
            "top_groups": fields.integer("topk_group", 1, groups, groups), "best_of_group": 2}


def spec(fields: Fields, layers: Sequence[Layer], norm: Norm, **parts: Any) -> Spec:
    """A whole model; `parts` are further fields of Spec."""
    return Spec(
        vocab_size=fields.integer("vocab_size", 2, 1 << 22),
        hidden_size=fields.integer("hidden_size", 8, 1 << 16), max_positions=max_positions(fields),
        layers=tuple(layers), norm=norm, **{"tied_head": fields.boolean("tie_word_embeddings"), **parts})


def max_positions(fields: Fields) -> int:
    return fields.integer("max_position_embeddings", 1, _MAX_POSITIONS, default=2048)


def window_of(fields: Fields) -> int | None:
    """sliding_window; none where it is null or longer than the context."""
    if not fields.raw.get("sliding_window"):
        return None
    window = fields.integer("sliding_window", 1, _MAX_POSITIONS)
    return window if window < max_positions(fields) else None


def are_windows(fields: Fields, full_every: int | None = None) -> list[bool]:
    """Which layers see a window: by layer_types, else all but every `full_every`-th."""
    count = num_layers(fields)
    if fields.raw.get("layer_types") is not None:
        kinds = fields.choices("layer_types", count, ("sliding_attention", "full_attention"))
        return [kind == "sliding_attention" for kind in kinds]
    return [full_every is not None and (index + 1) % full_every != 0 for index in range(count)]


def rope(fields: Fields, kind: str | None = None, theta: float = 10000.0, interleaved: bool = False) -> Rope:
    """transformers 5: rope_parameters, for all layers or by `kind` of layer; 4: rope_theta, rope_scaling."""
    head_dim = head_sizes(fields)[2]
    block = fields.object("rope_parameters")
    if block is not None and kind is not None and kind in block.raw:
        block = block.object(kind)
    if block is None:
        block = fields.object("rope_scaling")
    if block is None:
        block = replace(fields, raw={})
    theta = block.number("rope_theta", 1.0, 1e12, fields.number("rope_theta", 1.0, 1e12, theta))
    key = "partial_rotary_factor"
    share = block.number(key, 0.0, 1.0, fields.number(key, 0.0, 1.0, 1.0))
    dim = int(head_dim * share)
    if dim < 2 or dim % 2:
        raise fields.error(key, share, f"a share of head_dim, {head_dim}, that is even")
    return replace(_scaled(fields, block, theta, dim), interleaved=interleaved)


def proportional_rope(fields: Fields, block: Fields) -> Rope:
    """The first share of a head's pairs turns, with the frequencies of the whole head."""
    head_dim, factor = head_sizes(fields)[2], block.number("factor", 1.0, 4096.0, 1.0)
    turned = int(block.number("partial_rotary_factor", 0.0, 1.0, 1.0) * head_dim // 2)
    return Rope(block.number("rope_theta", 1.0, 1e12, 1e6), head_dim,
                (factor,) * turned + (_STILL,) * (head_dim // 2 - turned))


def plain_rope(fields: Fields, key: str, default: float) -> Rope:
    """All of a head, unscaled, with the base at `key`."""
    return Rope(fields.number(key, 1.0, 1e12, default), head_sizes(fields)[2])


def _scaled(fields: Fields, block: Fields, theta: float, dim: int) -> Rope:
    kind = block.raw.get("rope_type", block.raw.get("type")) or "default"
    if kind in ("default", "mrope"):  # positions in images, which are one number in a text
        return Rope(theta, dim)
    if kind == "divisors":  # of a GGUF file, which holds what the other kinds come down to
        return Rope(theta, dim, block.numbers("divisors", dim // 2, 1e-6, 1e31))
    if kind == "linear":
        return Rope(theta, dim, scaling.linear_divisors(block.number("factor", 1.0, 4096.0), dim))
    if kind == "llama3":
        return _llama3(block, theta, dim)
    if kind == "yarn":
        return _yarn(fields, block, theta, dim)
    if kind in ("longrope", "su"):
        return _longrope(fields, block, theta, dim)
    if kind == "dynamic" and block.raw.get("alpha") is not None and dim > 2:
        return Rope(scaling.ntk_theta(theta, dim, block.number("alpha", 1.0, 1e6)), dim)
    if kind == "dynamic" and dim > 2:
        return Rope(theta, dim, long=DynamicRope(max_positions(fields), block.number("factor", 1.0, 4096.0)))
    raise fields.error("rope_type", kind, "'default', 'linear', 'llama3', 'yarn', 'longrope' or 'dynamic'")


def _original_positions(fields: Fields, block: Fields) -> int:
    key = "original_max_position_embeddings"
    longest = max_positions(fields)
    return block.integer(key, 2, _MAX_POSITIONS, fields.integer(key, 1, _MAX_POSITIONS, longest))


def _llama3(block: Fields, theta: float, dim: int) -> Rope:
    low, high = (block.number(key, 1e-6, 1e6) for key in ("low_freq_factor", "high_freq_factor"))
    if high <= low:
        raise block.error("high_freq_factor", high, f"more than low_freq_factor, {low:g}")
    original = block.integer("original_max_position_embeddings", 1, _MAX_POSITIONS)
    factor = block.number("factor", 1.0, 4096.0)
    return Rope(theta, dim, scaling.llama3_divisors(theta, dim, factor, low, high, original))


def _yarn(fields: Fields, block: Fields, theta: float, dim: int) -> Rope:
    original = _original_positions(fields, block)
    factor = block.number("factor", 1.0, 4096.0, max(1.0, max_positions(fields) / original))
    fast, slow = block.number("beta_fast", 1e-3, 1e6, 32.0), block.number("beta_slow", 1e-3, 1e6, 1.0)
    mscale, of_all = (block.optional_number(key, 0.0, 100.0) for key in ("mscale", "mscale_all_dim"))
    magnitude = block.optional_number("attention_factor", 0.0, 100.0)
    if magnitude is None and mscale and of_all:
        magnitude = scaling.yarn_magnitude(factor, mscale) / scaling.yarn_magnitude(factor, of_all)
    if magnitude is None:
        magnitude = scaling.yarn_magnitude(factor)
    if theta <= 1:
        raise fields.error("rope_theta", theta, "more than 1 with YaRN")
    truncate = block.boolean("truncate", True)
    divisors = scaling.yarn_divisors(theta, dim, factor, original, fast, slow, truncate)
    return Rope(theta, dim, divisors, magnitude)


def _longrope(fields: Fields, block: Fields, theta: float, dim: int) -> Rope:
    original = _original_positions(fields, block)
    factor = block.number("factor", 1e-3, 4096.0, max(1.0, max_positions(fields) / original))
    magnitude = block.optional_number("attention_factor", 0.0, 100.0)
    if magnitude is None:
        magnitude = scaling.longrope_magnitude(factor, original)
    short, long = (block.numbers(key, dim // 2, 1e-3, 1e6) for key in ("short_factor", "long_factor"))
    return Rope(theta, dim, short, magnitude, long=LongRope(original, long))
