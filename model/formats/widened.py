"""Matrices whose numbers no kernel has (FP8 in odd blocks, NF4 with --exact): they become float16, or float32
if that is exact."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.formats.plain import FLOATS, PlainReader
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import CPU, DenseMatrix, MatrixInfo

_ROWS_AT_A_TIME = 1024


class WideningReader(PlainReader):
    """Plain modules, and others that a format's own reader widens."""

    def __init__(self, folder: TensorFolder, exact: bool) -> None:
        super().__init__(folder)
        self.wide_dtype = torch.float32 if exact else torch.float16

    def wide_info(self, name: str, n: int, k: int) -> MatrixInfo:
        self._check_bias(name, n)
        return MatrixInfo(FLOATS[self.wide_dtype], n * k * self.wide_dtype.itemsize)

    def wide_matrix(self, name: str, n: int, k: int, numbers: Callable[[int, int], Tensor],
                    device: torch.device = CPU) -> DenseMatrix:
        """numbers(first, last): float32 [last - first, k], the rows first .. last - 1."""
        weight = torch.empty(n, k, dtype=self.wide_dtype, device=device)
        for first in range(0, n, _ROWS_AT_A_TIME):  # float32 copies of all would take gigabytes
            last = min(n, first + _ROWS_AT_A_TIME)
            weight[first:last] = numbers(first, last)
        return DenseMatrix(weight, self.bias(name, n, device))
