"""A linear layer as the kernels want it: one packed weight, or several side by side.

Projections of one input (q, k and v; gate and up) become one weight wherever type, group size and act-order
agree. Knows packed weights and kernels, not files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import Tensor

from model.config import MAX_ADAPTERS
from model.formats.weights import (
    DenseMatrix,
    Float8Matrix,
    GroupMatrix,
    Matrix,
    RoundedMatrix,
    WeightReader,
    join,
    select_rows,
)
from model.kernels.lora import LoraSegment
from model.kernels.operations import Operations, PackedWeight
from model.network.adapters import Adapters
from model.network.modules import Group
from model.network.place import Place


@dataclass(frozen=True)
class Part:
    """The columns first .. last - 1 of the output."""

    weight: PackedWeight
    first: int
    last: int


class Linear:
    """x @ weight^T + bias and an epilogue, in as few kernel calls as the checkpoint allows."""

    def __init__(self, ops: Operations, parts: list[Part]) -> None:
        self._ops, self._linear = ops, ops.linear
        self.prompts = ops.prompts
        self._lora = ops.lora
        self.parts = parts
        self.adapters: Any = None
        """What `pack_lora` returned for the model's adapters; None where no adapter adds anything."""

    def set_adapter(self, number: int, segments: Sequence[LoraSegment], k: int) -> bool:
        """What the adapter of this number adds from now on. Whether steps now make a call that they did not:
        what is recorded of them is out of date."""
        is_new = self.adapters is None and bool(segments)
        if is_new:
            self.adapters = self._ops.pack_lora([], self.n, k, MAX_ADAPTERS)
        if self.adapters is not None:
            self._ops.put_lora(self.adapters, number, segments)
        return is_new

    @property
    def n(self) -> int:
        return self.parts[-1].last

    @property
    def nbytes(self) -> int:
        return sum(part.weight.nbytes for part in self.parts)

    def __call__(self, x: Tensor, out: Tensor, norm: Tensor | None = None, eps: float = 0.0,
                 epilogue: str = "store", *, of_prompts: bool = False, precise: int = 0,
                 row_adapters: Tensor | None = None) -> None:
        """x float32 [T, k], out float32 [T, n]; rows of both may be strided.

        norm and epilogue are those of `linear` in model/kernels. silu_mul: the layer is gate and up, in one
        part or in two; no adapter of theirs can be added then. of_prompts: the device may have a way of its
        own for such rows; `precise` of their outputs are not to suffer from it: see PromptOperations.
        row_adapters: see StepInput.
        """
        prompts = self.prompts if of_prompts else None

        def multiply(part: Part, out: Tensor, epilogue: str) -> None:
            if prompts is None:
                self._linear(x, part.weight, out, norm, eps, epilogue)
            else:
                prompts.prompt_linear(x, part.weight, out, norm, eps, epilogue, max(0, precise - part.first))

        if len(self.parts) == 1:
            multiply(self.parts[0], out, epilogue)
        elif epilogue == "silu_mul":
            gate, up = self.parts
            multiply(gate, out, "store")
            multiply(up, out, "gate")
        else:
            for part in self.parts:
                multiply(part, out[:, part.first:part.last], epilogue)
        if row_adapters is not None and self.adapters is not None:
            self._lora(x, row_adapters, self.adapters, out, norm, eps)


def run_mlp(gate_up: Linear, down: Linear, x: Tensor, inner: Tensor, out: Tensor, norm: Tensor | None,
            eps: float, epilogue: str, *, of_prompts: bool, row_adapters: Tensor | None) -> None:
    """out = down(silu(gate) * up), or out += that: see Linear. inner float32 [T, k of down]; out may be x. No
    adapter may add to gate and up."""
    prompts = gate_up.prompts if of_prompts else None
    has_adapters = row_adapters is not None and down.adapters is not None
    if prompts is not None and len(gate_up.parts) == len(down.parts) == 1 and not has_adapters:
        prompts.prompt_mlp(x, gate_up.parts[0].weight, inner, down.parts[0].weight, out, norm, eps, epilogue)
        return
    gate_up(x, inner, norm, eps, "silu_mul", of_prompts=of_prompts)
    down(inner, out, epilogue=epilogue, of_prompts=of_prompts, row_adapters=row_adapters)


def load_linear(place: Place, reader: WeightReader, group: Group, exact: bool,
                adapters: Adapters | None = None) -> Linear:
    """Read and pack modules of one input, in order, and what adapters add to them."""
    def read() -> list[Matrix]:
        matrices = {name: reader.matrix(name, n, group.k, place.device) for name, n in group.modules.items()}
        parts = [matrices[piece.module] if len(piece.rows) == matrices[piece.module].n
                 and isinstance(piece.rows, range) else select_rows(matrices[piece.module], piece.rows)
                 for piece in group.pieces]
        return parts or list(matrices.values())

    linear = packed(place, " ".join(group.modules), read, exact or group.is_exact)
    if adapters is not None:
        if added := adapters.of(group):
            linear.adapters = place.ops.pack_lora(added, linear.n, group.k, MAX_ADAPTERS)
        adapters.note(group, place, linear.set_adapter)
    return linear


def packed(place: Place, name: str, read: Callable[[], list[Matrix]], exact: bool) -> Linear:
    """Of the matrices that `read` returns, side by side, or what the place's store has under that name."""
    weights = place.weights(name, lambda: pack(place.ops, read(), exact))
    ends = accumulate(weight.n for weight in weights)
    return Linear(place.ops, [Part(weight, end - weight.n, end)
                              for weight, end in zip(weights, ends, strict=True)])


def pack(ops: Operations, matrices: list[Matrix], exact: bool) -> list[PackedWeight]:
    """Join what can be joined and hand it to the kernels. The list is empty then."""
    weights: list[PackedWeight] = []
    joined = join(matrices)
    matrices.clear()  # the parts are copied into the joined ones: let go of them before packing
    while joined:
        weights.append(_packed(ops, joined.pop(0), exact))
    return weights


def _packed(ops: Operations, matrix: Matrix, exact: bool) -> PackedWeight:
    if isinstance(matrix, DenseMatrix):
        return ops.pack_dense(matrix.weight, bias=matrix.bias, exact=exact)
    if isinstance(matrix, Float8Matrix):
        return ops.pack_float8(matrix.float8, bias=matrix.bias, exact=exact)
    if isinstance(matrix, RoundedMatrix):
        return ops.pack_group_rows(matrix.rows(ops.round_groups), bias=matrix.bias, exact=exact)
    if isinstance(matrix, GroupMatrix):
        return ops.pack_group_rows(matrix.rows, bias=matrix.bias, exact=exact)
    return ops.pack_linear(matrix.codes, matrix.scales, matrix.zeros, matrix.group_size, bits=matrix.bits,
                           perm=matrix.perm, bias=matrix.bias, exact=exact)
