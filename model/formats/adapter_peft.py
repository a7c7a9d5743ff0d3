"""LoRA adapters as PEFT saves them: adapter_config.json and adapter_model.safetensors in a folder.

What changes the model in other ways than by low-rank products is refused by its name.
Source: LoraConfig of https://github.com/huggingface/peft/blob/main/src/peft/tuners/lora/config.py
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import shown
from model.files import ModelLoadError, is_there, read_json
from model.formats.adapter import AdapterFile, AdapterModule
from model.formats.safetensors_reader import TensorInfo, read_header, read_tensor

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_PLAIN = re.compile(r"[A-Za-z0-9_.\\]+")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_STARTS = ("gaussian", "eva", "orthogonal")
"""Of training, that leave the model's own weights as they are; others, such as pissa, change these."""
_REFUSED = {
    "use_dora": "DoRA, which also rescales the model's weights",
    "lora_bias": "biases of its own",
    "modules_to_save": "whole modules of its own",
    "layer_replication": "layers that are repeated",
    "target_parameters": "parameters that are no Linear's weight",
    "trainable_token_indices": "embeddings of its own",
    "alora_invocation_tokens": "activated LoRA, which works only after certain tokens"}


def open_peft_adapter(folder: Path) -> AdapterFile:
    """Reads the config and the header. Raises ModelLoadError, naming what is not supported."""
    config = _config(folder)
    weights = folder / _WEIGHTS
    if not is_there(weights):
        pickles = [name for name in _PICKLES if is_there(folder / name)]
        found = f"only {pickles[0]}, a pickle, which can run code when it is opened" if pickles else "none"
        raise ModelLoadError(f"{folder} has no {_WEIGHTS}: its weights are {found}. Save the adapter anew "
                             "with PEFT, which writes safetensors, or convert it to GGUF.")
    tensors: dict[str, dict[str, str]] = {}
    header = read_header(weights)
    for name in header:
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise ModelLoadError(f"{folder.name}: tensor {shown(name)} is no part of a LoRA; expected names "
                                 "that end in .lora_A.weight or .lora_B.weight")
        tensors.setdefault(match[1], {})[match[2]] = name
    return AdapterFile(folder.name, {module: _module(folder, config, module, names, header)
                                     for module, names in tensors.items()})


def _config(folder: Path) -> dict[str, Any]:
    if not is_there(folder / _CONFIG):
        hint = " It has a model; give that with -d." if is_there(folder / "config.json") else ""
        raise ModelLoadError(f"{folder} has no {_CONFIG}; expected a LoRA adapter's folder, as PEFT saves "
                             f"it.{hint}")
    config = read_json(folder / _CONFIG)
    where = f"{folder.name}: {_CONFIG}"
    if config.get("peft_type") != "LORA":
        raise ModelLoadError(f"{where}: peft_type is {shown(config.get('peft_type'))}; supported: 'LORA'")
    for key, what in _REFUSED.items():
        if config.get(key):
            raise ModelLoadError(f"{where}: {key} is {shown(config[key])}: the adapter has {what}, which is "
                                 "not supported; only low-rank products are. Merge it into the model with "
                                 "PEFT's merge_and_unload() instead.")
    for key, value in config.items():
        if key.startswith("use_") and value and key != "use_rslora":
            raise ModelLoadError(f"{where}: {key} is {shown(value)}, which is not supported")
    if config.get("bias", "none") != "none":
        raise ModelLoadError(f"{where}: bias is {shown(config['bias'])}; expected 'none': an adapter with "
                             "biases is not supported")
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool) and start is not None and start not in _STARTS:
        raise ModelLoadError(f"{where}: init_lora_weights is {shown(start)}, which changes the model's own "
                             "weights. Convert the adapter to plain LoRA with PEFT (save_pretrained with "
                             "path_initial_model_for_weight_conversion).")
    return config


def _module(folder: Path, config: dict[str, Any], module: str, names: dict[str, str],
            header: dict[str, TensorInfo]) -> AdapterModule:
    for part in "AB":
        if part not in names:
            other = names["B" if part == "A" else "A"]
            raise ModelLoadError(f"{folder.name}: there is {other}, and no lora_{part} beside it. Is the "
                                 "file complete?")
    down, up = (header[names[part]] for part in "AB")
    for part, info in (("A", down), ("B", up)):
        if info.dtype not in _FLOATS:
            raise ModelLoadError(f"{folder.name}: tensor {names[part]} is "
                                 f"{str(info.dtype).removeprefix('torch.')}; expected float32, float16 or "
                                 "bfloat16")
    rank = _number(folder, config, "r", "rank_pattern", module, 8)
    alpha = _number(folder, config, "lora_alpha", "alpha_pattern", module, 8)
    if len(down.shape) == 2 and down.shape[0] != rank:
        raise ModelLoadError(f"{folder.name}: tensor {names['A']} has rank {down.shape[0]}; {_CONFIG} says "
                             f"{rank:g}")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return AdapterModule(names["A"], names["B"], down.shape, up.shape, scale,
                         functools.partial(_read, (names["A"], down), (names["B"], up)))


def _number(folder: Path, config: dict[str, Any], key: str, patterns: str, module: str,
            default: float) -> float:
    """`key`, or what the first pattern that the module's name ends with has in its place."""
    value, name = config.get(key, default), key
    table = config.get(patterns) or {}
    if not isinstance(table, dict):
        raise ModelLoadError(f"{folder.name}: {_CONFIG}: {patterns} is {shown(table)}; expected an object")
    for pattern, own in table.items():
        if _matches(folder, patterns, pattern, module):
            value, name = own, f"{patterns} of {shown(pattern)}"
            break
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < 1e6:
        raise ModelLoadError(f"{folder.name}: {_CONFIG}: {name} is {shown(value)}; expected a number above 0")
    return value


def _matches(folder: Path, patterns: str, pattern: str, module: str) -> bool:
    """As PEFT: the module's name, or what follows one of its dots. Expressions that are more than a name are
    a stranger's, and not run."""
    is_whole, text = pattern.startswith("^"), pattern.removeprefix("^").removesuffix("$")
    if not _PLAIN.fullmatch(text):
        raise ModelLoadError(f"{folder.name}: {_CONFIG}: {patterns} has the expression {shown(pattern)}; "
                             "only names of modules are supported")
    text = text.replace("\\", "")
    return module == text or (not is_whole and module.endswith(f".{text}"))


def _read(down: tuple[str, TensorInfo], up: tuple[str, TensorInfo]) -> tuple[Tensor, Tensor]:
    return _numbers(*down), _numbers(*up)


def _numbers(name: str, info: TensorInfo) -> Tensor:
    tensor = read_tensor(info)
    if not torch.isfinite(tensor).all():
        raise ModelLoadError(f"{info.path.name}: tensor {name} holds infinity or what is no number. Save or "
                             "download the adapter again.")
    return tensor
