"""What each linear alone would lose at each number of bits: the error that it makes in what its layer gives.

A pass through the float model, before any bits are chosen. An error is a share of the hidden states' size,
token by token (some tokens' are a thousand times larger than others'), so that errors of all linears and
layers are of one kind, and add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from model.quantize.bits import Choice
from model.quantize.calibration import Batch
from model.quantize.decoder import Branch, Linears, layer_scale, load_branches
from model.quantize.gptq import GridOptions, Inputs, quantize_round
from model.quantize.packing import SUPPORTED_BITS, is_packable, packed_bytes
from model.quantize.source import Source
from model.quantize.states import States
from model.quantize.sums import Sums

PROBES = 2
"""Batches of the text on which errors are measured."""


class Measurement:
    """The float model's way through the text."""

    def __init__(self, source: Source, batches: list[Batch], folder: Path, options: GridOptions,
                 makes_good: bool) -> None:
        """makes_good: by GPTQ, else by rounding"""
        self.source, self.batches, self.folder = source, batches, folder
        self.options, self.makes_good = options, makes_good
        self._length = max(batch.token_ids.shape[1] for batch in batches)
        self._probes = [i * len(batches) // PROBES for i in range(PROBES)] if len(batches) > PROBES else \
            list(range(len(batches)))

    def layers(self, first: int, tick: Callable[[], None]) -> Iterator[tuple[int, dict[str, list[Choice]]]]:
        """Each layer's linears with what they could be, from layer `first` on."""
        if first == 0:
            self._at("0").write(self.source.embedded(batch.token_ids) for batch in self.batches)
        for index in range(first, self.source.config.spec.num_layers):
            yield index, self._layer(index, tick)
            for path in self.folder.iterdir():
                if path.stem != str(index + 1):
                    path.unlink()

    def _at(self, place: str) -> States:
        return States(self.folder / f"{place}.states", self.batches, self.source.config.spec.hidden_size)

    def _layer(self, index: int, tick: Callable[[], None]) -> dict[str, list[Choice]]:
        config, found = self.source.config, {}
        start = now = self._at(str(index))
        scale = layer_scale(self.source.reader, config, index)
        branches = load_branches(self.source.reader, config, index, self._length)
        for place, factor in ((f"{index}-mlp", 1.0), (str(index + 1), scale)):
            branch = next(branches)
            reads = start if config.spec.layers[index].parallel else now
            weights = {**branch.first.weights, **branch.last.weights}
            for linears in (branch.first, branch.last):
                found |= self._choices(branch, linears, weights, reads, now)
            after = self._at(place)
            after.write((now.read(i) + branch.adds(reads.read(i), weights)) * factor
                        for i in range(len(self.batches)))
            now = after
            tick()
        return found

    def _choices(self, branch: Branch, linears: Linears, weights: dict[str, Tensor], reads: States,
                 adds_to: States) -> dict[str, list[Choice]]:
        inputs = self._inputs(branch, linears, weights, reads) if self.makes_good else None
        exact = [branch.adds(reads.read(i), weights) for i in self._probes]
        sizes = [(adds_to.read(i) + y).square().sum(-1) for i, y in zip(self._probes, exact, strict=True)]
        found: dict[str, list[Choice]] = {}
        for name, weight in linears.weights.items():
            n, k = weight.shape
            found[name] = []
            for bits in SUPPORTED_BITS:
                if not is_packable(k, n, bits):
                    continue
                matrix = quantize_round(weight.float(), self.options.with_bits(bits)) if inputs is None else \
                    inputs.quantize(weight.float(), bits)
                changed = {**weights, name: matrix}
                errors = [((branch.adds(reads.read(i), changed) - y).square().sum(-1) / size)[
                    self.batches[i].is_text] for i, y, size in zip(self._probes, exact, sizes, strict=True)]
                found[name].append(Choice(bits, packed_bytes(k, n, bits, len(matrix.scales)),
                                          float(torch.cat(errors).double().mean())))
        return found

    def _inputs(self, branch: Branch, linears: Linears, weights: dict[str, Tensor], reads: States) -> Inputs:
        sums = Sums(linears, has_missing=False)
        for index, batch in enumerate(self.batches):
            x = reads.read(index)
            x = branch.reads(x) if linears is branch.first else branch.inner(x, weights)
            sums.add(x[batch.is_text])
        sums.average()
        return Inputs(sums.hessian, self.options, self.folder / "inputs")
