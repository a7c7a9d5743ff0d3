"""bitsandbytes checkpoints: nf4, fp4 and int8.

For a Linear with k inputs and n outputs the file holds
  4 bits  weight uint8 [n * k / 2, 1]   row by row, high nibble first, into
          weight.quant_map float32 [16];  weight.absmax: a factor for each `blocksize` numbers
          weight.quant_state.bitsandbytes__nf4 (or __fp4): JSON with blocksize and shape, as uint8
          double quantization: weight.absmax uint8 into weight.nested_quant_map [256], times
          weight.nested_absmax, one for each nested_blocksize, plus nested_offset
  8 bits  weight int8 [n, k], SCB float32 [n]: number = code * SCB / 127
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from model.config import shown
from model.files import ModelLoadError
from model.formats.plain import FLOATS
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import CPU, GroupMatrix, Matrix, MatrixInfo, QuantizedMatrix
from model.formats.widened import WideningReader
from model.kernels.groups import TABLE_ZEROS, GroupRows, Groups

_STATES = (".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4")
_MAX_STATE = 4096
_MOST = TABLE_ZEROS["w4"] - 1


class BitsAndBytesReader(WideningReader):
    """Quantized modules, and plain ones beside them."""

    def __init__(self, folder: TensorFolder, exact: bool) -> None:
        super().__init__(folder, exact)
        self.is_exact = exact

    def describe(self) -> str:
        names = self.folder.tensors
        kind = next((state[-3:] for state in _STATES if any(name.endswith(state) for name in names)), "int8")
        return f"bitsandbytes {kind}"

    def is_quantized(self, name: str) -> bool:
        return self._state(name) is not None or name + ".SCB" in self.folder

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        if self._state(name) is not None:
            size = self._check_4_bits(name, n, k)["blocksize"]
            widened = self.wide_info(name, n, k)
            if not self._keeps_codes(size, k):
                return widened
            return MatrixInfo("w4", n * (k // 2 + k // size * 2 + 4), widened)
        if name + ".SCB" not in self.folder:
            return super().matrix_info(name, n, k)
        self._check_bias(name, n)
        self._check_8_bits(name, n, k)
        return MatrixInfo("q8", n * k + n * 2)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        if self._state(name) is not None:
            return self._matrix_of_4_bits(name, n, k, device)
        if name + ".SCB" not in self.folder:
            return super().matrix(name, n, k, device)
        self._check_8_bits(name, n, k)
        codes = self.folder.read(name + ".weight").to(device).view(torch.uint8) ^ 0x80
        scales = (self.folder.read(name + ".SCB").float() / 127).to(device, torch.float16).view(n, 1)
        zeros = torch.full((n, 1), 128, dtype=torch.uint8, device=device)
        return QuantizedMatrix(codes, scales, zeros, k, 8, None, self.bias(name, n, device))

    def _state(self, name: str) -> str | None:
        return next((name + state for state in _STATES if name + state in self.folder), None)

    def _check_8_bits(self, name: str, n: int, k: int) -> None:
        self.folder.check(name + ".weight", (n, k), (torch.int8,))
        self.folder.check(name + ".SCB", (n,), (torch.float32,))

    def _check_4_bits(self, name: str, n: int, k: int) -> dict[str, Any]:
        """The quant state. Raises ModelLoadError."""
        state_name = self._state(name)
        assert state_name is not None
        info = self.folder.info(state_name)
        if info.dtype != torch.uint8 or info.nbytes > _MAX_STATE:
            raise ModelLoadError(f"{state_name} is {info.dtype} {list(info.shape)}; expected up to "
                                 f"{_MAX_STATE} bytes")
        try:
            state = json.loads(bytes(self.folder.read(state_name).tolist()))
        except (ValueError, RecursionError):
            raise ModelLoadError(f"{state_name} is no valid JSON") from None
        if not isinstance(state, dict) or state.get("shape") != [n, k]:
            raise ModelLoadError(f"{state_name} is {shown(state)}; expected an object with the shape "
                                 f"[{n}, {k}]")
        for key in ("blocksize", *(["nested_blocksize"] if self._is_nested(name) else [])):
            size = state.get(key)
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1 << 20:
                raise ModelLoadError(f"{state_name}: {key} is {shown(size)}; expected a positive number")
        if n * k % state["blocksize"] or k % 2:
            raise ModelLoadError(f"{name} has {n} x {k} weights; expected whole blocks of "
                                 f"{state['blocksize']}")
        self.folder.check(name + ".weight", (n * k // 2, 1), (torch.uint8,))
        self.folder.check(name + ".weight.quant_map", (16,), (torch.float32,))
        blocks = (n * k // state["blocksize"],)
        if not self._is_nested(name):
            self.folder.check(name + ".weight.absmax", blocks, tuple(FLOATS))
            return state
        self.folder.check(name + ".weight.absmax", blocks, (torch.uint8,))
        self.folder.check(name + ".weight.nested_quant_map", (256,), (torch.float32,))
        outer = (-(-blocks[0] // state["nested_blocksize"]),)
        self.folder.check(name + ".weight.nested_absmax", outer, tuple(FLOATS))
        if not isinstance(state.get("nested_offset"), int | float):
            raise ModelLoadError(f"{state_name}: nested_offset is {shown(state.get('nested_offset'))}; "
                                 "expected a number")
        return state

    def _is_nested(self, name: str) -> bool:
        return name + ".weight.nested_absmax" in self.folder

    def _keeps_codes(self, size: int, k: int) -> bool:
        """Whether the kernels take codes and table; not exactly, for factors become float16."""
        return not self.is_exact and size >= 32 and size & (size - 1) == 0 and k % size == 0

    def _matrix_of_4_bits(self, name: str, n: int, k: int, device: torch.device) -> Matrix:
        state = self._check_4_bits(name, n, k)
        packed = self.folder.read(name + ".weight").to(device).view(n, k // 2)
        values = self.folder.read(name + ".weight.quant_map")
        factors = self._factors(name, state).to(device)
        size = state["blocksize"]
        if self._keeps_codes(size, k):
            codes = torch.stack((packed >> 4, packed & 15), -1).view(n, k)
            table, step = whole_numbers(values)
            largest = float(factors.abs().max()) or 1.0  # so that none is too small for float16
            scales = (factors / largest).to(torch.float16).view(n, k // size)
            outputs = torch.full((n,), step * largest, device=device)
            groups = Groups(codes, 4, size, scales, table=table, factors=outputs)
            return GroupMatrix(GroupRows.of(groups), self.bias(name, n, device))
        values = values.to(device)

        def numbers(first: int, last: int) -> Tensor:
            rows = packed[first:last]
            codes = torch.stack((rows >> 4, rows & 15), -1).view(last - first, k)
            place = torch.arange(first * k, last * k, device=device) // size
            return values[codes.int()] * factors[place].view(last - first, k)

        return self.wide_matrix(name, n, k, numbers, device)

    def _factors(self, name: str, state: dict[str, Any]) -> Tensor:
        """float32, one for each block."""
        absmax = self.folder.read(name + ".weight.absmax")
        if not self._is_nested(name):
            return absmax.float()
        outer = self.folder.read(name + ".weight.nested_absmax").float()
        values = self.folder.read(name + ".weight.nested_quant_map")[absmax.int()]
        outer = outer.repeat_interleave(state["nested_blocksize"])[:len(values)]
        return values * outer + state["nested_offset"]


def whole_numbers(values: Tensor) -> tuple[tuple[int, ...], float]:
    """(numbers, step) with values = numbers * step but for rounding, which is as small as 15 bits allow."""
    largest = float(values.abs().max())
    if largest == 0:
        return (0,) * len(values), 0.0
    limits = torch.arange(_MOST // 2, _MOST + 1, dtype=torch.float64).unsqueeze(1)  # of the largest number
    wanted = values.double() / largest * limits
    errors = ((wanted - wanted.round()).abs() / limits).amax(1)
    best = int(errors.argmin())
    numbers = tuple(int(number) for number in wanted[best].round())
    return numbers, largest / float(limits[best])
