"""Mixtures of experts in plain torch: what the kernels of routing and of experts are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from model.kernels.routing import Routing


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
    if routing.scoring != "softmax of chosen":
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
    if routing.renormalized:
        of_chosen = of_chosen / (of_chosen.sum(-1, keepdim=True) + routing.share_eps)
    of_chosen = of_chosen * routing.scale
    chosen.copy_(experts)
    shares.copy_(of_chosen if expert_scale is None else of_chosen * expert_scale[experts])


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of each row. torch.topk promises nothing of ties."""
    return torch.sort(values, dim=-1, descending=True, stable=True).indices[..., :count]
