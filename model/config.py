"""What the user chose (EngineConfig) and what the model's folder says (ModelConfig).

ModelConfig reads config.json as transformers 4 and 5 write it. Every number has a range, so an absurd file
is an error before anything is allocated. Knows nothing of tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.files import ModelLoadError, is_there, read_json
from model.kernels.cache_kinds import CACHE_KINDS


@dataclass(frozen=True)
class EngineConfig:
    """How the engine is to run. Raises ValueError for a value outside its range."""

    device: str = "auto"              # auto | cpu | cuda
    max_seq_len: int | None = None    # tokens of prompt and reply; None: the model's, or what memory allows
    cache: str | None = None          # fp16 | q8 | q4 | fp32: keys and values; None: fp16, fp32 if exact
    threads: int | None = None        # None: the physical cores
    prefill_chunk: int | None = None  # most prompt tokens a step; None: what suits the device
    gpu_split: tuple[float, ...] | None = None  # GiB of each GPU to use; None: all of the first GPU
    exact: bool = False               # float32 activations throughout instead of int8
    speculation: bool = True          # guess ahead by looking up what followed the same tokens before
    draft: Path | None = None         # folder of a smaller model of the same tokens that guesses instead

    def __post_init__(self) -> None:
        _one_of("device", self.device, ("auto", "cpu", "cuda"))
        if self.cache is None:
            object.__setattr__(self, "cache", "fp32" if self.exact else "fp16")
        _one_of("cache", self.cache, tuple(CACHE_KINDS))
        for name, low, high in (("max_seq_len", 32, 1 << 24), ("threads", 1, 256),
                                ("prefill_chunk", 32, 8192)):
            if getattr(self, name) is not None:
                _in_range(name, getattr(self, name), low, high)
        if self.draft is not None and not self.speculation:
            raise ValueError("a draft model was given and speculation is off; expected one of the two")
        if self.gpu_split is not None:
            _check_split(self.gpu_split, self.device)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected a whole number from {low:,} to {high:,}")


def _check_split(gpu_split: tuple[float, ...], device: str) -> None:
    if device == "cpu":
        raise ValueError("gpu_split names GPUs and device is 'cpu'; expected one of the two")
    if not gpu_split or not all(0 < gib <= 4096 for gib in gpu_split):
        raise ValueError(f"gpu_split is {gpu_split!r}; expected the GiB to use of each GPU, such as 20,20")


@dataclass(frozen=True)
class RopeConfig:
    """How positions turn into angles; the llama3 fields count only for that kind."""

    theta: float = 10000.0
    kind: str = "default"             # default | linear | llama3 | divisors
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192
    divisors: tuple[float, ...] = ()  # of each pair's frequency, as GGUF files have them


SUPPORTED_ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and settings of a decoder of the Llama family, checked. `quantization` is the raw block."""

    name: str
    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_positions: int
    rope: RopeConfig
    tie_word_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    bos_token_id: int | None
    eos_token_ids: frozenset[int]
    quantization: dict[str, Any] | None

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read config.json and generation_config.json. Raises ModelLoadError."""
        folder = Path(folder)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise ModelLoadError(f"{folder} {what}; expected a folder with config.json, the tokenizer and "
                                 "*.safetensors")
        raw = read_json(folder / "config.json")
        generation_path = folder / "generation_config.json"
        generation = read_json(generation_path) if is_there(generation_path) else {}
        return cls.from_dict(raw, generation, folder.resolve().name)

    @classmethod
    def from_dict(cls, raw: dict[str, Any], generation: dict[str, Any], name: str) -> ModelConfig:
        """Check the contents of the two files. Raises ModelLoadError."""
        fields = _Fields(raw)
        architecture = _architecture(raw)
        hidden = fields.integer("hidden_size", 8, 1 << 16)
        heads = fields.integer("num_attention_heads", 1, 1024)
        kv_heads = fields.integer("num_key_value_heads", 1, 1024, default=heads)
        if heads % kv_heads:
            raise _bad("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads, {heads}")
        if "head_dim" not in raw and hidden % heads:
            raise _bad("hidden_size", hidden, f"a multiple of num_attention_heads, {heads}, or a head_dim")
        head_dim = fields.integer("head_dim", 8, 256, default=hidden // heads)
        if head_dim % 8:
            raise _bad("head_dim", head_dim, "a multiple of 8")
        activation = raw.get("hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise _bad("hidden_act", activation, "'silu'")
        attention_bias = fields.boolean("attention_bias")
        vocab_size = fields.integer("vocab_size", 2, 1 << 22)
        quantization = raw.get("quantization_config")
        if quantization is not None and not isinstance(quantization, dict):
            raise _bad("quantization_config", quantization, "an object")
        return cls(
            name=name, architecture=architecture, vocab_size=vocab_size, hidden_size=hidden,
            intermediate_size=fields.integer("intermediate_size", 8, 1 << 20),
            num_layers=fields.integer("num_hidden_layers", 1, 512),
            num_heads=heads, num_kv_heads=kv_heads, head_dim=head_dim,
            rms_norm_eps=fields.number("rms_norm_eps", 0.0, 0.1, default=1e-6),
            max_positions=_max_positions(fields, architecture), rope=_rope(fields),
            tie_word_embeddings=fields.boolean("tie_word_embeddings"),
            qkv_bias=attention_bias or architecture == "qwen2", o_bias=attention_bias,
            mlp_bias=fields.boolean("mlp_bias"),
            bos_token_id=min(_token_ids(raw, "bos_token_id", vocab_size), default=None),
            eos_token_ids=_token_ids(raw, "eos_token_id", vocab_size)
            | _token_ids(generation, "eos_token_id", vocab_size),
            quantization=quantization)

    @property
    def num_parameters(self) -> int:
        """Weights of the whole model; a tied head counts once."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size


def _bad(key: str, value: Any, expected: str) -> ModelLoadError:
    return ModelLoadError(f"config.json: {key} is {shown(value)}; expected {expected}")


def shown(value: Any) -> str:
    """A value from an untrusted file, short enough for an error message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class _Fields:
    """Values of an untrusted object, by key, each with its range."""

    raw: dict[str, Any]

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.raw.get(key)
        if value is None and default is not None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _bad(key, value, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.raw.get(key)
        if value is None and default is not None:
            value = default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # NaN compares false
            raise _bad(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def boolean(self, key: str) -> bool:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise _bad(key, value, "true or false")
        return bool(value)


def _architecture(raw: dict[str, Any]) -> str:
    names = raw.get("architectures")
    if isinstance(names, list) and names:
        if isinstance(names[0], str) and names[0] in SUPPORTED_ARCHITECTURES:
            return SUPPORTED_ARCHITECTURES[names[0]]
        found = names[0]
    else:
        found = raw.get("model_type")
        if found in SUPPORTED_ARCHITECTURES.values():
            return found
    raise _bad("architectures", found, f"one of {', '.join(SUPPORTED_ARCHITECTURES)}")


def _max_positions(fields: _Fields, architecture: str) -> int:
    positions = fields.integer("max_position_embeddings", 1, 1 << 24, default=2048)
    uses_window = architecture == "mistral" or fields.raw.get("use_sliding_window") is True
    if uses_window and fields.raw.get("sliding_window") is not None:
        # within the window, sliding attention and full attention are the same
        positions = min(positions, fields.integer("sliding_window", 1, 1 << 24))
    return positions


def _rope(fields: _Fields) -> RopeConfig:
    """transformers 5: rope_parameters; 4: rope_theta and rope_scaling (with `type` or `rope_type`)."""
    block = fields.raw.get("rope_parameters")
    if block is None:
        block = fields.raw.get("rope_scaling") or {}
    if not isinstance(block, dict):
        raise _bad("rope_parameters", block, "an object")
    rope = _Fields(block)
    top_theta = fields.number("rope_theta", 1.0, 1e12, default=10000.0)
    theta = rope.number("rope_theta", 1.0, 1e12, default=top_theta)
    kind = block.get("rope_type", block.get("type", "default"))
    if kind == "default":
        return RopeConfig(theta)
    if kind == "linear":
        return RopeConfig(theta, "linear", rope.number("factor", 1.0, 4096.0))
    if kind == "llama3":
        low = rope.number("low_freq_factor", 1e-6, 1e6)
        high = rope.number("high_freq_factor", 1e-6, 1e6)
        if high <= low:
            raise _bad("high_freq_factor", high, f"more than low_freq_factor, {low:g}")
        return RopeConfig(theta, "llama3", rope.number("factor", 1.0, 4096.0), low, high,
                          rope.integer("original_max_position_embeddings", 1, 1 << 24))
    raise _bad("rope_type", kind, "'default', 'linear' or 'llama3'")


def _token_ids(raw: dict[str, Any], key: str, vocab_size: int) -> frozenset[int]:
    """One id, a list of them, or null. An id beyond the vocabulary can never be sampled and is left out."""
    value = raw.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if len(ids) > 1024:
        raise _bad(key, ids, "at most 1,024 token ids")
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not -1 <= token_id < 1 << 31:
            raise _bad(key, token_id, f"token ids from 0 to {vocab_size - 1:,}")
    return frozenset(token_id for token_id in ids if 0 <= token_id < vocab_size)


def rope_inverse_frequencies(rope: RopeConfig, head_dim: int) -> list[float]:
    """Angle per position of each pair of a head, head_dim // 2 numbers.

    llama3: long wavelengths are divided by `factor`, short ones stay, in between blended, as
    transformers' modeling_rope_utils._compute_llama3_parameters does.
    """
    base = [rope.theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if rope.kind == "linear":
        return [f / rope.factor for f in base]
    if rope.kind == "divisors":
        return [f / divisor for f, divisor in zip(base, rope.divisors, strict=True)]
    if rope.kind != "llama3":
        return base

    def scaled(frequency: float) -> float:
        turns = rope.original_max_positions * frequency / (2 * math.pi)
        blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        blend = min(1.0, max(0.0, blend))
        return frequency * (blend + (1 - blend) / rope.factor)

    return [scaled(f) for f in base]
