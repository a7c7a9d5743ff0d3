"""Layers that keep a state: its memory, and what is computed with it, one kind after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.families.spec import ChannelDelta, GatedDelta, Mamba2, ShortConv, StateMixer
from model.network.branch import Branch
from model.network.place import Place
from model.network.step import Rows, Sizes, StepInput


@dataclass(frozen=True)
class StateCache:
    """Every state of a stage: a slot is a row, so that one copy takes all of it."""

    memory: Tensor                 # float32 [num_slots, numbers of all mixers]
    of_mixers: list[list[Tensor]]  # views of it: [num_slots, ...] for each of a mixer's shapes

    @classmethod
    def allocate(cls, mixers: Sequence[StateMixer], sizes: Sizes, device: torch.device) -> StateCache:
        """Not initialized: a sequence's first row reads nothing."""
        shapes = [mixer.state_shapes for mixer in mixers]
        memory = torch.empty(sizes.num_slots, sum(math.prod(shape) for own in shapes for shape in own),
                             device=device)
        parts = iter(memory.split([math.prod(shape) for own in shapes for shape in own], dim=1))
        return cls(memory, [[next(parts).unflatten(1, shape) for shape in own] for own in shapes])


def state_mixer(place: Place, mixer: StateMixer, weights: Any, branch: Branch,
                states: list[Tensor]) -> StateLayer:
    """A Mixer of stage.py, with its weights and states."""
    kinds = {ShortConv: ShortConvLayer, GatedDelta: DeltaLayer, ChannelDelta: ChannelDeltaLayer,
             Mamba2: MambaLayer}
    return kinds[type(mixer)](place, mixer, weights, branch, states)


class StateLayer:
    """What the kinds have in common: a product before and one after."""

    def __init__(self, place: Place, mixer: Any, weights: Any, branch: Branch, states: list[Tensor]) -> None:
        self._ops, self._mixer, self._weights, self._branch = place.ops, mixer, weights, branch
        self._states = states

    def project(self, step: StepInput, v: Rows, of_prompts: bool) -> None:
        self._branch.multiply(self._weights.in_proj, v, self._inputs(v), of_prompts=of_prompts)

    def add(self, v: Rows, of_prompts: bool) -> None:
        self._branch.add(self._weights.out_proj, self._mixed(v), v, self._mixer, of_prompts=of_prompts)

    def _inputs(self, v: Rows) -> Tensor:
        return v.of("mixer", self._mixer.input_size)

    def _mixed(self, v: Rows) -> Tensor:
        return v.of("mixed", self._mixer.output_size)

    def _convolve(self, step: StepInput, x: Tensor, activation: str) -> None:
        """In place."""
        conv = self._weights.conv
        self._ops.short_conv(x, conv.weight, conv.bias, self._states[0], *_sequences(step), x, activation,
                             row_slots=step.row_slots)


class ShortConvLayer(StateLayer):
    """out(c * conv(b * x))."""

    def mix(self, step: StepInput, v: Rows) -> None:
        b, c, x = self._inputs(v).split(self._mixer.size, dim=1)
        mixed = self._mixed(v)
        self._ops.gate_rows(x, b, mixed, "none")
        self._convolve(step, mixed, "none")
        self._ops.gate_rows(mixed, c, mixed, "none")


class DeltaLayer(StateLayer):
    """out(norm(delta(q, k, v)) * silu(z))."""

    def project(self, step: StepInput, v: Rows, of_prompts: bool) -> None:
        super().project(step, v, of_prompts)
        self._branch.multiply(self._weights.heads, v, self._heads(v), of_prompts=False)

    def mix(self, step: StepInput, v: Rows) -> None:
        ops, mixer, weights = self._ops, self._mixer, self._weights
        inputs, heads = self._inputs(v), mixer.num_value_heads
        convolved, z = inputs[:, :mixer.conv_size], inputs[:, mixer.conv_size:]
        self._convolve(step, convolved, "silu")
        keys = mixer.num_key_heads * mixer.key_dim
        q, k, values = convolved.split((keys, keys, mixer.output_size), dim=1)
        beta, decay = self._heads(v).split(heads, dim=1)
        self._correct(step, q, k, values, decay, beta, mixer.tiled)
        ops.norm_rows(values, weights.norm, None, mixer.norm.eps, mixer.norm.kind, values, heads)
        ops.gate_rows(values, z, self._mixed(v), "silu")

    def _correct(self, step: StepInput, q: Tensor, k: Tensor, values: Tensor, decay: Tensor, beta: Tensor,
                 tiled: bool = False) -> None:
        """The state, by the rule; what it gives takes the values' place. decay, beta: as products give
        them."""
        ops, weights = self._ops, self._weights
        ops.activate(beta, beta, "sigmoid", gated=False)
        ops.softplus_rows(decay, weights.step_bias, decay, weights.decay)
        ops.gated_delta(q, k, values, decay, beta, self._states[1], *_sequences(step), values,
                        row_slots=step.row_slots, tiled=tiled)

    def _heads(self, v: Rows) -> Tensor:
        return v.of("heads", self._mixer.heads_size)


class ChannelDeltaLayer(DeltaLayer):
    """out(norm(delta(q, k, v)) * sigmoid(z)), with a decay for each channel of a key."""

    def project(self, step: StepInput, v: Rows, of_prompts: bool) -> None:
        super().project(step, v, of_prompts)
        mixer, weights = self._mixer, self._weights
        of_decays, of_gates = self._heads(v)[:, :mixer.rank], self._inputs(v)[:, mixer.conv_size:]
        weights.decay_up(of_decays, self._decays(v), row_adapters=v.adapters)
        weights.gate_up(of_gates, self._gates(v), of_prompts=of_prompts, row_adapters=v.adapters)

    def mix(self, step: StepInput, v: Rows) -> None:
        ops, mixer = self._ops, self._mixer
        convolved, beta = self._inputs(v)[:, :mixer.conv_size], self._heads(v)[:, mixer.rank:]
        self._convolve(step, convolved, "silu")
        q, k, values = convolved.split(mixer.output_size, dim=1)
        self._correct(step, q, k, values, self._decays(v), beta)
        ops.norm_rows(values, self._weights.norm, None, mixer.norm.eps, mixer.norm.kind, values,
                      mixer.num_heads)
        ops.gate_rows(values, self._gates(v), self._mixed(v), "sigmoid")

    def _decays(self, v: Rows) -> Tensor:
        return v.of("decays", self._mixer.output_size)

    def _gates(self, v: Rows) -> Tensor:
        return v.of("gates", self._mixer.output_size)


class MambaLayer(StateLayer):
    """out(norm(ssm(x, b, c, dt) * silu(z)))."""

    def mix(self, step: StepInput, v: Rows) -> None:
        ops, mixer, weights = self._ops, self._mixer, self._weights
        z, convolved, dt = self._inputs(v).split((mixer.output_size, mixer.conv_size, mixer.num_heads), dim=1)
        for part, scale in ((z, mixer.scales[0]), (dt, mixer.scales[4])):
            if scale != 1:
                ops.cap_rows(part, scale)
        self._convolve(step, convolved, "silu")
        ops.softplus_rows(dt, weights.step_bias, dt, None, *mixer.step_limits)
        groups = mixer.num_groups * mixer.state_size
        x, b, c = convolved.split((mixer.output_size, groups, groups), dim=1)
        ops.mamba2(x, b, c, dt, weights.decay, weights.skip, self._states[1], *_sequences(step), x,
                   row_slots=step.row_slots)
        mixed = self._mixed(v)
        if mixer.norm is not None and mixer.norm_before_gate:
            ops.norm_rows(x, weights.norm, None, mixer.norm.eps, mixer.norm.kind, x, mixer.num_groups)
        ops.gate_rows(x, z, mixed, "silu")
        if mixer.norm is not None and not mixer.norm_before_gate:
            ops.norm_rows(mixed, weights.norm, None, mixer.norm.eps, mixer.norm.kind, mixed, mixer.num_groups)


def _sequences(step: StepInput) -> tuple[Tensor, Tensor, Tensor]:
    return step.state_slots, step.cu_seqlens, step.seq_lens
