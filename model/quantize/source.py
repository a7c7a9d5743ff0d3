"""The unquantized model that is read: its settings and its tensors, one at a time.

Config and safetensors are read by the engine's own readers, so what can be quantized can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.files import ModelLoadError, read_json
from model.formats.checkpoint import open_checkpoint
from model.formats.plain import PlainReader


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
    method = None if config.quantization is None else config.quantization.get("quant_method", "unknown")
    reader = open_checkpoint(folder, config) if method is None else None
    if type(reader) is not PlainReader:  # quantize_config.json alone also makes it a quantized one
        raise ModelLoadError(f"{folder} is quantized already ({method or 'quantize_config.json'}); "
                             "quantize its original bf16, fp16 or fp32 version")
    return Source(folder, config, read_json(folder / "config.json"), reader)
