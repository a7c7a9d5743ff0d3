"""Quantize a model branch by branch, each on the inputs that what was quantized before it produces.

A branch has two inputs, each shared by the linears behind it: of q, k and v and of o, of gate and up and of
down. As in the paper's sequential mode an input is captured after the linears before it, also those of its
own branch, hold their quantized weights. The float model runs alongside: before a matrix is quantized it is
corrected a little towards what the float model has at the same place (Li et al., "GPTAQ", arXiv 2504.02692,
is the same idea). At any time one branch's weights and a batch of the text are in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from model.machine import return_freed_memory
from model.model_config import ModelConfig
from model.network.modules import Group, layer_modules
from model.quantize.calibration import Batch
from model.quantize.decoder import Branch, Linears, Weights, layer_scale, load_branches
from model.quantize.gptq import GridOptions, Inputs, output_error, quantize_round, row_blocks
from model.quantize.packing import CodedMatrix, check_packable
from model.quantize.scaling import Fold, ScaledMatrix, find_scales, fold_before, fold_between
from model.quantize.source import Source
from model.quantize.states import States
from model.quantize.sums import Sums

QUANTIZED, ORIGINAL = "quantized", "original"
"""The two models whose hidden states are followed."""

Tick = Callable[[], None]
"""Called after each of a layer's two branches."""


@dataclass
class QuantizedLayer:
    """The result for one layer: the linears by their full names, and how much their outputs changed."""

    index: int
    matrices: dict[str, CodedMatrix] = field(default_factory=dict)
    changed: dict[str, Tensor] = field(default_factory=dict)  # other tensors: scales were folded in
    errors: dict[str, float] = field(default_factory=dict)  # relative error of the outputs, by linear
    seconds: float = 0.0


def linear_groups(config: ModelConfig, index: int) -> list[Group]:
    """The linears of a layer that are quantized."""
    return [group for group in layer_modules(config.spec, config.names, index) if not group.is_exact]


def check_sizes(config: ModelConfig, bits: int) -> None:
    """Raise ValueError before any work if a linear cannot be packed."""
    for index in range(config.spec.num_layers):
        for group in linear_groups(config, index):
            for name, n in group.modules.items():
                try:
                    check_packable(group.k, n, bits)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error


def quantize_layers_round(source: Source, options: GridOptions, first: int = 0) -> Iterator[QuantizedLayer]:
    """Every weight becomes the nearest code; needs no text. From layer `first` on."""
    for index in range(first, source.config.spec.num_layers):
        started = time.monotonic()
        result = QuantizedLayer(index)
        for group in linear_groups(source.config, index):
            for name, n in group.modules.items():
                weight = source.reader.matrix(name, n, group.k).weight
                result.matrices[name] = quantize_round(weight, options)
        result.seconds = time.monotonic() - started
        yield result


@dataclass(frozen=True)
class Way:
    """How codes are found on the calibration text."""

    makes_good: bool = True   # GPTQ: each column's error by the columns to come; else the nearest codes
    correction: float = 0.5   # how far a matrix is led towards the float model's outputs before, 0 to 1
    scales: bool = False      # AWQ: inputs are scaled, where the scales can be folded in


class Walk:
    """The calibration text's way through the layers, quantized as it goes."""

    def __init__(self, source: Source, batches: list[Batch], folder: Path, options: GridOptions, way: Way,
                 bits: Mapping[str, int] | None = None) -> None:
        """
        batches     the calibration text
        folder      where hidden states lie
        bits        of linears that have others than `options` says
        """
        self.source, self.batches, self.folder = source, batches, folder
        self.options, self.way, self.bits = options, way, bits or {}
        self._length = max(batch.token_ids.shape[1] for batch in batches)

    def layers(self, first: int = 0, tick: Tick = lambda: None) -> Iterator[QuantizedLayer]:
        """Each layer as it is done, from `first` on, before which another walk has been here."""
        if first == 0:
            self._at("0", QUANTIZED).write(self.source.embedded(batch.token_ids) for batch in self.batches)
            if self.way.correction:
                self._at("0", ORIGINAL).write(self._at("0", QUANTIZED).read(i)
                                              for i in range(len(self.batches)))
        for index in range(first, self.source.config.spec.num_layers):
            started = time.monotonic()
            result = self._layer(index, tick)
            result.seconds = time.monotonic() - started
            yield result
            del result  # the next layer's is made without this one beside it
            for path in self.folder.iterdir():  # only now somebody else may have kept the result
                if path.name.partition(".")[0] != str(index + 1):
                    path.unlink()

    def _at(self, place: str, kind: str) -> States:
        return States(self.folder / f"{place}.{kind}", self.batches, self.source.config.spec.hidden_size)

    def _streams(self, place: str) -> dict[str, States]:
        kinds = (QUANTIZED, ORIGINAL) if self.way.correction else (QUANTIZED,)
        return {kind: self._at(place, kind) for kind in kinds}

    def _layer(self, index: int, tick: Tick) -> QuantizedLayer:
        config, result = self.source.config, QuantizedLayer(index)
        start = self._streams(str(index))
        branches = load_branches(self.source.reader, config, index, self._length)
        now, scale = start, layer_scale(self.source.reader, config, index)
        for place, factor in ((f"{index}-mlp", 1.0), (str(index + 1), scale)):
            branch = next(branches)
            reads = start if config.spec.layers[index].parallel else now
            step = _BranchPass(self, branch, reads, now, result)
            if self.way.scales:
                step.scale(branch.first, fold_before(branch, config.spec.layers[index], config.names,
                                                     self.source.reader))
                step.scale(branch.last, fold_between(branch, self.source.reader))
            step.quantize(branch.first)
            step.quantize(branch.last)
            now = step.finish(self._streams(place), factor)
            del step, branch  # before the next one's weights are read
            tick()
        return result


class _BranchPass:
    """One branch's way through the calibration text.

    reads  hidden states that the branch reads; adds_to: those that what it gives is added to
    """

    def __init__(self, walk: Walk, branch: Branch, reads: dict[str, States], adds_to: dict[str, States],
                 result: QuantizedLayer) -> None:
        self.walk, self.branch = walk, branch
        self.reads, self.adds_to, self.result = reads, adds_to, result

    def _weights(self, kind: str) -> Weights:
        """Those of the float model, or those that have been found, which stay codes."""
        original = {**self.branch.first.weights, **self.branch.last.weights}
        return original if kind == ORIGINAL else self.result.matrices

    def scale(self, linears: Linears, fold: Fold | None) -> None:
        """Have the inputs divided by scales and the weights multiplied, where that helps."""
        if fold is None:
            return
        sums, options = self._sums(linears, ORIGINAL, has_missing=False), self.walk.options
        bits = {name: self.walk.bits.get(name, options.bits) for name in linears.weights}
        scales, changed = fold.apply(find_scales(linears, fold, sums.sizes, sums.hessian, options, bits))
        for name, weight in linears.weights.items():
            linears.weights[name] = ScaledMatrix.of(weight, inputs=fold.expand(scales))
        self.result.changed |= changed

    def quantize(self, linears: Linears) -> None:
        options, way = self.walk.options, self.walk.way
        sums = self._sums(linears, QUANTIZED, has_missing=bool(way.correction))
        inputs = Inputs(sums.hessian, options, self.walk.folder / "inputs") if way.makes_good else None
        for name, weight in linears.weights.items():
            bits = self.walk.bits.get(name, options.bits)
            if inputs is None:
                matrix = quantize_round(weight[:].float(), options.with_bits(bits))
            elif way.correction:
                wanted = inputs.solve(sums.missing.pop(name)).mul_(way.correction)
                for rows in row_blocks(len(weight)):
                    wanted[rows] += weight[rows]
                matrix = inputs.quantize(wanted, bits)
                del wanted
            else:
                matrix = inputs.quantize(weight[:].float(), bits)
            self.result.matrices[name] = matrix
            self.result.errors[name] = output_error(weight, matrix,
                                                    sums.hessian if inputs is None else inputs.hessian)

    def _sums(self, linears: Linears, of: str, has_missing: bool) -> Sums:
        """Over the calibration text, of the hidden states that the quantized model has; within the branch
        with the weights of one of the two."""
        return_freed_memory()  # of the matrices before: with the sums the run takes most
        branch, sums = self.branch, Sums(linears, has_missing)
        is_last = linears is branch.last
        weights = {QUANTIZED: self._weights(of)}
        if has_missing:
            weights[ORIGINAL] = self._weights(ORIGINAL)

        def read(kind: str, index: int) -> Tensor:
            x = self.reads[kind].read(index)
            return branch.inner(x, weights[kind]) if is_last else branch.reads(x)

        for index, batch in enumerate(self.walk.batches):
            x = read(QUANTIZED, index)[batch.is_text]
            sums.add(x)
            if has_missing:
                # What joins the hidden state can also make up for the difference that is there already.
                lacking = self._difference(index)[batch.is_text] if is_last and branch.after is None else None
                sums.add_missing(x, read(ORIGINAL, index)[batch.is_text], lacking)
        sums.average()
        return sums

    def _difference(self, index: int) -> Tensor:
        """What the hidden states of the float model have more, as outputs of `last`."""
        return (self.adds_to[ORIGINAL].read(index) - self.adds_to[QUANTIZED].read(index)) / self.branch.scale

    def finish(self, after: dict[str, States], factor: float) -> dict[str, States]:
        """Write the hidden states with what the branch gives added, times `factor`."""
        for kind, states in after.items():
            weights = self._weights(kind)
            states.write((self.adds_to[kind].read(i) + self.branch.adds(self.reads[kind].read(i), weights))
                         * factor for i in range(len(self.walk.batches)))
        return after
