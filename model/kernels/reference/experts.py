"""Mixtures of experts in plain torch: what the kernels of routing and of experts are tested against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.kernels.reference.activations import activate
from model.kernels.reference.linear import LinearWeight, linear
from model.kernels.routing import Routing


@dataclass(frozen=True)
class PackedExperts:
    """What pack_experts() returns."""

    gate_up: Sequence[Sequence[LinearWeight]]
    down: Sequence[LinearWeight]
    activation: str
    gated: bool
    scales_input: bool


def route(scores: Tensor, routing: Routing, correction: Tensor | None, expert_scale: Tensor | None,
          chosen: Tensor, shares: Tensor) -> None:
    """The experts of each token, the best one first, and what they count. Equal ones: the lower index first.

    scores        float32 [T, num_experts], any row stride
    correction    float32 [num_experts], added to the values for the choice alone, or None
    expert_scale  float32 [num_experts], what an expert's shares are multiplied by, or None
    chosen        int32 [T, top_k]
    shares        float32 [T, top_k]
    """
    values = scores
    if routing.scoring in ("softmax", "sigmoid"):
        values = scores.softmax(-1) if routing.scoring == "softmax" else scores.sigmoid()
    ranks = scores if correction is None and routing.num_groups == 1 else \
        values if correction is None else values + correction
    if routing.num_groups > 1:
        groups = ranks.unflatten(-1, (routing.num_groups, -1))
        best = groups.sort(dim=-1, descending=True).values[..., :routing.best_of_group].sum(-1)
        kept = torch.zeros_like(best, dtype=torch.bool)
        kept.scatter_(-1, _largest(best, routing.top_groups), True)
        ranks = groups.masked_fill(~kept.unsqueeze(-1), -torch.inf).flatten(-2)
    experts = _largest(ranks, routing.top_k)
    of_chosen = values.gather(-1, experts)
    if routing.scoring == "softmax of chosen":
        of_chosen = of_chosen.softmax(-1)
    if routing.scoring == "softmax of near":
        of_chosen = _shares_of_near(scores, experts, routing.margin)
    if routing.renormalized:
        of_chosen = of_chosen / (of_chosen.sum(-1, keepdim=True) + routing.share_eps)
    of_chosen = of_chosen * routing.scale
    chosen.copy_(experts)
    shares.copy_(of_chosen if expert_scale is None else of_chosen * expert_scale[experts])


def _shares_of_near(scores: Tensor, experts: Tensor, margin: float) -> Tensor:
    left, shares = scores, []
    for chosen in experts.unbind(-1):
        own = scores.gather(-1, chosen[..., None])
        is_far = (own - scores) / torch.maximum(scores.abs(), own) > margin
        shares.append(left.masked_fill(is_far, -torch.inf).softmax(-1).gather(-1, chosen[..., None]))
        left = left.scatter(-1, chosen[..., None], -torch.inf)
    return torch.cat(shares, -1)


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of each row. torch.topk promises nothing of ties."""
    return torch.sort(values, dim=-1, descending=True, stable=True).indices[..., :count]


def pack_experts(gate_up: Sequence[Sequence[LinearWeight]], down: Sequence[LinearWeight], activation: str,
                 gated: bool, scales_input: bool = False) -> PackedExperts:
    """The experts of a layer.

    gate_up       for each expert one weight, gate and up together, or both; up alone if it is not gated
    activation    see activate()
    scales_input  shares multiply what an expert reads, not what it gives
    """
    return PackedExperts(gate_up, down, activation, gated, scales_input)


def experts(x: Tensor, experts: PackedExperts, chosen: Tensor, shares: Tensor, out: Tensor, add: bool = False,
            gate: Tensor | None = None) -> None:
    """sum = sum over a row's chosen experts of share * down(activation(gate_up(x))).

    x       float32 [T, hidden_size], any row stride
    chosen  int32 [T, top_k];  shares  float32 [T, top_k]
    out     float32 [T, hidden_size], any row stride; may be x: the sum, with `add` added to what is there
    gate    float32 [T, 1] or None: out = out * sigmoid(gate) + sum
    """
    total = torch.zeros(len(x), x.shape[1])
    for row in range(len(x)):
        for expert, share in zip(chosen[row].tolist(), shares[row], strict=True):
            read = x[row:row + 1] * (share if experts.scales_input else 1.0)
            given = _expert(read, experts.gate_up[expert], experts.down[expert], experts.activation,
                            experts.gated)
            total[row:row + 1] += given * (1.0 if experts.scales_input else share)
    if gate is not None:
        out.copy_(out * gate.view(-1, 1).sigmoid() + total)
    else:
        out.copy_(out + total if add else total)


def _expert(x: Tensor, gate_up: Sequence[LinearWeight], down: LinearWeight, activation: str,
            gated: bool) -> Tensor:
    wide = torch.empty(1, sum(part.n for part in gate_up))
    first: Any = 0
    for part in gate_up:
        linear(x, part, wide[:, first:first + part.n])
        first += part.n
    inner, given = torch.empty(1, down.k), torch.empty(1, down.n)
    activate(wide, inner, activation, gated)
    linear(inner, down, given)
    return given
