"""MXFP4 as gpt-oss's folders have it: the experts of a layer in one tensor, outputs first.

For k inputs and n outputs of an expert the file holds
  module_blocks  uint8 [experts, n, k / 32, 16]: two E2M1 numbers a byte, the first in the low bits
  module_scales  uint8 [experts, n, k / 32]: 2 to the power of it - 127
  module_bias    [experts, n]
All else is plain.
"""

from __future__ import annotations

import torch

from model.files import ModelLoadError
from model.formats.ggml_types import FP4_VALUES
from model.formats.plain import PlainReader
from model.formats.weights import CPU, GroupMatrix, Matrix, MatrixInfo
from model.kernels.groups import GroupRows, Groups

_GROUP = 32
_NO_NUMBER = 255
"""What a scale that is NaN looks like."""


class Mxfp4Reader(PlainReader):
    """MXFP4 experts, named module#3 or module~#3, and plain modules beside them."""

    def describe(self) -> str:
        return "MXFP4"

    def is_quantized(self, name: str) -> bool:
        return _part(name, "blocks") in self.folder

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        if not self.is_quantized(name):
            return super().matrix_info(name, n, k)
        self._check(name, n, k)
        self._check_bias(name, n)
        # a number for each output halves the table's; without kernels for tables codes take 8 bits
        return MatrixInfo("t4", n * (k // 2 + k // _GROUP + 4), MatrixInfo("q8", n * (k + k // _GROUP * 4)))

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        if not self.is_quantized(name):
            return super().matrix(name, n, k, device)
        self._check(name, n, k)
        packed = self.folder.read(_part(name, "blocks")).to(device)
        codes = torch.stack((packed & 15, packed >> 4), -1).view(n, k)
        scales = self.folder.read(_part(name, "scales")).to(device)
        if bool((scales == _NO_NUMBER).any()):
            raise ModelLoadError(f"tensor {_part(name, 'scales')} holds NaN; expected numbers. Download the "
                                 "file again, or convert the model anew.")
        halves = torch.full((n,), 0.5, device=device)  # the table has twice the numbers
        groups = Groups(codes, 4, _GROUP, scales.view(torch.float8_e8m0fnu), table=FP4_VALUES, factors=halves)
        return GroupMatrix(GroupRows.of(groups), self.bias(name, n, device))

    def _check(self, name: str, n: int, k: int) -> None:
        if k % _GROUP:
            raise ModelLoadError(f"{name} has {k} inputs; expected a multiple of {_GROUP} of MXFP4")
        self.folder.check(_part(name, "blocks"), (n, k // _GROUP, _GROUP // 2), (torch.uint8,))
        self.folder.check(_part(name, "scales"), (n, k // _GROUP), (torch.uint8,))


def _part(name: str, which: str) -> str:
    """experts.down_proj~#3 -> experts.down_proj_blocks#3.weight, as TensorFolder finds a part of a tensor."""
    module, mark, number = name.partition("#")
    return f"{module.removesuffix('~')}_{which}{mark}{number}.weight"
