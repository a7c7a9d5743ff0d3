"""The unquantized model that is read: its settings and its tensors, one at a time.

Config and safetensors are read by the engine's own readers, so what can be quantized can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.families.names import HUGGING_FACE
from model.families.spec import Attention, Dense, Layer, Norm
from model.files import ModelLoadError, read_json
from model.formats.checkpoint import open_checkpoint
from model.formats.plain import PlainReader
from model.model_config import ModelConfig


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
    _check_form(config)
    method = None if config.quantization is None else config.quantization.get("quant_method", "unknown")
    reader = open_checkpoint(folder, config) if method is None else None
    if type(reader) is not PlainReader:  # quantize_config.json alone also makes it a quantized one
        raise ModelLoadError(f"{folder} is quantized already ({method or 'quantize_config.json'}); "
                             "quantize its original bf16, fp16 or fp32 version")
    return Source(folder, config, read_json(folder / "config.json"), reader)


def _check_form(config: ModelConfig) -> None:
    """Raises ModelLoadError unless every layer computes what quantize/llama.py does."""
    spec, layer = config.spec, config.spec.layers[0]
    plain = _plain(layer)
    around = spec.embedding_scale, spec.logit_scale, spec.logit_softcap, spec.norm, config.names
    if any(each != plain for each in spec.layers) or around != (1, 1, None, layer.norm, HUGGING_FACE):
        raise ModelLoadError(f"{config.name} is of the family {config.architecture}, which cannot be "
                             "quantized yet; expected one whose layers are those of Llama")


def _plain(layer: Layer) -> Layer | None:
    """Llama's layer of these sizes; None if it has other parts."""
    attention, mlp = layer.attention, layer.mlp
    if attention is None or not isinstance(mlp, Dense):
        return None
    rope = attention.rope
    if rope is None or (rope.dim, rope.magnitude, rope.interleaved, rope.long) != (
            attention.head_dim, 1, False, None):
        return None
    return Layer(Attention(attention.num_heads, attention.num_kv_heads, attention.head_dim, rope,
                           attention.head_dim ** -0.5, qkv_bias=attention.qkv_bias, o_bias=attention.o_bias),
                 Dense(mlp.intermediate_size, bias=mlp.bias), Norm("rms", layer.norm.eps))
