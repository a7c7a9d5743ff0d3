"""A LoRA adapter's files, whatever their format: for each module two small matrices beside its weight.

Headers are read at once, numbers when they are asked for. Knows nothing of the model that the adapter is for:
see network/adapters.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AdapterModule:
    """y += scale * up @ (down @ x)."""

    down_name: str               # of its tensors, as the file has them
    up_name: str
    down_shape: tuple[int, ...]  # [rank, k]
    up_shape: tuple[int, ...]    # [n, rank]
    scale: float
    read: Callable[[], tuple[Tensor, Tensor]]
    """(down, up), float32, float16 or bfloat16 as stored. Raises ModelLoadError."""


@dataclass(frozen=True)
class AdapterFile:
    """`modules` by the names that the file has for them: Hugging Face's, or GGUF's."""

    source: str             # for messages
    modules: Mapping[str, AdapterModule]
    is_gguf: bool = False
    architecture: str = ""  # general.architecture of GGUF
