"""The unquantized model that is read: its settings and its tensors, one at a time.

Config and safetensors are read by the engine's own readers, so what can be quantized can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import ModelConfig, ModelLoadError, read_json
from model.formats.plain import PlainReader
from model.formats.safetensors_reader import TensorFolder


@dataclass(frozen=True)
class Source:
    """A float model of the Llama family."""

    folder: Path
    config: ModelConfig
    raw_config: dict[str, Any]  # config.json as it stands; the target's has a section more
    reader: PlainReader


def open_source(folder: Path) -> Source:
    """Read config.json and the headers. Raises ModelLoadError if the model is none, or quantized already."""
    config = ModelConfig.from_folder(folder)
    tensors = TensorFolder(folder)
    method = (config.quantization or {}).get("quant_method", "unknown")
    if config.quantization is not None or any(name.endswith(".qweight") for name in tensors.tensors):
        raise ModelLoadError(f"{folder} is quantized already ({method}); "
                             "quantize its original bf16, fp16 or fp32 version")
    has_bias = {**dict.fromkeys(("q_proj", "k_proj", "v_proj"), config.qkv_bias), "o_proj": config.o_bias,
                **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), config.mlp_bias)}
    return Source(folder, config, read_json(folder / "config.json"), PlainReader(tensors, has_bias))
