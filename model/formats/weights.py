"""What every checkpoint format is turned into: a dense or a quantized matrix, outputs first.

Tensors lie on the device that the reader was told. Knows shapes and how matrices of one input are joined;
nothing of files or kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from model.kernels.float8 import OUTPUTS, Float8
from model.kernels.groups import GroupRows, Groups, stacked

CPU = torch.device("cpu")
_PADDED_GROUP = 32     # columns that a smaller group takes where it is widened
_BYTES_PER_GROUP = 4   # scale and zero point there


@dataclass(frozen=True)
class DenseMatrix:
    """weight float16, bfloat16 or float32 [n, k]; bias float32 [n] or None."""

    weight: Tensor
    bias: Tensor | None

    @property
    def n(self) -> int:
        return self.weight.shape[0]


@dataclass(frozen=True)
class QuantizedMatrix:
    """weight[n][k'] = (codes - zeros[g]) * scales[g], g = k' // group_size; k' multiplies x[perm[k']]."""

    codes: Tensor        # uint8 [n, k], columns sorted by group
    scales: Tensor       # float16 [n, groups]
    zeros: Tensor        # uint8 [n, groups]
    group_size: int
    bits: int            # 4 | 8: how the codes are kept (2- and 3-bit ones as 4)
    perm: Tensor | None  # int32 [k]
    bias: Tensor | None  # float32 [n]

    @property
    def n(self) -> int:
        return self.codes.shape[0]


@dataclass(frozen=True)
class GroupMatrix:
    """A weight in small groups, read as it is packed; bias float32 [n] or None."""

    rows: GroupRows
    bias: Tensor | None

    @property
    def n(self) -> int:
        return self.rows.n

    @property
    def groups(self) -> Groups:
        """All of it."""
        return self.rows.read(0, self.n)

    @property
    def kind(self) -> str:
        """As the kernels name it."""
        return self.rows.first.kind

    @property
    def info(self) -> MatrixInfo:
        groups, k = self.rows.first, self.rows.k
        bits, count = groups.widened_bits, k // groups.size
        if bits == 16:
            return MatrixInfo(groups.kind, self.n * self.row_bytes, MatrixInfo("f16", self.n * k * 2))
        padded = count * max(_PADDED_GROUP, groups.size)
        widened = MatrixInfo(f"q{bits}", self.n * (padded * bits // 8 + count * _BYTES_PER_GROUP))
        return MatrixInfo(groups.kind, self.n * self.row_bytes, widened)

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory, once it is packed."""
        groups = self.rows.first
        return self.rows.k * groups.bits // 8 + sum(part.nbytes for part in groups.numbers)


@dataclass(frozen=True)
class Float8Matrix:
    """A weight in floats of 8 bits; bias float32 [n] or None."""

    float8: Float8
    bias: Tensor | None

    @property
    def n(self) -> int:
        return len(self.float8.values)


@dataclass(frozen=True)
class RoundedMatrix:
    """Dense weights [., k], one above the other, that will be codes of `bits`; bias float32 [n] or None."""

    weights: tuple[Tensor, ...]
    bits: int
    bias: Tensor | None

    @property
    def n(self) -> int:
        return sum(len(weight) for weight in self.weights)

    def rows(self, round_groups: Callable[[Tensor, int], Groups]) -> GroupRows:
        """round_groups(float32 [m, k], bits): some rows of it."""
        def rows_of(weight: Tensor) -> GroupRows:
            first = round_groups(weight[:1].float(), self.bits)
            return GroupRows(len(weight), first,
                             lambda first, last: round_groups(weight[first:last].float(), self.bits))

        return stacked([rows_of(weight) for weight in self.weights])


Matrix = DenseMatrix | QuantizedMatrix | GroupMatrix | Float8Matrix | RoundedMatrix


@dataclass(frozen=True)
class MatrixInfo:
    """What a matrix will be, known from headers alone."""

    kind: str    # q4 | q8 | f8 | f16 | bf16 | f32, or of a GroupMatrix
    nbytes: int  # in memory, once it is packed
    widened: MatrixInfo | None = None  # on a device without kernels for small groups


class WeightReader(Protocol):
    """A checkpoint of any format, by the names in its files; which those are a family's Names tell."""

    def describe(self) -> str:
        """Like '4-bit GPTQ g64' or 'bfloat16'."""

    @property
    def stored_bytes(self) -> int:
        """Of all tensors in the files; 0 if there are none."""

    def has_tensor(self, name: str) -> bool:
        """A tensor of exactly this name is there."""

    def is_quantized(self, name: str) -> bool:
        """Module `name` is there in quantized form."""

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        """Check that module `name` is there with these sizes. Raises ModelLoadError."""

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        """Read module `name` (a Linear's weight and bias); its codes are unpacked on `device`."""

    def vector(self, name: str, n: int, device: torch.device = CPU) -> Tensor:
        """float32 [n]."""

    def numbers_of(self, name: str, count: int, device: torch.device = CPU) -> Tensor:
        """float32 [count]: a small tensor of so many numbers, whatever its shape."""

    def filters(self, name: str, channels: int, taps: int, device: torch.device = CPU) -> Tensor:
        """float32 [channels, taps]: a convolution's weight, as stored or with axes of 1 around."""

    def table_info(self, name: str, rows: int, columns: int) -> MatrixInfo:
        """Check that table `name` is there with these sizes. Raises ModelLoadError."""

    def table(self, name: str, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
        """float16, bfloat16 or float32 [rows, columns], as stored."""


HEAD_GROUP_SIZE = 64
_ROWS_AT_A_TIME = 4096


def rounded_to_8_bits(matrix: DenseMatrix) -> QuantizedMatrix:
    """A dense matrix in 8-bit codes around 128: scale = max |w| / 127 of HEAD_GROUP_SIZE columns."""
    n, k = matrix.weight.shape
    device = matrix.weight.device
    codes = torch.empty(n, k, dtype=torch.uint8, device=device)
    scales = torch.empty(n, -(-k // HEAD_GROUP_SIZE), dtype=torch.float16, device=device)
    for start in range(0, n, _ROWS_AT_A_TIME):  # float32 copies of a whole head would take gigabytes
        rows = slice(start, start + _ROWS_AT_A_TIME)
        weight = torch.nn.functional.pad(matrix.weight[rows].float(), (0, -k % HEAD_GROUP_SIZE))
        groups = weight.view(len(weight), -1, HEAD_GROUP_SIZE)
        scales[rows] = groups.abs().amax(-1) / 127
        steps = scales[rows].float().where(scales[rows] > 0, 1.0).unsqueeze(-1)
        codes[rows] = ((groups / steps).round().clamp(-128, 127) + 128).view(len(weight), -1)[:, :k]
    return QuantizedMatrix(codes, scales, torch.full_like(scales, 128, dtype=torch.uint8),
                           min(HEAD_GROUP_SIZE, k), 8, None, matrix.bias)


def select_rows(matrix: Matrix, rows: Sequence[int]) -> Matrix:
    """These outputs alone, in this order."""
    index = torch.as_tensor(rows)

    def of(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[index.to(part.device)]

    if isinstance(matrix, DenseMatrix):
        return replace(matrix, weight=of(matrix.weight), bias=of(matrix.bias))
    if isinstance(matrix, QuantizedMatrix):
        return replace(matrix, codes=of(matrix.codes), scales=of(matrix.scales), zeros=of(matrix.zeros),
                       bias=of(matrix.bias))
    if isinstance(matrix, Float8Matrix):
        float8, blocks = matrix.float8, index.view(-1, OUTPUTS) if len(rows) % OUTPUTS == 0 else None
        if float8.scales is None:
            return Float8Matrix(replace(float8, values=of(float8.values), factors=of(float8.factors)),
                                of(matrix.bias))
        if blocks is None or (blocks != blocks[:, :1] + torch.arange(OUTPUTS)).any() \
                or (blocks[:, 0] % OUTPUTS).any():  # blocks of outputs that share scales come apart
            return DenseMatrix(of(float8.dequantize()), of(matrix.bias))
        shared = float8.scales[(blocks[:, 0] // OUTPUTS).to(float8.scales.device)]
        return Float8Matrix(replace(float8, values=of(float8.values), factors=of(float8.factors),
                                    scales=shared), of(matrix.bias))
    if isinstance(matrix, RoundedMatrix):
        return replace(matrix, weights=(of(torch.cat(matrix.weights)),), bias=of(matrix.bias))
    return GroupMatrix(GroupRows.of(matrix.groups.chosen(index)), of(matrix.bias))


def join(matrices: list[Matrix]) -> list[Matrix]:
    """Stack neighbours along the outputs wherever one kernel call can do them; the order stays."""
    joined = [matrices[0]]
    for matrix in matrices[1:]:
        if _fits(joined[-1], matrix):
            joined[-1] = _stacked(joined[-1], matrix)
        else:
            joined.append(matrix)
    return joined


def _fits(a: Matrix, b: Matrix) -> bool:
    if isinstance(a, DenseMatrix) and isinstance(b, DenseMatrix):
        return a.weight.dtype == b.weight.dtype
    if isinstance(a, QuantizedMatrix) and isinstance(b, QuantizedMatrix):
        same_order = a.perm is b.perm or (a.perm is not None and b.perm is not None
                                          and torch.equal(a.perm, b.perm))
        return same_order and (a.bits, a.group_size) == (b.bits, b.group_size)
    if isinstance(a, GroupMatrix) and isinstance(b, GroupMatrix):
        return a.rows.first.form == b.rows.first.form
    if isinstance(a, RoundedMatrix) and isinstance(b, RoundedMatrix):
        return a.bits == b.bits
    if isinstance(a, Float8Matrix) and isinstance(b, Float8Matrix):
        is_whole = a.float8.scales is None or a.n % OUTPUTS == 0
        return is_whole and a.float8.size == b.float8.size
    return False


def _stacked(a: Matrix, b: Matrix) -> Matrix:
    bias = _stacked_bias(a, b)
    if isinstance(a, DenseMatrix) and isinstance(b, DenseMatrix):
        return DenseMatrix(torch.cat((a.weight, b.weight)), bias)
    if isinstance(a, GroupMatrix) and isinstance(b, GroupMatrix):
        return GroupMatrix(stacked((a.rows, b.rows)), bias)
    if isinstance(a, RoundedMatrix) and isinstance(b, RoundedMatrix):
        return RoundedMatrix((*a.weights, *b.weights), a.bits, bias)
    if isinstance(a, Float8Matrix) and isinstance(b, Float8Matrix):
        return Float8Matrix(_stacked_float8(a.float8, b.float8), bias)
    assert isinstance(a, QuantizedMatrix) and isinstance(b, QuantizedMatrix)
    return QuantizedMatrix(torch.cat((a.codes, b.codes)), torch.cat((a.scales, b.scales)),
                           torch.cat((a.zeros, b.zeros)), a.group_size, a.bits, a.perm, bias)


def _stacked_float8(a: Float8, b: Float8) -> Float8:
    scales = None
    if a.scales is not None and b.scales is not None:
        scales = torch.cat((a.scales, b.scales))
    return Float8(torch.cat((a.values, b.values)), torch.cat((a.factors, b.factors)), scales, a.size)


def _stacked_bias(a: Matrix, b: Matrix) -> Tensor | None:
    there = a.bias if a.bias is not None else b.bias
    if there is None:
        return None
    return torch.cat([there.new_zeros(m.n) if m.bias is None else m.bias for m in (a, b)])
