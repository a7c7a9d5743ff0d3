"""Linear layers on the GPU: few rows by the library's own kernels, many by torch's matrix product in float16.

Packing runs on the GPU, see cuda/linear_pack.cu; the meaning of every function is linear_reference.py.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from model.kernels.linear import LinearOperations, LinearWeight, WeightStruct
from model.kernels.linear_reference import EPILOGUES, check_linear

MOST_ROWS = 64
"""More rows are multiplied by torch, unless the weight is exact or float32. To be measured on each device."""
SCRATCH_BYTES = 256 << 20
"""Of a weight that is dequantized, this much at a time."""
TILE = 16
_DENSE_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


class CudaLinearOperations(LinearOperations):
    """pack_linear, pack_dense and linear; the class that inherits them has a library and a stream."""

    device: str

    def pack_linear(self, codes: Tensor, scales: Tensor, zeros: Tensor, group_size: int, bits: int = 4,
                    perm: Tensor | None = None, bias: Tensor | None = None,
                    exact: bool = False) -> LinearWeight:
        """As LinearOperations.pack_linear, of parts on any device. `exact`: activations are two float16."""
        codes, scales, zeros = (part.to(self.device) for part in (codes, scales, zeros))
        return super().pack_linear(codes, scales, zeros, group_size, bits, self._moved(perm),
                                   self._moved(bias), exact)

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

    def linear(self, x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None = None,
               eps: float = 0.0, epilogue: str = "store") -> None:
        """As LinearOperations.linear. Up to MOST_ROWS rows do not depend on each other, to the bit."""
        if len(x) > MOST_ROWS and weight.kind != "f32" and not weight.struct.exact:
            check_linear(x, weight.n, weight.k, out, norm, epilogue)
            self.multiply_dequantized(x, weight, out, norm, eps, epilogue)
        else:
            super().linear(x, weight, out, norm, eps, epilogue)

    def multiply_dequantized(self, x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None,
                           eps: float, epilogue: str) -> None:
        struct, m = ctypes.byref(weight.struct), len(x)
        staged = torch.empty(m, weight.struct.padded_k, dtype=torch.float16, device=self.device)
        factors = torch.empty(m, device=self.device)
        product = torch.empty(m, weight.n, device=self.device)
        self.call("linear_stage", x, x.stride(0), m, norm, eps, struct, staged, factors, self.stream)
        at_once = max(TILE, SCRATCH_BYTES // (2 * weight.struct.padded_k) // TILE * TILE)
        for first in range(0, weight.n, at_once):
            count = min(at_once, weight.n - first)
            part = self._dequantized(weight, first, count)
            product[:, first:first + count] = self._product(staged[:, :part.shape[1]], part)
        self.call("linear_finish", product, factors, m, struct, out, out.stride(0),
                  EPILOGUES.index(epilogue), self.stream)

    def _dequantized(self, weight: LinearWeight, first: int, count: int) -> Tensor:
        """float16 [count, columns]: outputs first .. first + count - 1, columns in linear_stage's order."""
        if dtype := _DENSE_DTYPES.get(weight.kind):
            values = weight.buffer.view(dtype)[first * weight.k:(first + count) * weight.k]
            return values.view(count, weight.k).half()
        part = torch.empty(count, weight.struct.padded_k, dtype=torch.float16, device=self.device)
        self.call("linear_dequantize", ctypes.byref(weight.struct), first, count, part, self.stream)
        return part

    def _product(self, staged: Tensor, weight: Tensor) -> Tensor:
        """float32 staged @ weight^T of float16 matrices, summed in float32."""
        if self.device == "cpu":
            return staged.float() @ weight.float().T
        return torch.mm(staged, weight.T, out_dtype=torch.float32)

    def _moved(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self.device)

    def _new_buffer(self, nbytes: int) -> Tensor:
        memory = torch.empty(nbytes + 256, dtype=torch.uint8, device=self.device)
        start = -memory.data_ptr() % 256
        return memory[start:start + nbytes]
