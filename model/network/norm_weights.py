"""The weights of norms, as a family's files have them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.names import Names
from model.families.spec import HeadNorm, Norm
from model.formats.weights import WeightReader


@dataclass(frozen=True)
class NormWeights:
    """float32; None where the norm has none."""

    weight: Tensor | None
    bias: Tensor | None


NO_WEIGHTS = NormWeights(None, None)


def load_norm(reader: WeightReader, name: str, norm: Norm, size: int, names: Names,
              device: torch.device) -> NormWeights:
    if not norm.has_weight:  # a product that norms what it reads wants some
        return NormWeights(torch.ones(size, device=device), None)
    weight = reader.vector(name + ".weight", size, device) + names.norm_offset
    return NormWeights(weight, reader.vector(name + ".bias", size, device) if norm.has_bias else None)


def load_head_norm(reader: WeightReader, name: str, norm: HeadNorm | None, num_heads: int, head_dim: int,
                   names: Names, device: torch.device) -> NormWeights | None:
    if norm is None:
        return None
    if norm.weight == "none":
        return NO_WEIGHTS
    if norm.weight == "shared" and norm.span == "head":
        return load_norm(reader, name, norm.norm, head_dim, names, device)
    if norm.span == "projection":
        return load_norm(reader, name, norm.norm, num_heads * head_dim, names, device)
    if reader.has_tensor(name + ".weight"):  # a row for each head
        weight = reader.table(name + ".weight", num_heads, head_dim, device).float().flatten()
        return NormWeights(weight + names.norm_offset, None)
    heads = [load_norm(reader, f"{name}.norms.{head}", norm.norm, head_dim, names, device)  # a module each
             for head in range(num_heads)]
    biases = [head.bias for head in heads if head.bias is not None]
    return NormWeights(torch.cat([head.weight for head in heads if head.weight is not None]),
                       torch.cat(biases) if biases else None)
