"""The weights of a GGUF file as matrices: each type in the nearest form that the kernels have.

Nothing is rounded but products of two scales, and minimums divided by them, to float16.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from model.files import ModelLoadError
from model.formats.ggml_types import SUPER_BLOCK, SUPPORTED, Groups
from model.formats.gguf import GgufFile, GgufTensor
from model.formats.weights import CPU, DenseMatrix, Matrix, MatrixInfo, QuantizedMatrix

_DENSE_KINDS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_SIGNED = 128  # added to values of a table, so that codes are not negative
_BYTES_PER_GROUP = 4


class GgufReader:
    """A WeightReader."""

    def __init__(self, gguf: GgufFile) -> None:
        self.gguf = gguf

    def describe(self) -> str:
        """Like 'GGUF Q4_K, Q6_K': the types of matrices, the most frequent one first."""
        bytes_of: Counter[str] = Counter()
        for tensor in self.gguf.tensors.values():
            if len(tensor.shape) > 1:
                bytes_of[tensor.type.name] += tensor.nbytes
        return "GGUF " + ", ".join(name for name, _ in bytes_of.most_common())

    def has_tensor(self, name: str) -> bool:
        return name in self.gguf

    def numbers(self, name: str) -> list[float] | None:
        """Of a small tensor; None if there is none of this name. Raises ModelLoadError unless it is F32."""
        if name not in self.gguf:
            return None
        tensor = self.gguf.tensor(name)
        if tensor.type.name != "F32" or tensor.rows != 1:
            raise ModelLoadError(f"{tensor.path.name}: {name} is {tensor.type.name} {list(tensor.shape)}; "
                                 "expected F32 with one dimension")
        return tensor.type.dequantize(tensor.read()).view(-1).tolist()

    def is_quantized(self, name: str) -> bool:
        weight = name + ".weight"
        return weight in self.gguf and self.gguf.tensor(weight).type.unpack is not None

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        tensor = self._checked(name + ".weight", (n, k))
        if tensor.type.dtype is not None:
            return MatrixInfo(_DENSE_KINDS[tensor.type.dtype], tensor.nbytes)
        groups = tensor.type.groups(torch.zeros(1, tensor.row_bytes, dtype=torch.uint8))
        bits = _kept_bits(groups)
        padded = k // groups.size * max(32, groups.size)
        return MatrixInfo(f"q{bits}", n * (padded * bits // 8 + k // groups.size * _BYTES_PER_GROUP))

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        tensor = self._checked(name + ".weight", (n, k))
        raw = tensor.read().to(device)
        bias = self._bias(name, n, device)
        if tensor.type.dtype is not None:
            return DenseMatrix(raw.view(tensor.type.dtype), bias)
        return widened(tensor.type.groups(raw), bias)

    def vector(self, name: str, n: int, device: torch.device = CPU) -> Tensor:
        tensor = self._checked(name, (n,))
        return tensor.type.dequantize(tensor.read()).view(n).to(device)

    def table_info(self, name: str, rows: int, columns: int) -> MatrixInfo:
        tensor = self._checked(name, (rows, columns))
        dtype = tensor.type.dtype or torch.float16
        return MatrixInfo(_DENSE_KINDS[dtype], rows * columns * dtype.itemsize)

    def table(self, name: str, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
        """Blocks become float16, a part at a time."""
        tensor = self._checked(name, (rows, columns))
        raw = tensor.read()
        if tensor.type.dtype is not None:
            return raw.view(tensor.type.dtype).to(device)
        table = torch.empty(rows, columns, dtype=torch.float16, device=device)
        step = max(1, (8 << 20) // columns)
        for first in range(0, rows, step):
            table[first:first + step] = tensor.type.dequantize(raw[first:first + step]).to(torch.float16)
        return table

    def _checked(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        tensor = self.gguf.tensor(name)
        where = f"{tensor.path.name}: tensor {tensor.name}"
        if not tensor.type.is_supported:
            raise ModelLoadError(f"{where} has type {tensor.type.name}; supported: {', '.join(SUPPORTED)}")
        if tensor.shape != shape:
            raise ModelLoadError(f"{where} is {list(tensor.shape)}; expected {list(shape)}")
        return tensor

    def _bias(self, name: str, n: int, device: torch.device) -> Tensor | None:
        bias = name + ".bias"
        return self.vector(bias, n, device) if bias in self.gguf else None


def _kept_bits(groups: Groups) -> int:
    return 8 if groups.bits > 4 or groups.table is not None else 4


def widened(groups: Groups, bias: Tensor | None = None) -> QuantizedMatrix:
    """Codes of 4 or 8 bits, with a float16 scale and zero point for each group."""
    rows = len(groups.codes)
    codes, zero = groups.codes, groups.zero
    if groups.table is not None:
        values = torch.tensor(groups.table, device=codes.device) + _SIGNED
        codes, zero = values.to(torch.uint8)[codes.int()], _SIGNED
    scales = _product(groups.scales, groups.steps, groups.size)
    zeros = torch.full(scales.shape, zero, dtype=torch.uint8, device=codes.device)
    if groups.mins is not None:
        mins = _product(groups.mins, groups.min_steps, groups.size)
        flat = scales.to(torch.float16) == 0  # every weight of such a group is -minimum: code 0, zero point 1
        codes = torch.where(flat.repeat_interleave(groups.size, 1), 0, codes)
        zeros = torch.where(flat, 1.0, zero + mins / torch.where(flat, 1.0, scales)).to(torch.float16)
        scales = torch.where(flat, mins, scales)
    return QuantizedMatrix(codes.view(rows, -1), scales.to(torch.float16), zeros, groups.size,
                           _kept_bits(groups), None, bias)


def _product(numbers: Tensor, steps: Tensor | None, size: int) -> Tensor:
    """float32 [rows, groups]: numbers times their steps."""
    if steps is None:
        return numbers.float()
    return numbers.float() * steps.float().repeat_interleave(SUPER_BLOCK // size, 1)
