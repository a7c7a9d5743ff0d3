"""Mixtures of experts on the GPU: rows that decode by the library's own kernels, prompts expert by expert.

The meaning of every function is reference/experts.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model.kernels.cuda_linear import CudaLinearOperations
from model.kernels.experts import ExpertOperations, PackedExperts
from model.kernels.linear import LinearWeight
from model.kernels.operations import ACTIVATIONS

FEWEST_ROWS = 16
"""Of a prompt's chunk: fewer are computed as rows that decode, each reading its own experts."""


class CudaExpertOperations(ExpertOperations, CudaLinearOperations):
    """route, pack_experts and experts; the class that inherits them has a library and a stream."""

    activate: Callable[..., None]

    def pack_experts(self, gate_up: Sequence[Sequence[LinearWeight]], down: Sequence[LinearWeight],
                     activation: str, gated: bool, scales_input: bool = False) -> PackedExperts:
        """As ExpertOperations.pack_experts, with the table that the GPU looks weights up in."""
        packed = super().pack_experts(gate_up, down, activation, gated, scales_input)
        nbytes = ctypes.c_int64()
        self.call("expert_table", ctypes.byref(packed.struct), None, ctypes.byref(nbytes))
        table = torch.empty(nbytes.value, dtype=torch.uint8)
        self.call("expert_table", ctypes.byref(packed.struct), table, ctypes.byref(nbytes))
        table = table.to(self.device)
        packed.struct.table = table.data_ptr()
        return replace(packed, kept=(*packed.kept, table))

    def prompt_experts(self, x: Tensor, experts: PackedExperts, chosen: Tensor, shares: Tensor, out: Tensor,
                       add: bool = False, gate: Tensor | None = None) -> None:
        """As `experts`, each expert's rows in one product; waits to hear how many they are."""
        if len(x) < FEWEST_ROWS:
            self.experts(x, experts, chosen, shares, out, add, gate)
            return
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=experts.num_experts).tolist()
        rows = x[order // chosen.shape[1]]
        if experts.struct.scales_input:
            rows *= shares.flatten()[order, None]
        given, first = torch.empty_like(rows), 0
        for expert, count in enumerate(counts):
            part = slice(first, first + count)
            if count:
                self._compute_expert(experts, expert, rows[part], given[part])
            first += count
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=x.device)
        total = torch.zeros_like(x) if gate is None and not add else \
            out.clone() if gate is None else out * gate.view(-1, 1).sigmoid()
        for index, places in enumerate(place.view_as(chosen).T):  # in the order that they were chosen in
            own = given[places]
            total += own if experts.struct.scales_input else own * shares[:, index, None]
        out.copy_(total)

    def _compute_expert(self, experts: PackedExperts, expert: int, x: Tensor, out: Tensor) -> None:
        struct, parts = experts.struct, experts.gate_up[expert]
        inner = torch.empty(len(x), struct.intermediate_size, device=x.device)
        wide = torch.empty(len(x), sum(part.n for part in parts), device=x.device)
        first = 0
        for part in parts:
            self.prompt_linear(x, part, wide[:, first:first + part.n])
            first += part.n
        self.activate(wide, inner, ACTIVATIONS[struct.activation], bool(struct.is_gated))
        self.prompt_linear(inner, experts.down[expert], out)
