"""A decoder's layers in float32 torch, branch by branch, for whole sequences from position 0.

Only for following calibration text; the engine has its own network, which caches and batches. What is
computed is the Spec's to say, as there, and modules and their names come from network/modules.py: no family
is named here. A branch is two products, `first` and `last`, with what lies before, between and behind them.
Knows nothing of how weights are quantized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.spec import Attention, Dense, HeadNorm, Layer, Norm, Spec
from model.formats.weights import CPU, DenseMatrix, WeightReader
from model.kernels.reference.operations import activate, norm_rows, rotated, xielu_rows
from model.model_config import ModelConfig
from model.network.modules import Group, mixer_modules, mlp_modules
from model.network.norm_weights import NO_WEIGHTS, NormWeights, load_head_norm, load_norm
from model.network.rope_tables import query_scales, rope_tables
from model.network.weights import load_slopes
from model.quantize.packing import Matrix

_OUTPUTS_AT_ONCE = 1024
"""Of a product, whose weights are made float32 together."""
_ROWS_AT_ONCE = 256
"""Of an activation, which makes two more of its size on the way."""


Weights = Mapping[str, Matrix]
"""Of modules by name."""


MIXTURE = "a mixture of experts"


def what_is_missing(spec: Spec) -> str | None:
    """What a model has that this module cannot compute; None: nothing. MIXTURE: only the experts."""
    found = None
    if spec.positions is not None:
        return "learned vectors of positions"
    if spec.layer_inputs is not None:
        return "inputs of layers"
    for layer in spec.layers:
        attention = layer.mixer
        if not isinstance(attention, Attention) or layer.beside is not None:
            return "layers that are not attention and an mlp"
        if layer.mlp is None:
            return "layers without an mlp"
        if not isinstance(layer.mlp, Dense):
            found = MIXTURE
        if attention.reads_cache_of is not None:
            return "layers that read the keys of others"
        if attention.sinks or attention.chunk is not None:
            return "sinks or chunks of attention"
    return found


def longest_piece(spec: Spec) -> int:
    """Tokens from position 0 up to which all are rotated alike."""
    return min(spec.max_positions, spec.long_beyond or spec.max_positions)


@dataclass
class Linears:
    """Modules of one input."""

    group: Group
    weights: dict[str, Matrix]        # as the file has them, or scaled
    biases: dict[str, Tensor]         # float32; of those that have one

    def __call__(self, x: Tensor, weights: Weights) -> Tensor:
        """x float32 [..., k] times `weights`, in the order that the Spec has: float32 [..., n]."""
        sizes = list(self.group.modules.values())
        whole = x.new_empty(*x.shape[:-1], sum(sizes))
        outputs = dict(zip(self.group.modules, whole.split(sizes, dim=-1), strict=True))
        for name, size in self.group.modules.items():
            bias = self.biases.get(name)
            for first in range(0, size, _OUTPUTS_AT_ONCE):
                own = slice(first, first + _OUTPUTS_AT_ONCE)
                outputs[name][..., own] = F.linear(x, weights[name][own].float(),
                                                   None if bias is None else bias[own])
        if not self.group.pieces:
            return whole
        return torch.cat([outputs[piece.module][..., list(piece.rows)] for piece in self.group.pieces], -1)


@dataclass
class Branch:
    """x + scale * after(last(between(first(before(x))))), of one layer."""

    part: Attention | Dense
    first: Linears
    last: Linears
    norm: Norm
    before: NormWeights | None
    before_name: str
    after_norm: Norm
    after: NormWeights | None
    between: Callable[[Tensor], Tensor]
    scale: float

    def reads(self, x: Tensor) -> Tensor:
        """Hidden states to the input of `first`."""
        return x if self.before is None else normed(x, self.norm, self.before)

    def inner(self, x: Tensor, weights: Weights) -> Tensor:
        """Hidden states to the input of `last`."""
        return self.between(self.first(self.reads(x), weights))

    def adds(self, x: Tensor, weights: Weights) -> Tensor:
        """Hidden states to what is added to them."""
        y = self.last(self.inner(x, weights), weights)
        return (y if self.after is None else normed(y, self.after_norm, self.after)) * self.scale


def load_branches(reader: WeightReader, config: ModelConfig, index: int, length: int) -> Iterator[Branch]:
    """Attention's, then the mlp's, each read when it is asked for. `length`: of the longest sequence."""
    layer, names, size = config.spec.layers[index], config.names, config.spec.hidden_size
    prefix = names.layer.format(index)
    attention, mlp = layer.mixer, layer.mlp
    assert isinstance(attention, Attention) and isinstance(mlp, Dense)

    def norm(is_there: bool, name: str) -> NormWeights | None:
        return load_norm(reader, prefix + name, layer.norm, size, names, CPU) if is_there else None

    def branch(part: Attention | Dense, groups: list[Group], before: str, after: str,
               between: Callable[[Tensor], Tensor]) -> Branch:
        first, last = (_load_linears(reader, group) for group in groups)
        return Branch(part, first, last, layer.norm, norm(layer.norm_before, before), prefix + before,
                      layer.after or layer.norm, norm(layer.norm_after, after), between,
                      layer.residual_scale * part.out_scale)

    yield branch(attention, mixer_modules(attention, names, prefix, size), names.attention_norm,
                 names.attention_out_norm, _attention_of(reader, config, layer, prefix, length))
    before = names.attention_norm if layer.parallel == "one norm" else names.mlp_norm
    slopes = load_slopes(reader, names, prefix) if mlp.activation == "xielu" else None
    yield branch(mlp, mlp_modules(mlp, names, prefix, size), before, names.mlp_out_norm,
                 _activation_of(mlp, slopes))


def layer_scale(reader: WeightReader, config: ModelConfig, index: int) -> float:
    """What all of a layer is multiplied by at last."""
    if not config.spec.layers[index].has_scale:
        return 1.0
    return float(reader.vector(config.names.layer.format(index) + config.names.layer_scale, 1))


def _load_linears(reader: WeightReader, group: Group) -> Linears:
    found = {name: reader.matrix(name, n, group.k) for name, n in group.modules.items()}
    matrices = {name: matrix for name, matrix in found.items() if isinstance(matrix, DenseMatrix)}
    return Linears(group, {name: matrix.weight for name, matrix in matrices.items()},
                   {name: matrix.bias for name, matrix in matrices.items() if matrix.bias is not None})


def normed(x: Tensor, norm: Norm, weights: NormWeights, num_groups: int = 1) -> Tensor:
    """Of the last axis of x, in `num_groups` groups."""
    out = torch.empty_like(x)
    norm_rows(x.flatten(0, -2), weights.weight, weights.bias, norm.eps, norm.kind, out.view(-1, x.shape[-1]),
              num_groups)
    return out


def _activation_of(mlp: Dense, slopes: tuple[float, float] | None) -> Callable[[Tensor], Tensor]:
    def between(x: Tensor) -> Tensor:
        """float32 [count, length, up_size] -> [count, length, intermediate_size]"""
        rows = x.flatten(0, 1)
        if mlp.gate_scale != 1:
            rows[:, :mlp.intermediate_size] *= mlp.gate_scale
        out = torch.empty(len(rows), mlp.intermediate_size)
        for own, inner in zip(rows.split(_ROWS_AT_ONCE), out.split(_ROWS_AT_ONCE), strict=True):
            if slopes is not None:
                xielu_rows(own, inner, *slopes)
            else:
                activate(own, inner, mlp.activation, mlp.gated)
        return out.view(*x.shape[:2], -1)

    return between


def _attention_of(reader: WeightReader, config: ModelConfig, layer: Layer, prefix: str,
                  length: int) -> Callable[[Tensor], Tensor]:
    a, names = layer.mixer, config.names
    assert isinstance(a, Attention)
    query_norm, key_norm = (load_head_norm(reader, prefix + name, a.qk_norm, count, a.head_dim, names, CPU)
                            for name, count in ((names.query_norm, a.num_heads),
                                                (names.key_norm, a.num_kv_heads)))
    tables = None if a.rope is None else rope_tables(a.rope, length, CPU)
    scales = None if a.query_scale is None else query_scales(a.query_scale, length, CPU)

    def turned(heads: Tensor) -> Tensor:
        """float32 [count, length, heads, head_dim]"""
        if tables is None:
            return heads
        positions = torch.arange(heads.shape[1]).repeat(len(heads))
        return rotated(heads.flatten(0, 1), tables.cos, tables.sin, positions,
                       tables.interleaved).view_as(heads)

    def prepared(heads: Tensor, weights: NormWeights | None) -> Tensor:
        if a.qk_norm is not None and a.qk_norm.after_rope:
            return _head_normed(turned(heads), a.qk_norm, weights)
        return turned(_head_normed(heads, a.qk_norm, weights))

    def between(x: Tensor) -> Tensor:
        """float32 [count, length, input_size] -> [count, length, query_size]"""
        parts = x.split((*a.projected, *((a.gate_size,) if a.output_gate else ())), dim=-1)
        queries, keys, values = (part.unflatten(-1, (-1, a.head_dim)) for part in (
            *parts[:2], parts[1 if a.keys_as_values else 2]))
        if a.value_norm is not None:
            values = normed(values.flatten(-2), a.value_norm, NO_WEIGHTS, a.num_kv_heads).view_as(values)
        queries, keys = prepared(queries, query_norm), prepared(keys, key_norm)
        if scales is not None:
            queries = queries * scales[:x.shape[1], None, None]
        attended = attend(queries, keys, values, a)
        return attended * torch.sigmoid(parts[-1]) if a.output_gate else attended

    return between


def _head_normed(heads: Tensor, norm: HeadNorm | None, weights: NormWeights | None) -> Tensor:
    if norm is None or weights is None:
        return heads
    groups = heads.shape[2] if norm.span == "head" else 1
    return normed(heads.flatten(-2), norm.norm, weights, groups).view_as(heads)


def attend(queries: Tensor, keys: Tensor, values: Tensor, a: Attention) -> Tensor:
    """Causal attention, a head of keys at a time.

    queries       float32 [count, length, num_heads, head_dim]
    keys, values  float32 [count, length, num_kv_heads, head_dim]
    returns       float32 [count, length, num_heads * head_dim]
    """
    length, group = queries.shape[1], a.num_heads // a.num_kv_heads
    distance = torch.arange(length)[:, None] - torch.arange(length)
    hidden = distance < 0
    if a.window is not None:
        hidden |= distance >= a.window
    out = torch.empty_like(queries)
    for head in range(a.num_kv_heads):
        own = slice(head * group, (head + 1) * group)
        scores = torch.einsum("nqhd,nkd->nhqk", queries[:, :, own], keys[:, :, head]) * a.scale
        if a.softcap is not None:
            scores = a.softcap * torch.tanh(scores / a.softcap)
        shares = scores.masked_fill_(hidden, -math.inf).softmax(dim=-1)
        out[:, :, own] = torch.einsum("nhqk,nkd->nqhd", shares, values[:, :, head])
    return out.flatten(-2)
