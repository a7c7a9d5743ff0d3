"""Find out what format a model's file or folder has, and open the reader for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.config import ModelConfig, shown
from model.files import ModelLoadError, is_there, read_json
from model.formats.gguf import GgufFile
from model.formats.gguf_config import config_of_gguf
from model.formats.gguf_parts import find_gguf
from model.formats.gguf_weights import GgufReader, gguf_name
from model.formats.gptq import GptqReader
from model.formats.plain import PlainReader
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import WeightReader

SUPPORTED = "GGUF files, GPTQ with 2, 3, 4 or 8 bits, and float16, bfloat16 or float32 without quantization"


def open_model(path: Path) -> tuple[ModelConfig, WeightReader]:
    """What a folder, or a GGUF file, says of the model, and the reader of its weights. Reads headers only.

    Raises ModelLoadError.
    """
    file = find_gguf(path)
    if file is None:
        config = ModelConfig.from_folder(path)
        return config, open_checkpoint(path, config)
    gguf = GgufFile(file)
    config = config_of_gguf(gguf)
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    permuted = heads if config.architecture == "llama" else {}
    return config, GgufReader(gguf, gguf_name, lambda name: permuted.get(name.rpartition(".")[2], 0))


def open_checkpoint(folder: Path, config: ModelConfig) -> WeightReader:
    """The reader for `folder`. Reads headers only. Raises ModelLoadError, naming what is supported."""
    folder = Path(folder)
    settings = config.quantization or _separate_settings(folder)
    method = settings.get("quant_method", "gptq") if settings else None
    if method not in (None, "gptq"):
        raise ModelLoadError(f"config.json: the weights are quantized by {shown(method)}; "
                             f"supported: {SUPPORTED}")
    tensors = TensorFolder(folder)
    has_bias = {**dict.fromkeys(("q_proj", "k_proj", "v_proj"), config.qkv_bias), "o_proj": config.o_bias,
                **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), config.mlp_bias)}
    if settings:
        return GptqReader(tensors, has_bias, settings)
    if any(name.endswith(".qweight") for name in tensors.tensors):
        raise ModelLoadError("the file has quantized tensors (qweight), but config.json has no "
                             "quantization_config and there is no quantize_config.json")
    return PlainReader(tensors, has_bias)


def _separate_settings(folder: Path) -> dict[str, Any] | None:
    """AutoGPTQ before transformers knew it wrote quantize_config.json."""
    path = folder / "quantize_config.json"
    return read_json(path) if is_there(path) else None
