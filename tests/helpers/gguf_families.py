"""Models of transformers as GGUF files: names by the `gguf` package, the metadata by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from tests.helpers.gguf_files import write_gguf

Tensors = dict[str, torch.Tensor]


def write_gguf_family(path: Path, model: torch.nn.Module, architecture: str, keys: Mapping[str, Any],
                      prepared: Callable[[Tensors], Tensors] = lambda tensors: tensors,
                      extra: Mapping[str, list[float]] | None = None) -> Path:
    """Everything in float32.

    keys      of the metadata, without the architecture before them
    prepared  the state dict -> what llama.cpp's converter makes of it; a name that begins with "blk." is kept
    extra     tensors that the converter adds
    """
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[architecture], int(keys["block_count"]))
    tensors: dict[str, tuple[int, np.ndarray]] = {}
    for name, tensor in prepared(dict(model.state_dict())).items():
        found = name if name.startswith("blk.") else names.get_name(name, (".weight", ".bias"))
        assert found is not None, name
        found += "" if found.endswith((".weight", ".bias", ".scale", ".ssm_a", ".ssm_d")) else ".weight"
        tensors[found] = (0, tensor.float().contiguous().numpy())
    for name, values in (extra or {}).items():
        tensors[name] = (0, np.array(values, dtype=np.float32))
    if getattr(model.config, "tie_word_embeddings", False):
        del tensors["output.weight"]
    arrays = {key: np.array(value, dtype=bool if isinstance(value[0], bool) else np.int32)
              if isinstance(value, list) else value for key, value in keys.items()}
    return write_gguf(path, {"general.architecture": architecture,
                             "tokenizer.ggml.tokens": ["x"] * model.config.vocab_size,
                             **{f"{architecture}.{key}": value for key, value in arrays.items()}}, tensors)
