"""Linear layers on the GPU: by the library's own kernels, many rows of prompts by torch's product in float16.

Packing runs on the GPU, see cuda/linear_pack.cu; the meaning of every function is reference/linear.py.

`linear` never lets a row's result depend on the others. Decoding uses nothing else, so who else is served
changes no bit of a token that is decoded. `prompt_linear` gives that up where keeping it would cost most:
which of torch's products runs depends on the number of rows. So the keys of a long prompt may differ in their
last bits with the chunks that it is read in, and those depend on the other requests.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.kernels.crossover import ROWS, Crossovers, find_crossover
from model.kernels.float8 import Float8, check_float8
from model.kernels.groups import GroupRows, Groups, check_groups
from model.kernels.linear import LinearOperations, LinearWeight, WeightStruct
from model.kernels.linear_checks import EPILOGUES, check_linear
from model.kernels.rounding import round_groups

SCRATCH_BYTES = 256 << 20
"""Of a weight that is dequantized, this much at a time."""
TILE = 16
_MEASURED = 4
"""Weights of a shape that are used in turn where it is measured."""
_DENSE_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


class CudaLinearOperations(LinearOperations):
    """pack_linear, pack_dense and linear; the class that inherits them has a library and a stream."""

    device: str
    crossovers: Crossovers
    _kept: dict[int, Tensor]
    """By address of the packed weight, its copy in float16: see keep_in_float16."""
    _bounds: dict[int, Tensor]
    """By the same, float32 [1] on the GPU: the largest 2-norm of what one output is multiplied by."""

    def pack_linear(self, codes: Tensor, scales: Tensor, zeros: Tensor, group_size: int, bits: int = 4,
                    perm: Tensor | None = None, bias: Tensor | None = None,
                    exact: bool = False) -> LinearWeight:
        """As LinearOperations.pack_linear, of parts on any device. `exact`: activations are two float16."""
        codes, scales, zeros = (part.to(self.device) for part in (codes, scales, zeros))
        return super().pack_linear(codes, scales, zeros, group_size, bits, self._moved(perm),
                                   self._moved(bias), exact)

    def pack_groups(self, groups: Groups, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
        """As LinearOperations.pack_groups, but codes become 4, 8 or 16 bits: see Groups.widened."""
        check_groups(groups)
        wide = groups.widened()
        if isinstance(wide, Tensor):
            return self.pack_dense(wide, bias, exact)
        codes, scales, zeros, bits = wide
        return self.pack_linear(codes, scales, zeros, groups.size, bits, None, bias, exact)

    def round_groups(self, values: Tensor, bits: int) -> Groups:
        return round_groups(values, bits)

    def pack_group_rows(self, rows: GroupRows, bias: Tensor | None = None,
                        exact: bool = False) -> LinearWeight:
        return self.pack_groups(rows.read(0, rows.n), bias, exact)

    def pack_float8(self, weight: Float8, bias: Tensor | None = None, exact: bool = False) -> LinearWeight:
        """They become float16, or float32 if that is exact."""
        check_float8(weight)
        return self.pack_dense(weight.dequantize().to(torch.float32 if exact else torch.float16), bias, exact)

    def pack_dense(self, weight: Tensor, bias: Tensor | None = None,
                   exact: bool = False) -> LinearWeight:
        return super().pack_dense(weight.to(self.device), self._moved(bias), exact)

    def _pack(self, function: str, struct: WeightStruct, sources: list[Tensor], bias: Tensor | None,
              perm: Tensor | None) -> LinearWeight:
        """Ends when the weight is there: from compute capability 9.0 on a product reads weights before the
        kernel in front of it has ended."""
        weight = super()._pack(function, struct, sources, bias, perm)
        if self.device != "cpu":
            torch.cuda.current_stream().synchronize()
        return weight

    def prompt_linear(self, x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None = None,
                      eps: float = 0.0, epilogue: str = "store", precise: int = 0) -> None:
        """As linear, but from the weight's crossover on by torch; weights that are exact or float32 never.
        Factors are float16: all outputs are `precise`."""
        if len(x) < self.crossovers.rows(weight, self._is_kept(weight)):
            self.linear(x, weight, out, norm, eps, epilogue)
        else:
            self.multiply_dequantized(x, weight, out, norm, eps, epilogue)

    def prompt_mlp(self, x: Tensor, gate_up: LinearWeight, inner: Tensor, down: LinearWeight, out: Tensor,
                   norm: Tensor | None = None, eps: float = 0.0, epilogue: str = "store") -> None:
        self.prompt_linear(x, gate_up, inner, norm, eps, "silu_mul")
        self.prompt_linear(inner, down, out, epilogue=epilogue)

    def keep_in_float16(self, weights: Sequence[LinearWeight], nbytes: int) -> None:
        """Keep as many of these in float16 as well as `nbytes` have room for: prompts need not dequantize
        them then."""
        for weight in weights:
            size = 2 * weight.n * self._columns(weight)
            if weight.kind not in ("f16", "f32") and not weight.struct.exact and size <= nbytes:
                self._kept[weight.struct.codes] = self._dequantized(weight, 0, weight.n)
                nbytes -= size

    def _is_kept(self, weight: LinearWeight) -> bool:
        return weight.struct.codes in self._kept

    def _bound(self, weight: LinearWeight) -> Tensor:
        """Found when it is first needed."""
        if weight.struct.codes not in self._bounds:
            norms = [torch.linalg.vector_norm(self._dequantized(weight, *piece), dim=1, dtype=torch.float32)
                     for piece in self._pieces(weight)]
            self._bounds[weight.struct.codes] = torch.cat(norms).max()[None]
        return self._bounds[weight.struct.codes]

    def measure_crossovers(self, weights: Sequence[LinearWeight]) -> None:
        """Find out how prompts are best multiplied by a model's weights, where that is not known yet."""
        unknown = self.crossovers.unknown(weights, self._is_kept)
        self.crossovers.keep({name: find_crossover(*self.both_ways(same)) for name, same in unknown.items()})

    def both_ways(self, weights: Sequence[LinearWeight]) -> tuple[list[float], list[float]]:
        """Milliseconds of a product for each of ROWS, directly and dequantized. The weights have one shape;
        some of them are used in turn, so that no cache holds them."""
        assert self.crossovers.clock is not None
        some = weights[:_MEASURED]
        times: tuple[list[float], list[float]] = [], []
        for rows in ROWS:
            x = torch.randn(rows, some[0].k, device=self.device)
            out = torch.empty(rows, some[0].n, device=self.device)
            for multiply, found in zip((self.linear, self.multiply_dequantized), times, strict=True):
                def run(multiply: Any = multiply, x: Tensor = x, out: Tensor = out) -> None:
                    for weight in some:
                        multiply(x, weight, out)

                found.append(self.crossovers.clock(run) / len(some))
        return times

    def multiply_dequantized(self, x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None = None,
                             eps: float = 0.0, epilogue: str = "store") -> None:
        """The weight in float16, a piece at a time, and torch's product."""
        check_linear(x, weight.n, weight.k, out, norm, epilogue)
        struct, m = ctypes.byref(weight.struct), len(x)
        staged = torch.empty(m, weight.struct.padded_k, dtype=torch.float16, device=self.device)
        factors = torch.empty(m, device=self.device)
        self.call("linear_stage", x, x.stride(0), m, norm, eps, struct, staged, factors, self.stream)
        product = self._multiplied(staged, weight, torch.float32)
        self.call("linear_finish", product, factors, m, struct, out, out.stride(0),
                  EPILOGUES.index(epilogue), self.stream)

    def _multiplied(self, staged: Tensor, weight: LinearWeight, dtype: torch.dtype) -> Tensor:
        """staged @ weight^T of float16, summed in float32; the weight a piece at a time."""
        pieces = self._pieces(weight)
        if len(pieces) == 1:
            part = self._dequantized(weight, 0, weight.n)
            return self._product(staged[:, :part.shape[1]], part, dtype)
        product = torch.empty(len(staged), weight.n, dtype=dtype, device=self.device)
        for first, count in pieces:
            part = self._dequantized(weight, first, count)
            product[:, first:first + count] = self._product(staged[:, :part.shape[1]], part, dtype)
        return product

    def _pieces(self, weight: LinearWeight) -> list[tuple[int, int]]:
        """(first output, number of outputs) that SCRATCH_BYTES have room for in float16, or all."""
        if weight.kind == "f16" or self._is_kept(weight):
            return [(0, weight.n)]
        at_once = max(TILE, SCRATCH_BYTES // (2 * weight.struct.padded_k) // TILE * TILE)
        return [(first, min(at_once, weight.n - first)) for first in range(0, weight.n, at_once)]

    def _columns(self, weight: LinearWeight) -> int:
        """Of the weight in float16, in linear_stage's order."""
        return weight.k if weight.kind in _DENSE_DTYPES else weight.struct.padded_k

    def _dequantized(self, weight: LinearWeight, first: int, count: int) -> Tensor:
        """float16 [count, columns]: outputs first .. first + count - 1."""
        if (kept := self._kept.get(weight.struct.codes)) is not None:
            return kept[first:first + count]
        if dtype := _DENSE_DTYPES.get(weight.kind):
            values = weight.buffer.view(dtype)[first * weight.k:(first + count) * weight.k]
            return values.view(count, weight.k).half()
        part = torch.empty(count, weight.struct.padded_k, dtype=torch.float16, device=self.device)
        self.call("linear_dequantize", ctypes.byref(weight.struct), first, count, part, self.stream)
        return part

    def _product(self, staged: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """staged @ weight^T of float16 matrices, summed in float32."""
        if self.device == "cpu":
            return (staged.float() @ weight.float().T).to(dtype)
        if dtype == staged.dtype:
            return torch.mm(staged, weight.T)
        return torch.mm(staged, weight.T, out_dtype=dtype)

    def _moved(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self.device)

    def _new_buffer(self, nbytes: int) -> Tensor:
        """uint8 [nbytes], aligned for every kernel."""
        memory = torch.empty(nbytes + 256, dtype=torch.uint8, device=self.device)
        start = -memory.data_ptr() % 256
        return memory[start:start + nbytes]
