"""GPTQ: quantize one weight matrix so that its *output* changes least on the inputs that were seen.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv 2210.17323), algorithm 1: columns are rounded one by one, and each one's error is made good
by the columns still to come, weighted by the Cholesky factor of the inverse Hessian X^T X.

Works on `in`-first matrices, so that a column of the paper is a row in memory.
Knows nothing of models, files or packing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.quantize.packing import SUPPORTED_BITS, CodedMatrix, Matrix
from model.quantize.stored_matrix import Rows, StoredMatrix

BLOCK = 128
"""Columns whose errors are collected before they are passed on to the rest: the paper's B."""

SMALLEST_SCALE = 2.0 ** -20
"""Below this a float16 scale keeps fewer than four bits of its own."""

SEARCH_STEPS = 24

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class GridOptions:
    """What codes a weight may have. `group_size` inputs share one scale; -1 is the whole column."""

    bits: int = 4
    group_size: int = 64
    symmetric: bool = True
    search: bool = True       # try smaller ranges than the largest weight's, keep the one of least error
    act_order: bool = False   # largest inputs first; groups then follow that order (g_idx)
    damping: float = 0.01     # share of the Hessian's mean diagonal that is added to it

    def __post_init__(self) -> None:
        if self.bits not in SUPPORTED_BITS:
            raise ValueError(f"bits is {self.bits}; expected one of {', '.join(map(str, SUPPORTED_BITS))}")
        if self.group_size != -1 and not 8 <= self.group_size <= 1 << 16:
            raise ValueError(f"group_size is {self.group_size}; expected 8 to 65536, or -1 for whole columns")
        if not 0 < self.damping < 1:
            raise ValueError(f"damping is {self.damping}; expected a share between 0 and 1")

    def with_bits(self, bits: int) -> GridOptions:
        return replace(self, bits=bits)


def quantize_gptq(weight: Tensor, hessian: Tensor, options: GridOptions) -> CodedMatrix:
    """Quantize with error propagation.

    weight   float32 [out, in]
    hessian  float32 [in, in], the sum or mean of x x^T over the inputs x that were seen
    """
    return Inputs(hessian, options).quantize(weight, options.bits)


class Inputs:
    """What is known of the inputs of some matrices: in which order they are visited, and the factor."""

    def __init__(self, hessian: Tensor, options: GridOptions, file: Path | None = None) -> None:
        """
        hessian  float32 [in, in]
        file     where it goes, so that its memory becomes the factor's: of 14,336 inputs each takes 0.8 GB
        """
        self.options = options
        self.order, self.groups = visiting_order(hessian.diagonal(), options)
        self.hessian: Rows = hessian if file is None else StoredMatrix(file, hessian)
        memory = torch.empty_like(hessian) if file is None else hessian
        self.factor = inverse_factor(self.hessian, self.order, options.damping, memory)

    def quantize(self, weight: Tensor, bits: int) -> CodedMatrix:
        """weight float32 [out, in]"""
        options, order = self.options.with_bits(bits), self.order
        work = weight.t().float()[order]  # [in, out], changed as errors are passed on
        result = _Result(weight.shape, options)
        for group, first, last in self.groups:
            importance = self.factor.diagonal()[first:last].square().reciprocal()
            grid = find_grid(work[first:last], importance, options)
            result.begin_group(group, order[first:last], grid)
            for begin in range(first, last, BLOCK):
                rows = slice(begin, min(begin + BLOCK, last))
                result.codes[order[rows]] = _quantize_block(work, self.factor, rows, grid, bits)
        return result.matrix()

    def solve(self, products: Tensor) -> Tensor:
        """The W that comes nearest to W H = products^T, damped, in their memory.

        float32 [in, out] -> [out, in]
        """
        for outputs in row_blocks(products.shape[1]):
            own = products[:, outputs]
            own[self.order] = self.factor.t() @ (self.factor @ own[self.order])
        return products.t()


def visiting_order(importance: Tensor, options: GridOptions) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Which column is rounded when: important ones first, while most others can still make good their errors.

    With act-order the groups of the file follow this order. Without, they are runs of columns and stay so:
    the groups are visited one after the other by importance, and the columns of each likewise.
    returns  the columns in their order, int64 [in]; and (group, first, last + 1 in that order) of each group
    """
    bounds = group_bounds(len(importance), options.group_size)
    if options.act_order:
        order = torch.argsort(importance, descending=True, stable=True)
        return order, [(group, first, last) for group, (first, last) in enumerate(bounds)]
    ranked = sorted(range(len(bounds)), key=lambda group: -float(importance[slice(*bounds[group])].max()))
    parts, groups, at = [], [], 0
    for group in ranked:
        first, last = bounds[group]
        parts.append(first + torch.argsort(importance[first:last], descending=True, stable=True))
        groups.append((group, at, at + last - first))
        at += last - first
    return torch.cat(parts), groups


class _Result:
    """Codes and grids as they are found, group by group, in the places that the file has for them."""

    def __init__(self, shape: torch.Size, options: GridOptions) -> None:
        out_features, in_features = shape
        groups = len(group_bounds(in_features, options.group_size))
        self.bits = options.bits
        self.codes = torch.empty(in_features, out_features, dtype=torch.uint8)
        self.scales = torch.empty(groups, out_features, dtype=torch.float16)
        self.zeros = torch.empty(groups, out_features, dtype=torch.uint8)
        self.g_idx = torch.empty(in_features, dtype=torch.int32)

    def begin_group(self, group: int, columns: Tensor | slice, grid: tuple[Tensor, Tensor]) -> None:
        self.scales[group], self.zeros[group] = grid[0].half(), grid[1].to(torch.uint8)
        self.g_idx[columns] = group

    def matrix(self) -> CodedMatrix:
        return CodedMatrix(self.bits, self.codes, self.scales, self.zeros, self.g_idx)


def _quantize_block(work: Tensor, factor: Tensor, rows: slice, grid: tuple[Tensor, Tensor],
                    bits: int) -> Tensor:
    """Round the columns `rows` one after the other, then pass their errors on to everything behind them.

    returns  their codes, uint8 [rows, out]
    """
    scale, zero = grid
    block, local = work[rows], factor[rows, rows]
    codes, errors = torch.empty(block.shape, dtype=torch.uint8), torch.empty_like(block)
    diagonal = local.diagonal().tolist()
    for i, pivot in enumerate(diagonal):
        code = round_to_grid(block[i], scale, zero, bits)
        codes[i] = code
        errors[i] = (block[i] - (code - zero) * scale) / pivot
        if i + 1 < len(diagonal):
            block[i + 1:].addr_(local[i, i + 1:], errors[i], alpha=-1.0)
    if rows.stop < len(work):
        work[rows.stop:].addmm_(factor[rows, rows.stop:].t(), errors, alpha=-1.0)
    return codes


def quantize_round(weight: Tensor, options: GridOptions) -> CodedMatrix:
    """Round every weight to the nearest code, as if all inputs mattered alike. weight float32 [out, in]"""
    work = weight.t().float()
    result = _Result(weight.shape, options)
    for group, (first, last) in enumerate(group_bounds(len(work), options.group_size)):
        rows = work[first:last]
        grid = find_grid(rows, torch.ones(len(rows)), options)
        result.begin_group(group, slice(first, last), grid)
        result.codes[first:last] = round_to_grid(rows, *grid, options.bits).to(torch.uint8)
    return result.matrix()


def group_bounds(in_features: int, group_size: int) -> list[tuple[int, int]]:
    """First and last + 1 of each group; the last one may be ragged."""
    step = in_features if group_size == -1 else group_size
    return [(first, min(first + step, in_features)) for first in range(0, in_features, step)]


def inverse_factor(hessian: Rows, order: Tensor, damping: float, memory: Tensor | None = None) -> Tensor:
    """The upper triangular U of the damped inverse, rows and columns in `order`: inverse(H) = U^T U.

    U is the inverse of the R in H = R R^T, which is Cholesky's factor with rows and columns in reverse. So
    nothing is squared on the way and float32 is enough, and there is no other matrix than H and U, which is
    in `memory` ([in, in], contiguous) if that is given.
    An input that never was anything but zero gets a diagonal of one: it is rounded, and moves nothing.
    More damping is tried when rounding errors have made the matrix indefinite.
    """
    diagonal = hessian.diagonal()[order].flip(0)
    diagonal[diagonal <= 0] = 1.0
    step = damping * float(diagonal.double().mean())
    failed = torch.empty((), dtype=torch.int32)
    backwards = order.flip(0)
    places = torch.argsort(backwards)
    memory = torch.empty(len(order), len(order)) if memory is None else memory
    work = memory.t()  # columns one after another, as LAPACK wants them: else torch makes a copy
    for _ in range(8):
        diagonal += step
        for rows in row_blocks(len(memory)):
            memory[places[rows]] = hessian[rows][:, backwards]
        memory.diagonal().copy_(diagonal)
        torch.linalg.cholesky_ex(work, out=(work, failed))
        if not failed and bool(torch.isfinite(work.diagonal()).all()):
            return _inverted(_reversed(work))
        step *= 4
    raise ValueError(f"the Hessian of {len(hessian)} inputs has no Cholesky factor even with damping; "
                     "are there NaNs or infinities in the weights or in the calibration's activations?")


def _reversed(matrix: Tensor) -> Tensor:
    """Rows and columns from the last to the first, in place."""
    size = len(matrix)
    for first in range(0, size // 2, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, size // 2)
        above, below = matrix[first:last], matrix[size - last:size - first]
        kept = above.flip(0, 1)
        above.copy_(below.flip(0, 1))
        below.copy_(kept)
    if size % 2:
        matrix[size // 2] = matrix[size // 2].flip(0)
    return matrix


def _inverted(upper: Tensor) -> Tensor:
    """The inverse of an upper triangular matrix, in its place, a block of columns at a time."""
    for first in range(0, len(upper), _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, len(upper))
        own = upper[first:last, first:last]
        own.copy_(torch.linalg.solve_triangular(own, torch.eye(last - first), upper=True))
        upper[:first, first:last] = -(upper[:first, :first] @ upper[:first, first:last]) @ own
    return upper


def find_grid(rows: Tensor, importance: Tensor, options: GridOptions) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each output for one group.

    rows        float32 [group, out]
    importance  float32 [group], the price of a squared error at each input
    returns     float32 [out] each; scales are exact float16 values, zeros whole numbers 1 .. 2^bits - 1
    """
    low, high = rows.amin(0).clamp(max=0), rows.amax(0).clamp(min=0)
    best = _grid_of_range(low, high, options)
    if not options.search:
        return best
    best_error = _grid_error(rows, importance, best, options.bits)
    for step in range(SEARCH_STEPS):
        share = 1.08 - 0.6 * step / SEARCH_STEPS  # above 1: a symmetric grid has no +8
        grid = _grid_of_range(low * share, high * share, options)
        error = _grid_error(rows, importance, grid, options.bits)
        better = error < best_error
        best = (torch.where(better, grid[0], best[0]), torch.where(better, grid[1], best[1]))
        best_error = torch.minimum(error, best_error)
    return best


def _grid_of_range(low: Tensor, high: Tensor, options: GridOptions) -> tuple[Tensor, Tensor]:
    top = (1 << options.bits) - 1
    if options.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scale = ((high - low) / top).clamp(min=SMALLEST_SCALE).half().float()
    if not bool(torch.isfinite(scale).all()):
        raise ValueError(f"weights from {float(low.min()):.3g} to {float(high.max()):.3g} need a scale "
                         "beyond float16's 65504, or are not finite; GPTQ cannot hold them")
    if options.symmetric:
        zero = torch.full_like(scale, float(1 << (options.bits - 1)))
    else:
        # 0 would be stored as -1, which readers take for 0, for 16 or for a borrow from the neighbour.
        zero = torch.round(-low / scale).clamp(1, top)
    return scale, zero


def _grid_error(rows: Tensor, importance: Tensor, grid: tuple[Tensor, Tensor], bits: int) -> Tensor:
    scale, zero = grid
    code = round_to_grid(rows, scale, zero, bits)
    return importance @ code.sub_(zero).mul_(scale).sub_(rows).square_()


def round_to_grid(rows: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest codes, as float32 whole numbers of the shape of `rows`."""
    return torch.div(rows, scale).round_().add_(zero).clamp_(0, (1 << bits) - 1)


def output_error(weight: Matrix, quantized: Matrix, hessian: Rows) -> float:
    """Relative error of the outputs: |X (W - Q)^T| / |X W^T|. Both weights [out, in]."""
    return math.sqrt(energy(weight, hessian, quantized) / max(energy(weight, hessian), 1e-30))


def energy(matrix: Matrix, hessian: Rows, other: Matrix | None = None) -> float:
    """|X M^T|^2, or |X (M - other)^T|^2, float32 [out, in] and [in, in]; some rows of each at a time."""
    total = 0.0
    for rows in row_blocks(len(matrix)):
        part = matrix[rows].float() if other is None else matrix[rows] - other[rows]
        for inputs in row_blocks(len(hessian)):
            total += float(((part[:, inputs] @ hessian[inputs]) * part).sum(dtype=torch.float64))
    return max(0.0, total)


def row_blocks(rows: int) -> list[slice]:
    """Of a matrix, so that what is made of one block takes little memory."""
    return [slice(first, first + _ROWS_AT_ONCE) for first in range(0, rows, _ROWS_AT_ONCE)]
