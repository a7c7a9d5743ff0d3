"""Unquantized checkpoints: float16, bfloat16 or float32 weights, kept in the type they are stored in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import CPU, DenseMatrix, Matrix, MatrixInfo

FLOATS = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}


class PlainReader:
    """Weights as transformers saves them."""

    def __init__(self, folder: TensorFolder) -> None:
        self.folder = folder

    def describe(self) -> str:
        dtype = max(self.folder.tensors.values(), key=lambda info: info.nbytes).dtype
        return str(dtype).removeprefix("torch.")

    @property
    def stored_bytes(self) -> int:
        return sum(info.nbytes for info in self.folder.tensors.values())

    def has_tensor(self, name: str) -> bool:
        return name in self.folder

    def is_quantized(self, name: str) -> bool:
        return name + ".qweight" in self.folder

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        self._check_bias(name, n)
        return self.table_info(name + ".weight", n, k)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        return DenseMatrix(self.table(name + ".weight", n, k, device), self.bias(name, n, device))

    def vector(self, name: str, n: int, device: torch.device = CPU) -> Tensor:
        self.folder.check(name, (n,), tuple(FLOATS))
        return self.folder.read(name).float().to(device)

    def numbers_of(self, name: str, count: int, device: torch.device = CPU) -> Tensor:
        shape = self.folder.info(name).shape
        self.folder.check(name, shape if math.prod(shape) == count else (count,), tuple(FLOATS))
        return self.folder.read(name).float().flatten().to(device)

    def filters(self, name: str, channels: int, taps: int, device: torch.device = CPU) -> Tensor:
        shape = (channels, taps) if len(self.folder.info(name).shape) == 2 else (channels, 1, taps)
        self.folder.check(name, shape, tuple(FLOATS))
        return self.folder.read(name).float().view(channels, taps).to(device)

    def table_info(self, name: str, rows: int, columns: int) -> MatrixInfo:
        info = self.folder.check(name, (rows, columns), tuple(FLOATS))
        return MatrixInfo(FLOATS[info.dtype], info.nbytes)

    def table(self, name: str, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
        self.table_info(name, rows, columns)
        return self.folder.read(name).to(device)

    def _check_bias(self, name: str, n: int) -> None:
        bias = name + ".bias"
        if bias in self.folder:
            self.folder.check(bias, (n,), tuple(FLOATS))

    def bias(self, name: str, n: int, device: torch.device) -> Tensor | None:
        """Some tools write a bias of zeros where the model has none; it is read, and does no harm."""
        self._check_bias(name, n)
        bias = name + ".bias"
        if bias not in self.folder:
            return None
        values = self.vector(bias, n)
        return values.to(device) if values.any() else None
