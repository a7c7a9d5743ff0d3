"""LoRA adapters as GGUF files, which convert_lora_to_gguf.py of llama.cpp writes."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from model.config import shown
from model.families.gguf_keys import plain
from model.files import ModelLoadError
from model.formats.adapter import AdapterFile, AdapterModule
from model.formats.gguf import GgufFile, GgufTensor
from model.formats.gguf_weights import check_finite

_ENDS = (".weight.lora_a", ".weight.lora_b")


def open_gguf_adapter(path: Path) -> AdapterFile:
    """Reads the header only. Raises ModelLoadError, naming what is not supported."""
    gguf = GgufFile(path)
    found = gguf.metadata
    if found.get("general.type", "model") != "adapter":
        raise ModelLoadError(f"{path.name}: general.type is {shown(found.get('general.type', 'model'))}; "
                             "expected 'adapter'. Is it a model? Then give it with -d.")
    if found.get("adapter.type") != "lora":
        raise ModelLoadError(f"{path.name}: adapter.type is {shown(found.get('adapter.type'))}; expected "
                             "'lora'")
    if "adapter.alora.invocation_tokens" in found:
        raise ModelLoadError(f"{path.name} works only after certain tokens of a prompt (activated LoRA, "
                             "adapter.alora.invocation_tokens); such adapters are not supported")
    alpha = plain(found.get("adapter.lora.alpha", 0.0))
    if not isinstance(alpha, int | float) or not abs(alpha) < 1e6:
        raise ModelLoadError(f"{path.name}: adapter.lora.alpha is {shown(alpha)}; expected a number")
    modules: dict[str, AdapterModule] = {}
    for name in gguf.tensors:
        module = next((name.removesuffix(end) for end in _ENDS if name.endswith(end)), None)
        if module is None:
            raise ModelLoadError(f"{path.name}: tensor {shown(name)} is no part of a LoRA; expected names "
                                 f"that end in {' or '.join(_ENDS)}")
        if module not in modules:
            modules[module] = _module(gguf, module, alpha)
    return AdapterFile(path.name, modules, True, str(found.get("general.architecture")))


def _module(gguf: GgufFile, module: str, alpha: float) -> AdapterModule:
    down, up = (gguf.tensor(module + end) for end in _ENDS)
    for tensor in (down, up):
        if not tensor.type.is_supported:
            raise ModelLoadError(f"{tensor.path.name}: tensor {tensor.name} has type {tensor.type.name}; "
                                 "expected F32, F16, BF16 or Q8_0")
    # llama.cpp takes the rank for alpha where that is 0
    scale = alpha / up.shape[-1] if alpha else 1.0
    return AdapterModule(down.name, up.name, down.shape, up.shape, scale,
                         functools.partial(_read, down, up))


def _read(down: GgufTensor, up: GgufTensor) -> tuple[Tensor, Tensor]:
    return _numbers(down), _numbers(up)


def _numbers(tensor: GgufTensor) -> Tensor:
    raw = tensor.read()
    if tensor.type.dtype is not None:
        return check_finite(tensor, raw.view(tensor.type.dtype).view(tensor.shape))
    return check_finite(tensor, tensor.type.dequantize(raw).to(torch.float32).view(tensor.shape))
