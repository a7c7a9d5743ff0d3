"""Mixtures of experts in the compiled libraries: the router's choice, and the experts as one operation.

The meaning of every function is reference/experts.py. Knows packed weights and the C interface.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.kernels.linear import LinearWeight
from model.kernels.operations import ACTIVATIONS
from model.kernels.routing import SCORINGS, Routing


class RoutingStruct(ctypes.Structure):
    """`routing_rules` of kernels.h, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_experts", "top_k", "num_groups", "top_groups",
                                               "best_of_group")),
        *((name, ctypes.c_int32) for name in ("scoring", "is_renormalized")),
        *((name, ctypes.c_float) for name in ("share_eps", "scale", "margin")),
        *((name, ctypes.c_void_p) for name in ("correction", "expert_scale")),
    ]


class ExpertsStruct(ctypes.Structure):
    """`expert_weights` of kernels.h, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("num_experts", "hidden_size", "intermediate_size")),
        *((name, ctypes.c_int32) for name in ("activation", "is_gated", "scales_input")),
        *((name, ctypes.c_void_p) for name in ("gate_up", "up", "down", "table")),
    ]


@dataclass(frozen=True)
class PackedExperts:
    """The experts of a layer. `struct` is what the C functions take; `kept` keeps its memory alive."""

    struct: ExpertsStruct
    gate_up: Sequence[Sequence[LinearWeight]]
    down: Sequence[LinearWeight]
    kept: Sequence[Any]

    @property
    def num_experts(self) -> int:
        return self.struct.num_experts

    @property
    def hidden_size(self) -> int:
        return self.struct.hidden_size


def packed_experts(gate_up: Sequence[Sequence[LinearWeight]], down: Sequence[LinearWeight], activation: str,
                   gated: bool, scales_input: bool) -> PackedExperts:
    """See pack_experts(). Raises ValueError if the shapes of the weights do not fit together."""
    hidden, inner = down[0].n, down[0].k
    outputs = inner * (2 if gated else 1)
    for parts, last in zip(gate_up, down, strict=True):
        sizes = [(part.n, part.k) for part in parts]
        fits = sizes in ([(outputs, hidden)], [(inner, hidden)] * (2 if gated else 1))
        if not fits or (last.n, last.k) != (hidden, inner):
            raise ValueError(f"an expert has gate and up {sizes} and down {(last.n, last.k)}; expected "
                             f"{outputs} outputs of {hidden} inputs, and down {(hidden, inner)}")
    arrays = [_addresses(weights) for weights in (
        [parts[0] for parts in gate_up], [parts[1] if len(parts) > 1 else None for parts in gate_up], down)]
    struct = ExpertsStruct(len(down), hidden, inner, ACTIVATIONS.index(activation), gated, scales_input,
                           *(ctypes.addressof(array) for array in arrays), None)
    return PackedExperts(struct, gate_up, down, arrays)


def _addresses(weights: Sequence[LinearWeight | None]) -> Any:
    array = ctypes.c_void_p * len(weights)
    return array(*(None if weight is None else ctypes.addressof(weight.struct) for weight in weights))


class ExpertOperations:
    """route, pack_experts and experts; the class that inherits them has loaded the library."""

    stream: Any
    call: Callable[..., None]

    def route(self, scores: Tensor, routing: Routing, correction: Tensor | None,
              expert_scale: Tensor | None, chosen: Tensor, shares: Tensor) -> None:
        """See reference.experts.route()."""
        rows, count = scores.shape
        for name, part in (("correction", correction), ("expert_scale", expert_scale)):
            if part is not None:
                _check(name, part, (count,), scores)
        _check("chosen", chosen, (rows, routing.top_k), scores, torch.int32)
        _check("shares", shares, (rows, routing.top_k), scores)
        if scores.dtype != torch.float32 or scores.stride(1) != 1:
            raise ValueError(f"scores are {scores.dtype} with strides {scores.stride()}; expected float32 in "
                             "dense rows")
        rules = RoutingStruct(count, routing.top_k, routing.num_groups, routing.top_groups,
                              routing.best_of_group, SCORINGS.index(routing.scoring), routing.renormalized,
                              routing.share_eps, routing.scale, routing.margin, _address(correction),
                              _address(expert_scale))
        self.call("route", scores, scores.stride(0) if rows > 1 else count, ctypes.byref(rules), chosen,
                  shares, rows, self.stream)

    def pack_experts(self, gate_up: Sequence[Sequence[LinearWeight]], down: Sequence[LinearWeight],
                     activation: str, gated: bool, scales_input: bool = False) -> PackedExperts:
        """The experts of a layer, of packed weights that are kept as they are.

        gate_up  for each expert one weight, gate and up together, or both; up alone if it is not gated
        Raises ValueError if their shapes do not fit together.
        """
        return packed_experts(gate_up, down, activation, gated, scales_input)

    def experts(self, x: Tensor, experts: PackedExperts, chosen: Tensor, shares: Tensor, out: Tensor,
                add: bool = False, gate: Tensor | None = None) -> None:
        """See reference.experts.experts(). A row's result does not depend on the other rows."""
        self.compute_experts("experts", x, experts, chosen, shares, out, add, gate)

    def compute_experts(self, function: str, x: Tensor, experts: PackedExperts, chosen: Tensor,
                        shares: Tensor, out: Tensor, add: bool, gate: Tensor | None) -> None:
        """`experts` by a C function with its arguments."""
        shape = (len(x), experts.hidden_size)
        for name, part in (("x", x), ("out", out)):
            if part.shape != shape or part.dtype != torch.float32 or part.stride(1) != 1:
                raise ValueError(f"{name} is {part.dtype} {list(part.shape)}; expected float32 {list(shape)}")
        _check("chosen", chosen, (len(x), -1), x, torch.int32)
        _check("shares", shares, chosen.shape, x)
        if gate is not None:
            _check("gate", gate.flatten(), (len(x),), x)
        self.call(function, x, _stride(x), len(x), chosen, shares, chosen.shape[1],
                  ctypes.byref(experts.struct), gate, int(add), out, _stride(out), self.stream)


def _check(name: str, tensor: Tensor, shape: Sequence[int], beside: Tensor,
           dtype: torch.dtype = torch.float32) -> None:
    fits = tensor.dim() == len(shape) and all(want in (-1, have)
                                              for want, have in zip(shape, tensor.shape, strict=True))
    if not fits or tensor.dtype != dtype or not tensor.is_contiguous() or tensor.device != beside.device:
        raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}; expected dense "
                         f"{dtype} {list(shape)} on {beside.device}")


def _stride(rows: Tensor) -> int:
    """torch gives a single row any stride."""
    return rows.stride(0) if len(rows) > 1 else rows.shape[1]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
