"""Weights of well-known shapes made of random 4-bit codes in memory: for measuring, not for talking.

Speed and memory are those of a GPTQ checkpoint of that shape. Layers share their random source matrices, so
that making 70 billion weights takes seconds; each is packed on its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.files import ModelLoadError
from model.formats.weights import CPU, DenseMatrix, Matrix, MatrixInfo, QuantizedMatrix
from model.model_config import ModelConfig

GROUP_SIZE = 64
_CODE_SPREAD = 4.6  # standard deviation of random codes 0..15


def _shape(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, *, vocab: int = 32000,
           context: int = 4096, theta: float = 10000.0) -> dict[str, Any]:
    return {"architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "vocab_size": vocab, "max_position_embeddings": context, "rms_norm_eps": 1e-5,
            "rope_theta": theta, "eos_token_id": 2, "bos_token_id": 1}


SHAPES: dict[str, dict[str, Any]] = {
    "tinyllama-1.1b": _shape(2048, 5632, 22, 32, 4, context=16384),  # true context 2048; more to measure
    "llama-3.2-1b": _shape(2048, 8192, 16, 32, 8, vocab=128256, context=131072, theta=5e5),
    "llama-3.2-3b": _shape(3072, 8192, 28, 24, 8, vocab=128256, context=131072, theta=5e5),
    "llama-1-33b": _shape(6656, 17920, 60, 52, 52, context=16384),
    "llama-2-7b": _shape(4096, 11008, 32, 32, 32, context=16384),
    "llama-2-13b": _shape(5120, 13824, 40, 40, 40, context=16384),
    "llama-2-70b": _shape(8192, 28672, 80, 64, 8, context=16384),
    "llama-3-8b": _shape(4096, 14336, 32, 32, 8, vocab=128256, context=16384, theta=5e5),
    "llama-3-70b": _shape(8192, 28672, 80, 64, 8, vocab=128256, context=16384, theta=5e5),
}
"""config.json of each shape. Contexts are at least 16,384, so that long ones can be measured."""


def synthetic_config(name: str) -> ModelConfig:
    """Raises ModelLoadError for a shape that is not there, naming those that are."""
    if name not in SHAPES:
        raise ModelLoadError(f"no synthetic model {name!r}; expected one of {', '.join(SHAPES)}")
    return ModelConfig.from_dict(SHAPES[name], {}, name)


class SyntheticReader:
    """A WeightReader without files. `head_bits`: 4, or 16 as most GPTQ checkpoints leave the head."""

    def __init__(self, head_bits: int = 16) -> None:
        self.head_bits = head_bits
        self._generator = torch.Generator().manual_seed(0)
        self._made: dict[tuple[int, int, torch.device], Matrix] = {}

    def describe(self) -> str:
        return f"4-bit random g{GROUP_SIZE}"

    def has_tensor(self, name: str) -> bool:
        return not name.endswith(".bias")

    stored_bytes = 0

    def is_quantized(self, name: str) -> bool:
        return name.endswith("_proj") or (name == "lm_head" and self.head_bits == 4)

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        if not self.is_quantized(name):
            return MatrixInfo("f16", n * k * 2)
        return MatrixInfo("q4", n * k // 2 + n * -(-k // GROUP_SIZE) * 4)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        if not self.is_quantized(name):
            return DenseMatrix(self.table(name, n, k, device), None)
        if (n, k, device) not in self._made:
            codes = torch.randint(0, 16, (n, k), dtype=torch.uint8, generator=self._generator)
            groups = -(-k // GROUP_SIZE)
            scales = torch.full((n, groups), 1 / (_CODE_SPREAD * k ** 0.5), dtype=torch.float16)
            zeros = torch.full((n, groups), 8, dtype=torch.uint8)
            self._made[n, k, device] = QuantizedMatrix(codes.to(device), scales.to(device), zeros.to(device),
                                                       GROUP_SIZE, 4, None, None)
        return self._made[n, k, device]

    def vector(self, name: str, n: int, device: torch.device = CPU) -> Tensor:
        return torch.ones(n, device=device)

    def numbers_of(self, name: str, count: int, device: torch.device = CPU) -> Tensor:
        return torch.ones(count, device=device)

    def filters(self, name: str, channels: int, taps: int, device: torch.device = CPU) -> Tensor:
        return torch.ones(channels, taps, device=device) / taps

    def table_info(self, name: str, rows: int, columns: int) -> MatrixInfo:
        return MatrixInfo("f16", rows * columns * 2)

    def table(self, name: str, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
        row = torch.randn(4096, columns, generator=self._generator) / columns ** 0.5
        return row.to(device, torch.float16).repeat(-(-rows // 4096), 1)[:rows].contiguous()
