"""AWQ checkpoints in the GEMM layout (AutoAWQ, auto-round): 4 bits.

For a Linear with k inputs and n outputs the file holds
  qweight  int32 [k, n / 8]       eight outputs a word: output 8 j + ORDER[i] in its nibble i
  qzeros   int32 [groups, n / 8]  zero points, packed alike
  scales   float16 [groups, n];   weight = (code - zero) * scale
Source: pack_intweight's counterpart in AutoAWQ's awq/modules/linear/gemm.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.config import shown
from model.files import ModelLoadError
from model.formats.plain import FLOATS, PlainReader
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import CPU, Matrix, MatrixInfo, QuantizedMatrix

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class AwqReader(PlainReader):
    """Quantized modules, and plain ones beside them. `settings` is config.json's quantization_config."""

    def __init__(self, folder: TensorFolder, settings: dict[str, Any]) -> None:
        super().__init__(folder)
        bits, version = settings.get("bits", settings.get("w_bit", 4)), settings.get("version", "gemm")
        if bits != 4 or isinstance(bits, bool):
            raise ModelLoadError(f"AWQ with bits {shown(bits)}; supported: 4")
        if not isinstance(version, str) or version.lower() != "gemm":
            raise ModelLoadError(f"AWQ with version {shown(version)}; supported: gemm")
        self.group_size = settings.get("group_size", settings.get("q_group_size", 128))
        if isinstance(self.group_size, bool) or not isinstance(self.group_size, int):
            raise ModelLoadError(f"AWQ with group_size {shown(self.group_size)}; expected a number")

    def describe(self) -> str:
        return f"4-bit AWQ g{self.group_size}"

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        if not self.is_quantized(name):
            return super().matrix_info(name, n, k)
        self._check_bias(name, n)
        groups = self._num_groups(name, n, k)
        return MatrixInfo("q4", n * k // 2 + n * groups * 3)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        if not self.is_quantized(name):
            return super().matrix(name, n, k, device)
        groups = self._num_groups(name, n, k)
        codes = unpack(self.folder.read(name + ".qweight").to(device))
        scales = self.folder.read(name + ".scales").to(torch.float16)
        if not torch.isfinite(scales).all():
            raise ModelLoadError(f"{name}.scales holds numbers that are not finite in float16")
        zeros = torch.full((groups, n), 8, dtype=torch.uint8, device=device)
        if name + ".qzeros" in self.folder:
            zeros = unpack(self.folder.read(name + ".qzeros").to(device))
        return QuantizedMatrix(codes.t().contiguous(), scales.to(device).t().contiguous(),
                               zeros.t().contiguous(), k // groups, 4, None, self.bias(name, n, device))

    def _num_groups(self, name: str, n: int, k: int) -> int:
        """Checks the shapes, too. Raises ModelLoadError."""
        if n % 8:
            raise ModelLoadError(f"{name} has {n} outputs; AWQ packs eight a word")
        self.folder.check(name + ".qweight", (k, n // 8), (torch.int32,))
        shape = self.folder.info(name + ".scales").shape
        groups = shape[0] if shape else 0
        if groups < 1 or k % groups:
            raise ModelLoadError(f"{name}.scales has {groups} groups for {k} inputs; expected a divisor")
        self.folder.check(name + ".scales", (groups, n), tuple(FLOATS))
        if name + ".qzeros" in self.folder:
            self.folder.check(name + ".qzeros", (groups, n // 8), (torch.int32,))
        return groups


def unpack(words: Tensor) -> Tensor:
    """int32 [rows, w] -> uint8 [rows, 8 w]."""
    codes = words.new_empty(*words.shape, 8, dtype=torch.uint8)
    for nibble, output in enumerate(ORDER):
        codes[..., output] = (words >> (4 * nibble) & 15).to(torch.uint8)
    return codes.view(len(words), -1)
