"""The weights of latent attention, taken apart by heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.names import Names
from model.families.spec import LatentAttention
from model.formats.weights import (
    DenseMatrix,
    Float8Matrix,
    Matrix,
    QuantizedMatrix,
    RoundedMatrix,
    WeightReader,
)
from model.kernels.reference.linear import dequantize
from model.network.linear import Linear, Part, load_linear, pack
from model.network.modules import Group
from model.network.norm_weights import NormWeights, load_norm
from model.network.place import Place


@dataclass(frozen=True)
class LatentWeights:
    queries: Linear             # hidden_size, or query_rank, -> num_heads * query_dim
    latents: Linear             # hidden_size -> latents_size
    out_proj: Linear            # num_heads * value_dim -> hidden_size
    keys_up: list[Linear]       # of each head plain_dim -> rank
    values_up: list[Linear]     # of each head rank -> value_dim
    query_norm: NormWeights | None
    latent_norm: NormWeights

    @property
    def linears(self) -> list[Linear]:
        return [self.queries, self.latents, self.out_proj, *self.keys_up, *self.values_up]


def load_latent(place: Place, reader: WeightReader, names: Names, prefix: str, latent: LatentAttention,
                groups: list[Group], exact: bool) -> LatentWeights:
    """`groups` as modules.py has them."""
    linears = [load_linear(place, reader, group, exact) for group in groups[:3]]

    def norm(name: str, size: int) -> NormWeights:
        return load_norm(reader, prefix + name, latent.norm, size, names, place.device)

    heads = [Linear(place.ops, [Part(weight, 0, weight.n)]) for weight in place.weights(
        " ".join(name for group in groups[3:] for name in group.modules),
        lambda: [pack(place.ops, [matrix], exact)[0] for matrices in _of_heads(
            place, reader, latent, groups[3:]) for matrix in matrices])]
    keys_up, values_up = heads[:latent.num_heads], heads[latent.num_heads:]
    query_norm = None if latent.query_rank is None else norm(names.query_latent_norm, latent.query_rank)
    return LatentWeights(*linears, keys_up, values_up, query_norm, norm(names.latent_norm, latent.rank))


def _of_heads(place: Place, reader: WeightReader, latent: LatentAttention,
              groups: list[Group]) -> tuple[list[Matrix], list[Matrix]]:
    if len(groups) == 2:
        keys, values = ([reader.matrix(name, n, group.k, place.device) for name, n in group.modules.items()]
                        for group in groups)
        return keys, values
    (name, n), = groups[0].modules.items()
    weight = _numbers(reader.matrix(name, n, latent.rank, place.device)).unflatten(0, (latent.num_heads, -1))
    keys, values = weight.split((latent.plain_dim, latent.value_dim), dim=1)
    return ([DenseMatrix(one.T.contiguous(), None) for one in keys],
            [DenseMatrix(one.contiguous(), None) for one in values])


def _numbers(matrix: Matrix) -> Tensor:
    """Inputs of a head are outputs of the stored matrix, so that groups of these would not do: float16."""
    if isinstance(matrix, DenseMatrix):
        return matrix.weight
    if isinstance(matrix, RoundedMatrix):
        return torch.cat(matrix.weights)
    if not isinstance(matrix, QuantizedMatrix):
        parts = matrix.float8 if isinstance(matrix, Float8Matrix) else matrix.groups
        return parts.dequantize().half()
    weight = dequantize(matrix.codes, matrix.scales, matrix.zeros, matrix.group_size).half()
    return weight if matrix.perm is None else weight[:, matrix.perm.long().argsort()]
