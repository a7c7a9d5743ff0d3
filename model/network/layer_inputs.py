"""What tokens bring to each layer besides their embedding: see LayerInputs of the Spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.spec import LayerInputs, Spec
from model.formats.weights import WeightReader
from model.kernels.operations import Operations, PackedWeight
from model.model_config import ModelConfig
from model.network.linear import Linear, load_linear, packed
from model.network.modules import input_projection, layer_input_modules
from model.network.norm_weights import NormWeights, load_norm
from model.network.place import Place
from model.network.step import Rows

_ROOT = 2 ** -0.5


@dataclass(frozen=True)
class InputsWeights:
    """What makes the inputs of all layers: see LayerInputs of the Spec."""

    table: Tensor | PackedWeight  # [vocab_size, num_layers * size], as embeddings
    projection: Linear            # hidden_size -> num_layers * size
    norm: NormWeights             # [size]


@dataclass(frozen=True)
class InputWeights:
    """How one layer takes its input."""

    gate: Linear            # hidden_size -> size
    out: Linear             # size -> hidden_size
    norm: NormWeights

    @property
    def linears(self) -> list[Linear]:
        return [self.gate, self.out]


class LayerInputsRows:
    """Makes the inputs of a step's rows, and has layers take them."""

    def __init__(self, ops: Operations, spec: Spec, inputs: LayerInputs, weights: InputsWeights) -> None:
        self._ops, self._inputs, self._weights = ops, inputs, weights
        self._num_layers, self._width = spec.num_layers, spec.num_layers * inputs.size
        # the projection comes times hidden_size^-0.5, which its norm takes out again but for eps
        self._eps = inputs.norm.eps * spec.hidden_size

    def look_up(self, token_ids: Tensor, v: Rows) -> None:
        """The table's part of all rows of a step."""
        self._ops.embed(self._weights.table, token_ids, v.of("inputs", self._width),
                        self._inputs.scale * _ROOT)

    def project(self, v: Rows, of_prompts: bool) -> None:
        """The part of the embeddings, which are the hidden states as yet."""
        projected = v.of("projected", self._width)
        self._weights.projection(v.hidden, projected, of_prompts=of_prompts)
        self._ops.norm_rows(projected, self._weights.norm.weight, None, self._eps, self._inputs.norm.kind,
                            v.of("inputs", self._width), self._num_layers, True, _ROOT)

    def add(self, index: int, weights: InputWeights, v: Rows, outs: Sequence[Tensor],
            of_prompts: bool) -> None:
        """Layer `index` makes of its input and the hidden states what is added to each of `outs`."""
        ops, inputs, size = self._ops, self._inputs, self._inputs.size
        taken = v.of("input_taken", size)
        weights.gate(v.hidden, taken, of_prompts=of_prompts)
        own = v.of("inputs", self._width)[:, index * size:(index + 1) * size]
        ops.gate_rows(own, taken, taken, inputs.activation)
        weights.out(taken, v.branch, of_prompts=of_prompts)
        for out in outs:
            ops.norm_rows(v.branch, weights.norm.weight, None, inputs.norm.eps, inputs.norm.kind, out,
                          add=True)


def input_widths(spec: Spec) -> dict[str, int]:
    """Buffers of a step, see buffer_widths()."""
    if spec.layer_inputs is None:
        return {}
    size = spec.layer_inputs.size
    return {"inputs": spec.num_layers * size, "projected": spec.num_layers * size, "input_taken": size,
            "branch": spec.hidden_size}


def load_inputs(place: Place, reader: WeightReader, config: ModelConfig,
                 exact: bool) -> InputsWeights | None:
    spec, names, inputs = config.spec, config.names, config.spec.layer_inputs
    if inputs is None:
        return None
    projection = input_projection(spec, inputs, names)
    table = _load_table(place, reader, names.layer_inputs, inputs.vocab_size or spec.vocab_size,
                        spec.vocab_size, projection.n, exact)
    return InputsWeights(table, load_linear(place, reader, projection, exact),
                         load_norm(reader, names.layer_inputs_norm, inputs.norm, inputs.size, names,
                                   place.device))


def load_input(place: Place, reader: WeightReader, config: ModelConfig, prefix: str,
                exact: bool) -> InputWeights | None:
    names, inputs, size = config.names, config.spec.layer_inputs, config.spec.hidden_size
    if inputs is None:
        return None
    gate, out = (load_linear(place, reader, group, exact)
                 for group in layer_input_modules(inputs, names, prefix, size))
    norm = load_norm(reader, prefix + names.input_norm, inputs.norm, size, names, place.device)
    return InputWeights(gate, out, norm)


def _load_table(place: Place, reader: WeightReader, module: str, rows: int, num_tokens: int, columns: int,
                exact: bool) -> Tensor | PackedWeight:
    """What rows are looked up in, packed where it is quantized and the device can; else with a row for each
    token: those that have none in the file get the first."""
    if place.ops.looks_up_packed and reader.is_quantized(module):
        return packed(place, module, lambda: [reader.matrix(module, rows, columns, place.device)],
                      exact).parts[0].weight

    def read() -> Tensor:
        table = reader.table(module + ".weight", rows, columns, place.device)
        return table if rows == num_tokens else torch.cat((table, table[:1].expand(num_tokens - rows, -1)))

    return place.table(module, read)
