"""Find out what format a model's file or folder has, and open the reader for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from model.config import shown
from model.families.names import located
from model.files import ModelLoadError, is_there, read_json
from model.formats.awq import AwqReader
from model.formats.bitsandbytes import BitsAndBytesReader
from model.formats.compressed_tensors import CompressedTensorsReader
from model.formats.exl2 import Exl2Reader
from model.formats.fp8 import Fp8Reader
from model.formats.gguf import GgufFile
from model.formats.gguf_parts import find_gguf, parts_of
from model.formats.gguf_weights import GgufReader
from model.formats.gptq import GptqReader
from model.formats.mxfp4 import Mxfp4Reader
from model.formats.plain import PlainReader
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import WeightReader
from model.model_config import ModelConfig

SUPPORTED = ("GGUF files, GPTQ with 2, 3, 4 or 8 bits, AWQ, compressed-tensors, FP8, bitsandbytes, EXL2, "
             "NVFP4 of ModelOpt, MXFP4 of gpt-oss, and float16, bfloat16 or float32 without quantization")


def open_model(path: Path, exact: bool = False) -> tuple[ModelConfig, WeightReader]:
    """What a folder, or a GGUF file, says of the model, with the names that its tensors really have, and the
    reader of its weights. Reads headers only.

    exact  numbers that must be widened keep every bit, whatever memory that takes

    Raises ModelLoadError.
    """
    file = find_gguf(path)
    if file is None:
        config = ModelConfig.from_folder(path)
        reader = open_checkpoint(path, config, exact)
    else:
        reader = GgufReader(GgufFile(file), exact)
        config = ModelConfig.from_gguf(reader.gguf.metadata, reader.numbers, file)
    return replace(config, names=located(config.names, reader.has_tensor)), reader


def files_of(path: Path) -> list[Path]:
    """Those that a model is read from: a GGUF file's parts, or what a folder has of settings and weights."""
    file = find_gguf(path)
    if file is not None:
        return parts_of(file)
    return sorted(each for each in path.iterdir()
                  if each.suffix in (".json", ".safetensors") and each.is_file())


def open_checkpoint(folder: Path, config: ModelConfig, exact: bool = False) -> WeightReader:
    """The reader for `folder`. Reads headers only. Raises ModelLoadError, naming what is supported."""
    folder = Path(folder)
    settings = config.quantization or _separate_settings(folder)
    if settings:
        return _quantized_reader(TensorFolder(folder), settings, exact)
    tensors = TensorFolder(folder)
    if any(name.endswith(".q_weight") for name in tensors.tensors):
        return Exl2Reader(tensors)
    if any(name.endswith(".qweight") for name in tensors.tensors):
        raise ModelLoadError("the file has quantized tensors (qweight), but config.json has no "
                             "quantization_config and there is no quantize_config.json")
    return PlainReader(tensors)


def _quantized_reader(tensors: TensorFolder, settings: dict[str, Any], exact: bool) -> WeightReader:
    method = settings.get("quant_method", "gptq")
    if method in ("auto-round", "intel/auto-round"):
        packing = settings.get("packing_format", "auto_round:auto_gptq")
        method = "awq" if isinstance(packing, str) and "awq" in packing else "gptq"
    if method == "gptq":
        return GptqReader(tensors, settings)
    if method == "awq":
        return AwqReader(tensors, settings)
    if method == "fp8":
        return Fp8Reader(tensors, settings, exact)
    if method in ("compressed-tensors", "modelopt"):
        return CompressedTensorsReader(tensors, settings, exact)
    if method == "exl2":
        return Exl2Reader(tensors)
    if method == "mxfp4":
        return Mxfp4Reader(tensors)
    if method == "bitsandbytes":
        return BitsAndBytesReader(tensors, exact)
    raise ModelLoadError(f"config.json: the weights are quantized by {shown(method)}; supported: {SUPPORTED}")


def _separate_settings(folder: Path) -> dict[str, Any] | None:
    """AutoGPTQ before transformers knew it wrote quantize_config.json."""
    path = folder / "quantize_config.json"
    return read_json(path) if is_there(path) else None
