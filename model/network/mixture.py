"""A mixture of experts, for some rows of a step.

The router, the experts it chooses, the shared one, and how what they give joins the hidden state. All of it
is operations of the device, so that nothing waits to hear which experts were chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.families.spec import Dense, Layer, Moe
from model.kernels.operations import Operations
from model.network.branch import Branch, normalize
from model.network.step import Rows
from model.network.weights import DenseWeights, MoeWeights


def mixture_widths(moe: Moe, layer: Layer, hidden_size: int) -> dict[str, int]:
    """Numbers of a token in each buffer that a mixture needs besides those of a step."""
    shared = moe.shared
    widths = {"scores": moe.num_experts, "chosen": moe.top_k, "shares": moe.top_k,
              "gate": int(moe.shared_gate), "normed": hidden_size,
              "latent": moe.latent_size or 0, "latent_given": moe.latent_size or 0,
              "inner": 0 if shared is None else shared.intermediate_size,
              "wide": 0 if shared is None or shared.is_fused else shared.up_size,
              "routed": hidden_size * (moe.apart or moe.router_norm is not None)}
    return widths | {"branch": 0 if _adds_directly(moe, layer) else hidden_size}


def _adds_directly(moe: Moe, layer: Layer) -> bool:
    """What the experts give is added to the hidden state as it is."""
    return not (layer.norm_after or layer.residual_scale * moe.out_scale != 1 or moe.shared_gate or moe.apart)


class Mixture:
    """The experts of one layer, and the branch that they are."""

    def __init__(self, ops: Operations, layer: Layer, weights: MoeWeights, branch: Branch) -> None:
        assert isinstance(layer.mlp, Moe)
        self._ops, self._moe, self._layer = ops, layer.mlp, layer
        self._weights, self._branch = weights, branch
        expert = self._moe.expert
        self._experts = ops.pack_experts(
            [[part.weight for part in each.gate_up.parts] for each in weights.experts],
            [each.down_proj.parts[0].weight for each in weights.experts], expert.activation, expert.gated,
            self._moe.scales_input)

    def route_ahead(self, v: Rows) -> None:
        """The scores of experts, where the router reads what the layer begins with."""
        if self._moe.routes_ahead:
            self._weights.router(v.hidden, v.of("scores", self._moe.num_experts))

    def add(self, v: Rows, of_prompts: bool) -> None:
        """hidden += what the mixture makes of its norm, or the norm of that, times the layer's factor."""
        moe, branch = self._moe, self._branch
        x = branch.read(v)
        chosen, shares = self._route(x, v)
        if moe.apart:
            self._add_apart(x, chosen, shares, v, of_prompts)
        elif _adds_directly(moe, self._layer):
            self._share(x, v.hidden, v, of_prompts, epilogue="add")
            self._compute(x, chosen, shares, v.hidden, v, of_prompts, add=True)
        else:
            gate = self._share(x, v.branch, v, of_prompts)
            self._compute(x, chosen, shares, v.branch, v, of_prompts, add=moe.shared is not None, gate=gate)
            branch.add_rows(v, moe.out_scale)

    def _add_apart(self, x: Tensor, chosen: Tensor, shares: Tensor, v: Rows, of_prompts: bool) -> None:
        """The shared expert and the others have norms of their own."""
        weights, norm, routed = self._weights, self._layer.norm, v.of("routed", v.hidden_size)
        assert weights.experts_norm and weights.experts_out_norm and weights.shared_out_norm
        self._share(x, v.branch, v, of_prompts)
        normalize(self._ops, norm, weights.shared_out_norm, v.branch, v.branch)
        normalize(self._ops, norm, weights.experts_norm, v.hidden, x)
        self._compute(x, chosen, shares, routed, v, of_prompts)
        normalize(self._ops, norm, weights.experts_out_norm, routed, v.branch, add=True)
        self._branch.add_rows(v, self._moe.out_scale)

    def _route(self, x: Tensor, v: Rows) -> tuple[Tensor, Tensor]:
        """(chosen, shares)."""
        moe, weights, scores = self._moe, self._weights, v.of("scores", self._moe.num_experts)
        if moe.router_norm is not None and weights.router_norm is not None:
            x = v.of("routed", v.hidden_size)
            normalize(self._ops, moe.router_norm, weights.router_norm, v.hidden, x)
        if not moe.routes_ahead:
            weights.router(x, scores)
        chosen, shares = v.of("chosen", moe.top_k).view(torch.int32), v.of("shares", moe.top_k)
        self._ops.route(scores, moe.routing, weights.correction, weights.expert_scale, chosen, shares)
        return chosen, shares

    def _compute(self, x: Tensor, chosen: Tensor, shares: Tensor, out: Tensor, v: Rows, of_prompts: bool,
                 add: bool = False, gate: Tensor | None = None) -> None:
        prompts = self._ops.prompts if of_prompts else None
        compute = self._ops.experts if prompts is None else prompts.prompt_experts
        size, latents = self._moe.latent_size, self._weights.latents
        if size is None or latents is None:
            compute(x, self._experts, chosen, shares, out, add, gate)
            return
        latent, given = v.of("latent", size), v.of("latent_given", size)
        latents[0](x, latent, of_prompts=of_prompts)
        compute(latent, self._experts, chosen, shares, given)
        latents[1](given, out, epilogue="add" if add else "store", of_prompts=of_prompts)

    def _share(self, x: Tensor, out: Tensor, v: Rows, of_prompts: bool,
               epilogue: str = "store") -> Tensor | None:
        """The shared expert, if there is one, into out; the number that is to gate it, if there is one."""
        mlp, weights = self._moe.shared, self._weights
        if mlp is None or weights.shared is None:
            return None
        weights.shared.down_proj(self._inner(mlp, weights.shared, x, v, of_prompts), out, epilogue=epilogue,
                                 of_prompts=of_prompts)
        if weights.shared_gate is None:
            return None
        gate = v.of("gate", 1)
        weights.shared_gate(x, gate)
        return gate

    def _inner(self, mlp: Dense, of: DenseWeights, x: Tensor, v: Rows, of_prompts: bool) -> Tensor:
        inner = v.of("inner", mlp.intermediate_size)
        if mlp.is_fused:
            of.gate_up(x, inner, epilogue="silu_mul", of_prompts=of_prompts)
        else:
            wide = v.of("wide", mlp.up_size)
            of.gate_up(x, wide, of_prompts=of_prompts)
            self._ops.activate(wide, inner, mlp.activation, mlp.gated)
        return inner
