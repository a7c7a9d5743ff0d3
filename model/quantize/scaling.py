"""Scales of inputs that make a matrix easier to round, taken back where that is exact.

Lin et al., "AWQ: Activation-aware Weight Quantization" (arXiv 2306.00978): the columns of W [out, in] that
large inputs meet are multiplied by s > 1, so that rounding takes a smaller share of them, and the inputs are
divided by it where they are made: in the norm before the product, in the rows that make values (of o), in the
rows of up (of down). Which s is found by trying: of each candidate the error of the outputs is measured.
Inputs that are made otherwise have no scales: without a norm before, behind an activation alone, with a norm
for both branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.names import Names
from model.families.spec import Attention, Layer
from model.formats.plain import PlainReader
from model.network.norm_weights import NormWeights
from model.quantize.decoder import Branch, Linears
from model.quantize.gptq import GridOptions, energy, quantize_round, row_blocks
from model.quantize.packing import Matrix

STEPS = 10
"""Shares of the inputs' sizes that are tried."""

LARGEST = 64.0
"""A channel is made at most so many times larger, or smaller, than it was."""


@dataclass(frozen=True)
class ScaledMatrix:
    """A weight times factors of its outputs and of its inputs, which is never there as a whole."""

    weight: Tensor   # [out, in] as the file has it
    outputs: Tensor  # float32 [out]
    inputs: Tensor   # float32 [in]

    @classmethod
    def of(cls, matrix: Matrix, outputs: Tensor | float = 1.0, inputs: Tensor | float = 1.0) -> ScaledMatrix:
        """matrix: a Tensor, or one that is scaled already"""
        if isinstance(matrix, ScaledMatrix):
            return cls(matrix.weight, matrix.outputs * outputs, matrix.inputs * inputs)
        assert isinstance(matrix, Tensor)
        n, k = matrix.shape
        return cls(matrix, torch.ones(n) * outputs, torch.ones(k) * inputs)

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, outputs: slice) -> Tensor:
        """float32 [outputs, in]"""
        return self.weight[outputs].float() * self.outputs[outputs, None] * self.inputs


@dataclass(frozen=True)
class Fold:
    """Where the inputs of a product can be divided by scales.

    num_scales  how many of them there are
    expand      scales [num_scales] -> those of the inputs [in]
    apply       divide by these scales; returns those that came out, and tensors of the file that changed
    """

    num_scales: int
    expand: Callable[[Tensor], Tensor]
    apply: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


def fold_before(branch: Branch, layer: Layer, names: Names, reader: PlainReader) -> Fold | None:
    """Of what `first` reads: into the norm before it."""
    norm = branch.before
    if norm is None or norm.weight is None or not branch.norm.has_weight or layer.parallel == "one norm":
        return None
    weight = norm.weight

    def apply(scales: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        name = branch.before_name + ".weight"
        stored = (weight / scales - names.norm_offset).to(reader.folder.info(name).dtype)
        found = stored.float() + names.norm_offset
        scales = torch.where((weight == 0) | (found == 0), 1.0, weight / found)  # by what was stored: exact
        bias, changed = norm.bias, {name: stored}
        if bias is not None:
            name = branch.before_name + ".bias"
            changed[name] = (bias / scales).to(reader.folder.info(name).dtype)
            bias = changed[name].float()
        branch.before = NormWeights(torch.where(found == 0, weight, found), bias)
        return scales, changed

    return Fold(len(weight), lambda scales: scales, apply)


def fold_between(branch: Branch, reader: PlainReader) -> Fold | None:
    """Of what `last` reads: into the rows of `first` that are its factors."""
    part = branch.part
    if isinstance(part, Attention):
        if part.value_norm is not None or part.keys_as_values:
            return None
        first, count = part.query_size + part.key_size, part.key_size
    else:
        if not part.gated or part.activation == "clamped":
            return None
        first, count = part.intermediate_size, part.intermediate_size

    def expand(scales: Tensor) -> Tensor:
        """Query heads that share values share their scales."""
        if not isinstance(part, Attention):
            return scales
        return scales.view(part.num_kv_heads, -1).repeat_interleave(part.num_heads // part.num_kv_heads,
                                                                    dim=0).flatten()

    def apply(scales: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        factors = torch.ones(branch.first.group.n)
        factors[first:first + count] = 1 / scales
        changed = scale_rows(branch.first, factors)
        return scales, {name: bias.to(reader.folder.info(name).dtype) for name, bias in changed.items()}

    return Fold(count, expand, apply)


def scale_rows(linears: Linears, factors: Tensor) -> dict[str, Tensor]:
    """Multiply the outputs by factors [n], which are in the Spec's order. Returns the biases that changed."""
    group = linears.group
    of_modules = {name: torch.ones(size) for name, size in group.modules.items()}
    if group.pieces:
        parts = factors.split([len(piece.rows) for piece in group.pieces])
        for piece, part in zip(group.pieces, parts, strict=True):
            of_modules[piece.module][list(piece.rows)] = part
    else:
        of_modules = dict(zip(group.modules, factors.split(list(group.modules.values())), strict=True))
    changed = {}
    for name, own in of_modules.items():
        if bool((own != 1).any()):
            linears.weights[name] = ScaledMatrix.of(linears.weights[name], outputs=own)
            if name in linears.biases:
                linears.biases[name] = changed[name + ".bias"] = linears.biases[name] * own
    return changed


def find_scales(linears: Linears, fold: Fold, sizes: Tensor, hessian: Tensor, options: GridOptions,
                bits: Mapping[str, int]) -> Tensor:
    """The scales of least error, float32 [fold.num_scales]; ones, if nothing is better.

    sizes    float32 [in], the mean magnitude of each input
    hessian  float32 [in, in], the mean of x x^T
    bits     of each module
    """
    best, best_error = torch.ones(fold.num_scales), None
    whole = {name: max(energy(weight, hessian), 1e-30) for name, weight in linears.weights.items()}
    for scales in candidates(linears, fold, sizes):
        error = sum(_lost(weight, fold.expand(scales), hessian, options.with_bits(bits[name])) / whole[name]
                    for name, weight in linears.weights.items())
        if best_error is None or error < best_error:
            best, best_error = scales, error
    return best


def candidates(linears: Linears, fold: Fold, sizes: Tensor) -> Iterator[Tensor]:
    """Ones; then powers of the inputs' sizes, alone and over what is left of the weights' own."""
    yield torch.ones(fold.num_scales)
    weights = torch.stack([_mean_magnitudes(weight) for weight in linears.weights.values()]).mean(0)
    of_inputs, of_weights = (_shared(fold, numbers) for numbers in (sizes, weights))
    for step in range(1, STEPS + 1):
        share = step / STEPS
        for scales in (of_inputs ** share, of_inputs ** share / of_weights ** (1 - share)):
            centred = scales / (scales.max() * scales.min()).sqrt()
            yield centred.clamp(1 / LARGEST, LARGEST)


def _shared(fold: Fold, numbers: Tensor) -> Tensor:
    """The mean of the inputs that share a scale, above 0."""
    places = fold.expand(torch.arange(fold.num_scales, dtype=torch.float32)).long()
    total = torch.zeros(fold.num_scales).index_add_(0, places, numbers)
    count = torch.zeros(fold.num_scales).index_add_(0, places, torch.ones_like(numbers))
    return (total / count).clamp(min=1e-4)


def _mean_magnitudes(weight: Matrix) -> Tensor:
    """float32 [in]"""
    parts = [weight[rows].float().abs().sum(0) for rows in row_blocks(len(weight))]
    return torch.stack(parts).sum(0) / len(weight)


def _lost(weight: Matrix, scales: Tensor, hessian: Tensor, options: GridOptions) -> float:
    """|X (W - Q)^T|^2 of the scaled weight's nearest codes, some outputs at a time."""
    total = 0.0
    for rows in row_blocks(len(weight)):
        own = weight[rows].float()
        total += energy(own - quantize_round(own * scales, options).dequantize().div_(scales), hessian)
    return total
