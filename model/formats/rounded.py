"""Plain weights that become codes of 4 or 8 bits while they are loaded, tensor by tensor."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from model.formats.plain import FLOATS
from model.formats.weights import CPU, DenseMatrix, Matrix, MatrixInfo, RoundedMatrix, WeightReader
from model.kernels.rounding import SIZE


class RoundingReader:
    """A WeightReader over another: those of `names` that are floats there will be codes of `bits`."""

    def __init__(self, reader: WeightReader, bits: int, names: Collection[str]) -> None:
        self.stored, self.bits, self._names = reader, bits, frozenset(names)

    def describe(self) -> str:
        return f"{self.stored.describe()}, rounded to {self.bits} bits"

    @property
    def stored_bytes(self) -> int:
        return self.stored.stored_bytes

    def has_tensor(self, name: str) -> bool:
        return self.stored.has_tensor(name)

    def is_quantized(self, name: str) -> bool:
        return name in self._names or self.stored.is_quantized(name)

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        info = self.stored.matrix_info(name, n, k)
        if not self._rounds(name, k) or info.kind not in FLOATS.values():
            return info
        return MatrixInfo(f"q{self.bits}", n * (k * self.bits // 8 + k // SIZE * 2))

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        matrix = self.stored.matrix(name, n, k, device)
        if not self._rounds(name, k) or not isinstance(matrix, DenseMatrix):
            return matrix
        return RoundedMatrix((matrix.weight,), self.bits, matrix.bias)

    def _rounds(self, name: str, k: int) -> bool:
        return name in self._names and k % SIZE == 0

    def vector(self, name: str, n: int, device: torch.device = CPU) -> Tensor:
        return self.stored.vector(name, n, device)

    def numbers_of(self, name: str, count: int, device: torch.device = CPU) -> Tensor:
        return self.stored.numbers_of(name, count, device)

    def filters(self, name: str, channels: int, taps: int, device: torch.device = CPU) -> Tensor:
        return self.stored.filters(name, channels, taps, device)

    def table_info(self, name: str, rows: int, columns: int) -> MatrixInfo:
        return self.stored.table_info(name, rows, columns)

    def table(self, name: str, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
        return self.stored.table(name, rows, columns, device)
