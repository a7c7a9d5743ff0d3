"""The unquantized model: its config.json and its safetensors, one tensor at a time.

Knows nothing of quantization; raises ModelSourceError with what is wrong and what would be right.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

FLOAT_TYPES = (torch.bfloat16, torch.float16, torch.float32)


class ModelSourceError(ValueError):
    """The folder cannot be quantized; the text says why and what is expected."""


@dataclass(frozen=True)
class LlamaConfig:
    """What the float forward pass of a Llama decoder needs to know."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_seq_len: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict[str, Any]  # {} or {"rope_type": "linear" | "llama3", ...}


def read_config(folder: Path) -> tuple[LlamaConfig, dict[str, Any]]:
    """The fields above, and the whole config.json as it stands."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelSourceError(f"{folder} has no config.json; expected a Hugging Face Llama model's folder")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelSourceError(f"{path} is no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelSourceError(f"{path} holds {type(raw).__name__}; expected an object")
    _refuse_unsupported(path, raw)
    heads = _integer(path, raw, "num_attention_heads")
    hidden = _integer(path, raw, "hidden_size")
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=_integer(path, raw, "intermediate_size"),
        num_layers=_integer(path, raw, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_integer(path, raw, "num_key_value_heads", heads),
        head_dim=_integer(path, raw, "head_dim", hidden // heads),
        vocab_size=_integer(path, raw, "vocab_size"),
        max_seq_len=_integer(path, raw, "max_position_embeddings", 2048),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        rope_scaling=rope if _rope_type(rope) != "default" else {},
    ), raw


def _integer(path: Path, raw: dict[str, Any], name: str, default: int | None = None) -> int:
    value = raw.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1 << 24:
        raise ModelSourceError(f"{path}: {name} is {value!r}; expected a whole number from 1 to {1 << 24}")
    return value


def _rope_type(rope: dict[str, Any]) -> str:
    return rope.get("rope_type") or rope.get("type") or "default"


def _refuse_unsupported(path: Path, raw: dict[str, Any]) -> None:
    if raw.get("model_type") != "llama":
        raise ModelSourceError(f"{path}: model_type is {raw.get('model_type')!r}; supported: 'llama'")
    if raw.get("quantization_config"):
        method = raw["quantization_config"].get("quant_method", "unknown")
        raise ModelSourceError(f"{path}: the model is quantized already ({method}); "
                               "quantize its original bf16, fp16 or fp32 version")
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelSourceError(f"{path}: hidden_act is {raw['hidden_act']!r}; supported: 'silu'")
    rope = _rope_type(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    if rope not in ("default", "linear", "llama3"):
        raise ModelSourceError(f"{path}: rope type is {rope!r}; supported: default, linear, llama3")


class TensorFolder:
    """The tensors of model.safetensors, or of the shards that model.safetensors.index.json names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        for path in _weight_files(folder):
            try:
                with safe_open(path, framework="pt") as file:
                    self._file_of.update(dict.fromkeys(file.keys(), path))
            except (SafetensorError, OSError) as error:
                raise ModelSourceError(f"{path} cannot be read: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def names(self) -> list[str]:
        return list(self._file_of)

    def load(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """The tensor as it is stored.

        Raises ModelSourceError if it is missing; where a shape is given, also if it is another or not float.
        """
        if name not in self._file_of:
            raise ModelSourceError(f"{self.folder} has no tensor {name}, which a Llama model needs")
        with safe_open(self._file_of[name], framework="pt") as file:
            tensor = file.get_tensor(name)
        if shape is not None and tuple(tensor.shape) != shape:
            raise ModelSourceError(f"{self.folder}: {name} has shape {list(tensor.shape)}; "
                                   f"config.json asks for {list(shape)}")
        if shape is not None and tensor.dtype not in FLOAT_TYPES:
            raise ModelSourceError(f"{self.folder}: {name} is {tensor.dtype}; expected bf16, fp16 or fp32")
        return tensor


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise ModelSourceError(f"{folder} has neither model.safetensors nor model.safetensors.index.json; "
                               "weights in .bin or .pt must be converted to safetensors first")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelSourceError(f"{index} has no readable weight_map: {error}") from error
    files = [folder / Path(name).name for name in names]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ModelSourceError(f"{folder} lacks {', '.join(missing)}, which {index.name} names")
    return files
