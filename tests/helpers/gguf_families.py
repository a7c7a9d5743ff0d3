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
_LATER = {"muse-glimmer": "afmoe", "cohere2moe": "afmoe", "mellum": "qwen3moe", "hy_v3": "dots1",
          "granite_swa": "llama", "laguna": "dots1", "spark2_5": "llama"}
"""Architectures that are later than the package, and one whose tensors have the same names."""


def write_gguf_family(path: Path, model: torch.nn.Module, architecture: str, keys: Mapping[str, Any],
                      prepared: Callable[[Tensors], Tensors] = lambda tensors: tensors,
                      extra: Mapping[str, list[float]] | None = None,
                      metadata: Mapping[str, Any] | None = None) -> Path:
    """Everything in float32.

    keys      of the metadata, without the architecture before them
    prepared  the state dict -> what llama.cpp's converter makes of it; a name that begins with "blk." is kept
    extra     tensors that the converter adds
    metadata  keys that have no architecture before them
    """
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    known = _LATER.get(architecture, architecture)
    names = gguf.get_tensor_name_map(numbers[known], int(keys["block_count"]))
    tensors: dict[str, tuple[int, np.ndarray]] = {}
    is_tied = getattr(model.config, "tie_word_embeddings", False)
    for name, tensor in prepared(dict(model.state_dict())).items():
        if name == "lm_head.weight" and is_tied:
            continue
        found = name if name.startswith("blk.") else names.get_name(name, (".weight", ".bias"))
        assert found is not None, name
        if not name.startswith("blk."):
            found += "" if found.endswith((".weight", ".bias", ".scale", ".ssm_a", ".ssm_d")) else ".weight"
        tensors[found] = (0, tensor.float().contiguous().numpy())
    for name, values in (extra or {}).items():
        tensors[name] = (0, np.array(values, dtype=np.float32))
    vocab_size = model.get_input_embeddings().num_embeddings
    arrays = {key: np.array(value, dtype=bool if isinstance(value[0], bool) else np.int32)
              if isinstance(value, list) else value for key, value in keys.items()}
    return write_gguf(path, {"general.architecture": architecture,
                             "tokenizer.ggml.tokens": ["x"] * vocab_size, **(metadata or {}),
                             **{f"{architecture}.{key}": value for key, value in arrays.items()}}, tensors)
