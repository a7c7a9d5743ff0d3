"""A mixture of experts, for some rows of a step.

The router, the experts it chooses, the shared one, and what becomes of their sum. Knows buffers and kernels;
the norm before and the sum after are the stage's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.families.spec import Dense, Moe, Norm
from model.kernels.operations import Operations
from model.kernels.reference.experts import route
from model.network.norm_weights import NormWeights
from model.network.weights import DenseWeights, MoeWeights


@dataclass(frozen=True)
class MixtureBuffers:
    """float32, for the same rows each; all of them may be overwritten."""

    scores: Tensor    # [T, num_experts]
    gate: Tensor      # [T, 1]
    gathered: Tensor  # [T, hidden_size]
    given: Tensor     # [T, hidden_size]
    inner: Tensor     # [T * the widest expert]
    wide: Tensor      # [T * gate and up of the widest one whose activation is a call of its own]


class Mixture:
    """The experts of one layer. norm: of the layer, for those that a mixture has within."""

    def __init__(self, ops: Operations, moe: Moe, weights: MoeWeights, norm: Norm) -> None:
        self._ops, self._moe, self._weights, self._norm = ops, moe, weights, norm

    def __call__(self, hidden: Tensor, x: Tensor, out: Tensor, buffers: MixtureBuffers,
                 of_prompts: bool) -> None:
        """out = what the mixture makes of x, the normed rows of `hidden`. All float32 [T, hidden_size]."""
        moe, weights = self._moe, self._weights
        shares, chosen = self._route(hidden, x, buffers)
        if moe.shared is None or weights.shared is None:
            out.zero_()
        else:
            self._compute(moe.shared, weights.shared, x, out, buffers, of_prompts)
            if weights.shared_gate is not None:
                weights.shared_gate(x, buffers.gate)
                out.mul_(buffers.gate.sigmoid())
        if weights.shared_out_norm is not None and weights.experts_norm is not None:
            self._normalize(weights.shared_out_norm, out, out)
            self._normalize(weights.experts_norm, hidden, x)
        routed = torch.zeros_like(out)
        for expert in chosen.unique().tolist():
            rows, places = (chosen == expert).nonzero(as_tuple=True)
            gathered, given = buffers.gathered[:len(rows)], buffers.given[:len(rows)]
            torch.index_select(x, 0, rows, out=gathered)
            own = shares[rows, places, None]
            if moe.scales_input:
                gathered.mul_(own)
            self._compute(moe.expert, weights.experts[expert], gathered, given, buffers, of_prompts)
            routed.index_add_(0, rows, given if moe.scales_input else given.mul_(own))
        if weights.experts_out_norm is not None:
            self._normalize(weights.experts_out_norm, routed, routed)
        out.add_(routed)

    def _route(self, hidden: Tensor, x: Tensor, buffers: MixtureBuffers) -> tuple[Tensor, Tensor]:
        moe, weights, scores = self._moe, self._weights, buffers.scores
        if weights.router_norm is not None and moe.router_norm is not None:
            normed = buffers.gathered
            self._ops.norm_rows(hidden, weights.router_norm.weight, None, moe.router_norm.eps,
                                moe.router_norm.kind, normed)
            weights.router(normed, scores)
        else:
            weights.router(x, scores)
        shares = torch.empty(len(x), moe.top_k, device=x.device)
        chosen = torch.empty(len(x), moe.top_k, dtype=torch.int32, device=x.device)
        route(scores, moe.routing, weights.correction, weights.expert_scale, chosen, shares)
        return shares, chosen

    def _normalize(self, weights: NormWeights, x: Tensor, out: Tensor) -> None:
        self._ops.norm_rows(x, weights.weight, weights.bias, self._norm.eps, self._norm.kind, out)

    def _compute(self, mlp: Dense, of: DenseWeights, x: Tensor, out: Tensor, buffers: MixtureBuffers,
                 of_prompts: bool) -> None:
        inner = buffers.inner[:len(x) * mlp.intermediate_size].view(len(x), -1)
        if mlp.is_fused:
            of.gate_up(x, inner, epilogue="silu_mul", of_prompts=of_prompts)
        else:
            wide = buffers.wide[:len(x) * mlp.up_size].view(len(x), -1)
            of.gate_up(x, wide, of_prompts=of_prompts)
            self._ops.activate(wide, inner, mlp.activation, mlp.gated)
        of.down_proj(inner, out, of_prompts=of_prompts)
