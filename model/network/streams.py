"""The hidden state in several copies, of which layers compute with the first: see Streams of the Spec."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.families.names import Names
from model.families.spec import Spec, Streams
from model.files import ModelLoadError
from model.formats.weights import DenseMatrix, Matrix, WeightReader
from model.kernels.operations import Operations
from model.model_config import ModelConfig
from model.network.branch import NO_NORM, Branch, normalize
from model.network.linear import Linear, load_linear, packed
from model.network.modules import Group, stream_ends, stream_modules
from model.network.norm_weights import NO_WEIGHTS, NormWeights, load_norm
from model.network.place import Place
from model.network.step import Rows

_ROOT = 2 ** -0.5
_SMALLEST = 1e-5
"""Mean square below which a copy is not made larger."""


@dataclass(frozen=True)
class StreamEndWeights:
    """Of each copy but the first, hidden_size -> hidden_size."""

    openings: list[Linear]
    closings: list[Linear]


@dataclass(frozen=True)
class StreamWeights:
    """Of one layer."""

    router: Linear           # hidden_size -> count, always exact
    predict: Linear          # count -> count * count: shares of what goes into each, itself once more
    correct: Linear          # count -> count: shares of what was changed, of which 1 is always there
    beside: tuple[Linear, Linear]  # hidden_size -> rank -> hidden_size
    router_norm: NormWeights
    beside_norm: NormWeights
    first_scale: NormWeights  # float32 [hidden_size]

    @property
    def linears(self) -> list[Linear]:
        return [self.router, self.predict, self.correct, *self.beside]


class StreamRows:
    """What is done to a step's rows before the layers, around each, and after them."""

    def __init__(self, ops: Operations, streams: Streams, hidden_size: int,
                 weights: StreamEndWeights) -> None:
        self._ops, self._streams, self._size, self._weights = ops, streams, hidden_size, weights

    def open(self, v: Rows, of_prompts: bool) -> None:
        """The embeddings as all copies, each but the first turned, and as large as they are."""
        self._copy(v.hidden, self._copies(v)[0])
        for opening, copy in zip(self._weights.openings, self._copies(v)[1:], strict=True):
            opening(v.hidden, copy, of_prompts=of_prompts)
            self._ops.match_rows(copy, v.hidden, _SMALLEST)

    def enter(self, weights: StreamWeights, branch: Branch, v: Rows, of_prompts: bool) -> None:
        """Copies become mixtures of all, the first the hidden state; what stands beside attention is made."""
        self._route(weights, self._copies(v)[0], weights.predict, self._streams.count ** 2, v)
        self._ops.mix_rows(self._whole("streams", v), v.of("stream_shares", self._streams.count ** 2),
                           self._whole("predicted", v), self._size)
        self._copy(self._whole("predicted", v)[:, :self._size], v.hidden)
        normed, low = branch.read(v), v.of("beside", self._streams.rank)
        weights.beside[0](normed, low, of_prompts=of_prompts)
        weights.beside[1](low, v.branch, of_prompts=of_prompts)
        normalize(self._ops, self._streams.norm, weights.beside_norm, v.branch, normed, add=True)

    def join(self, v: Rows) -> None:
        """What stands beside attention, which has been added by now."""
        normalize(self._ops, NO_NORM, NO_WEIGHTS, v.normed, v.hidden, add=True)
        self._ops.cap_rows(v.hidden, _ROOT)

    def leave(self, weights: StreamWeights, v: Rows) -> None:
        """What the layer has changed is added to all copies; the hidden state is the first, scaled."""
        count, predicted, whole = self._streams.count, self._whole("predicted", v), self._whole("streams", v)
        self._route(weights, v.hidden, weights.correct, count, v)
        normalize(self._ops, NO_NORM, NO_WEIGHTS, predicted[:, :self._size], v.hidden, add=True, scale=-1.0)
        self._copy(predicted, whole)
        self._ops.mix_rows(v.hidden, v.of("stream_shares", count), whole, self._size, add=True)
        normalize(self._ops, NO_NORM, weights.first_scale, self._copies(v)[0], v.hidden)

    def others(self, v: Rows) -> list[Tensor]:
        """The copies but the first."""
        return list(self._copies(v)[1:])

    def close(self, v: Rows, of_prompts: bool) -> None:
        """The mean of all copies, each but the first turned and as large as that, as the hidden state."""
        first, *others = self._copies(v)
        scale = 1 / self._streams.count
        normalize(self._ops, NO_NORM, NO_WEIGHTS, first, v.hidden, scale=scale)
        for closing, copy in zip(self._weights.closings, others, strict=True):
            closing(copy, v.branch, of_prompts=of_prompts)
            self._ops.match_rows(v.branch, first, _SMALLEST)
            normalize(self._ops, NO_NORM, NO_WEIGHTS, v.branch, v.hidden, add=True, scale=scale)

    def _route(self, weights: StreamWeights, x: Tensor, shares_of: Linear, count: int, v: Rows) -> None:
        routed = v.of("routed_streams", self._streams.count)
        normalize(self._ops, self._streams.norm, weights.router_norm, x, v.normed)
        weights.router(v.normed, routed)
        self._ops.cap_rows(routed, 1.0, 1.0)  # tanh
        shares_of(routed, v.of("stream_shares", count))

    def _copy(self, x: Tensor, out: Tensor) -> None:
        normalize(self._ops, NO_NORM, NO_WEIGHTS, x, out)

    def _whole(self, name: str, v: Rows) -> Tensor:
        return v.of(name, self._streams.count * self._size)

    def _copies(self, v: Rows) -> tuple[Tensor, ...]:
        return self._whole("streams", v).split(self._size, dim=1)


def stream_widths(spec: Spec) -> dict[str, int]:
    """Buffers of a step, see buffer_widths()."""
    streams, size = spec.streams, spec.hidden_size
    if streams is None:
        return {}
    return {"streams": streams.count * size, "predicted": streams.count * size, "beside": streams.rank,
            "routed_streams": streams.count, "stream_shares": streams.count ** 2, "normed": size,
            "branch": size}


def load_stream_ends(place: Place, reader: WeightReader, config: ModelConfig,
                     exact: bool) -> StreamEndWeights | None:
    if config.spec.streams is None:
        return None
    openings, closings = ([load_linear(place, reader, group, exact) for group in groups]
                          for groups in stream_ends(config.spec, config.names))
    return StreamEndWeights(openings, closings)


def load_streams(place: Place, reader: WeightReader, config: ModelConfig, prefix: str,
                 exact: bool) -> StreamWeights | None:
    streams, names, size = config.spec.streams, config.names, config.spec.hidden_size
    if streams is None:
        return None
    router, predict, correct, *beside = stream_modules(streams, names, prefix, size)
    ones = torch.ones(streams.count, device=place.device)
    down, up = (load_linear(place, reader, group, exact) for group in beside)
    router_norm, beside_norm = (load_norm(reader, prefix + name, streams.norm, size, names, place.device)
                                for name in (names.stream_router_norm, names.beside_norm))
    assert router_norm.weight is not None
    return StreamWeights(
        load_linear(place, reader, router, exact),
        _with_constant(place, reader, predict, torch.diag(ones).flatten()),
        _with_constant(place, reader, correct, ones), (down, up),
        NormWeights(router_norm.weight / size, None), beside_norm,
        _first_scale(place, reader, names, prefix, size) if streams.scales_first else NO_WEIGHTS)


def _with_constant(place: Place, reader: WeightReader, group: Group, constant: Tensor) -> Linear:
    (name, n), = group.modules.items()

    def read() -> list[Matrix]:
        matrix = reader.matrix(name, n, group.k, place.device)
        if not isinstance(matrix, DenseMatrix):
            raise ModelLoadError(f"{name} is quantized; expected numbers")
        return [replace(matrix, bias=constant)]

    return packed(place, name, read, True)


def _first_scale(place: Place, reader: WeightReader, names: Names, prefix: str, size: int) -> NormWeights:
    return NormWeights(reader.vector(prefix + names.stream_scale, size, place.device), None)
