"""EXL2 (exllamav2): 2, 3, 4, 5, 6 and 8 bits mixed within a matrix, by groups of inputs.

For a Linear with k inputs and n outputs, which are padded to a multiple of 32, the file holds
  q_weight     int32 [words, n]      a group's codes along k, lowest bits first, from a word of its own on
  q_groups     int16 [2 * groups]    of each group its bits and its first row of q_weight
  q_scale      int32 [groups, n / 8] four bits s for each output
  q_scale_max  float16 [groups]      the scale is (s + 1)^2 / 256 of it
  q_invperm    [k]                   where each input stands among the codes
  bias         [n], optional
weight = (code - half of the codes) * scale. Groups of more bits come first; all are whole units of 32
inputs, but the last one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from model.files import ModelLoadError
from model.formats.gptq import unpack
from model.formats.plain import PlainReader
from model.formats.weights import CPU, Matrix, MatrixInfo, QuantizedMatrix

_BITS = (2, 3, 4, 5, 6, 8)
_PADDED_OUTPUTS = 32
_BYTES_PER_GROUP = 4  # scale and zero point, float16 each


@dataclass(frozen=True)
class _Layout:
    """How the inputs of a module are stored."""

    bits: list[int]    # of each group
    inputs: list[int]  # of each group: how many
    words: list[int]   # of each group: how many rows of q_weight
    size: int          # of the groups that all of them are taken apart to
    outputs: int       # with those that only fill up

    @property
    def kept_bits(self) -> int:
        """One number for the whole matrix."""
        return 4 if max(self.bits) <= 4 else 8


class Exl2Reader(PlainReader):
    """Quantized modules, and plain ones beside them."""

    def describe(self) -> str:
        """Like 'EXL2 with 4.25 bits', scales included."""
        stored = weights = 0
        for name, info in self.folder.tensors.items():
            module, _, part = name.rpartition(".")
            if part in ("q_weight", "q_scale"):
                stored += 8 * info.nbytes
            if part == "q_weight" and module + ".q_invperm" in self.folder:
                weights += info.shape[-1] * math.prod(self.folder.info(module + ".q_invperm").shape)
        return f"EXL2 with {stored / max(weights, 1):.2f} bits"

    def is_quantized(self, name: str) -> bool:
        return name + ".q_weight" in self.folder

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        if not self.is_quantized(name):
            return super().matrix_info(name, n, k)
        self._check_bias(name, n)
        layout = self._layout(name, n, k)
        kept, groups = layout.kept_bits, -(-k // layout.size)
        return MatrixInfo(f"q{kept}", n * k * kept // 8 + n * groups * _BYTES_PER_GROUP)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        if not self.is_quantized(name):
            return super().matrix(name, n, k, device)
        layout = self._layout(name, n, k)
        codes = self._codes(name, layout, n, device)
        parts = torch.tensor([-(-inputs // layout.size) for inputs in layout.inputs], device=device)
        zeros = torch.tensor([1 << (bits - 1) for bits in layout.bits], dtype=torch.uint8, device=device)
        scales = self._scales(name, layout, n, device).repeat_interleave(parts, 1)
        return QuantizedMatrix(codes, scales, zeros.repeat_interleave(parts).repeat(n, 1), layout.size,
                               layout.kept_bits, self._order(name, k, device), self.bias(name, n, device))

    def _layout(self, name: str, n: int, k: int) -> _Layout:
        """Checked against the shapes. Raises ModelLoadError."""
        shape = self.folder.info(name + ".q_weight").shape
        words, outputs = shape if len(shape) == 2 else (0, 0)
        if outputs not in (n, n + -n % _PADDED_OUTPUTS):
            raise ModelLoadError(f"{name}.q_weight is {list(shape)}; expected {n} outputs, or as many as "
                                 f"fill up to a multiple of {_PADDED_OUTPUTS}")
        self.folder.check(name + ".q_weight", shape, (torch.int32,))
        found = self.folder.info(name + ".q_groups").shape
        count = found[0] // 2 if len(found) == 1 else 0
        self.folder.check(name + ".q_groups", (2 * count,), (torch.int16,))
        if not 1 <= count <= k:
            raise ModelLoadError(f"{name}.q_groups is {list(found)}; expected two numbers of each group")
        self.folder.check(name + ".q_scale", (count, outputs // 8), (torch.int32,))
        self.folder.check(name + ".q_scale_max", (count,), (torch.float16,))
        groups = self.folder.read(name + ".q_groups").view(-1, 2).int() & 0xFFFF
        bits, starts = groups[:, 0].tolist(), [*groups[:, 1].tolist(), words]
        rows = [after - first for first, after in pairwise(starts)]
        inputs = [32 * own // own_bits if own_bits else 0 for own, own_bits in zip(rows, bits, strict=True)]
        inputs[-1] = k - sum(inputs[:-1])
        is_whole = all(own > 0 and own % own_bits == 0 for own, own_bits in zip(rows[:-1], bits, strict=False)
                       if own_bits)
        if starts[0] != 0 or not set(bits) <= set(_BITS) or not is_whole or inputs[-1] < 1 \
                or rows[-1] != -(-inputs[-1] * bits[-1] // 32):
            raise ModelLoadError(f"{name}.q_groups does not fit {k} inputs in {words} words an output; "
                                 f"expected groups of {', '.join(map(str, _BITS))} bits, one after the other")
        return _Layout(bits, inputs, rows, math.gcd(*inputs[:-1]) if count > 1 else k, outputs)

    def _codes(self, name: str, layout: _Layout, n: int, device: torch.device) -> Tensor:
        """uint8 [n, k], in the order of the groups."""
        words = self.folder.read(name + ".q_weight").to(device)[:, :n].t()
        codes, first = [], 0
        for bits, inputs, count in zip(layout.bits, layout.inputs, layout.words, strict=True):
            own = words[:, first:first + count]
            own = torch.nn.functional.pad(own, (0, -count % bits)).contiguous()
            codes.append(unpack(own, bits)[:, :inputs])
            first += count
        return torch.cat(codes, 1)

    def _scales(self, name: str, layout: _Layout, n: int, device: torch.device) -> Tensor:
        """float16 [n, groups]."""
        largest = self.folder.read(name + ".q_scale_max").to(device).float()
        steps = unpack(self.folder.read(name + ".q_scale").to(device), 4)[:, :n].float() + 1
        return (steps.square() * (largest / 256).unsqueeze(1)).half().t().contiguous()

    def _order(self, name: str, k: int, device: torch.device) -> Tensor | None:
        """int32 [k]: the input that each code multiplies; None: as they stand."""
        if name + ".q_invperm" not in self.folder:
            return None
        self.folder.check(name + ".q_invperm", (k,), (torch.int32, torch.int16))
        places = self.folder.read(name + ".q_invperm").int()
        places = places & 0xFFFF if k > 1 << 15 else places
        order = places.argsort()
        standing = torch.arange(k, dtype=torch.int32)
        if not torch.equal(places[order], standing):
            raise ModelLoadError(f"{name}.q_invperm is no order of {k} inputs; expected each number once")
        return None if torch.equal(places, standing) else order.int().to(device)
