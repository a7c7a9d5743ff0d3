"""compressed-tensors checkpoints (llm-compressor) and ModelOpt's NVFP4. What a module is, its tensors tell.

For a Linear with k inputs and n outputs the file holds one of
  weight_packed int32 [n, k * bits / 32]  4 or 8 bits, lowest first, code = number + 2^(bits - 1); with
      weight_scale [n, groups]; weight_zero_point int32 [n * bits / 32, groups], packed along n with the same
      offset, or int8 [n, groups], optional; weight_g_idx int32 [k], the group of each input, optional
  weight int8 [n, k], weight_scale a number or [n, 1]
  weight float8_e4m3fn: see fp8.py
  weight_packed (ModelOpt: weight) uint8 [n, k / 2]  NVFP4, low nibble first; weight_scale float8_e4m3fn
      [n, k / 16], divided by weight_global_scale, or (ModelOpt) times weight_scale_2
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.files import ModelLoadError
from model.formats.fp8 import fp8_info, fp8_matrix, is_fp8
from model.formats.ggml_types import FP4_VALUES
from model.formats.gptq import sorted_groups, unpack
from model.formats.plain import FLOATS
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import CPU, GroupMatrix, Matrix, MatrixInfo, QuantizedMatrix
from model.formats.widened import WideningReader
from model.kernels.groups import GroupRows, Groups

_BLOCK = (128, 128)
_FP4_GROUP = 16


class CompressedTensorsReader(WideningReader):
    """Quantized modules, and plain ones beside them. `settings` is config.json's quantization_config."""

    def __init__(self, folder: TensorFolder, settings: dict[str, Any], exact: bool) -> None:
        super().__init__(folder, exact)
        self._format = settings.get("format") or settings.get("quant_algo")

    def describe(self) -> str:
        return f"compressed-tensors {self._format}" if isinstance(self._format, str) else "compressed-tensors"

    def is_quantized(self, name: str) -> bool:
        return self._kind(name) != "plain"

    def _kind(self, name: str) -> str:
        """packed | int8 | fp8 | fp4 | plain."""
        if name + ".weight_packed" in self.folder:
            return "fp4" if self.folder.info(name + ".weight_packed").dtype == torch.uint8 else "packed"
        if is_fp8(self.folder, name):
            return "fp8"
        if name + ".weight" not in self.folder:
            return "plain"
        return {torch.uint8: "fp4", torch.int8: "int8"}.get(self.folder.info(name + ".weight").dtype, "plain")

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        kind = self._kind(name)
        if kind == "plain":
            return super().matrix_info(name, n, k)
        self._check_bias(name, n)
        if kind == "fp8":
            return fp8_info(self, name, n, k, _BLOCK)
        if kind == "fp4":
            self._check_fp4(name, n, k)
            return MatrixInfo("t4", n * (k // 2 + k // _FP4_GROUP + 4), self.wide_info(name, n, k))
        bits, groups = 8, 1
        if kind == "int8":
            self._check_int8(name, n, k)
        else:
            bits, groups = self._check_packed(name, n, k)
        return MatrixInfo(f"q{bits}", n * k * bits // 8 + n * groups * 3)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        kind = self._kind(name)
        if kind == "plain":
            return super().matrix(name, n, k, device)
        if kind == "fp8":
            return fp8_matrix(self, name, n, k, _BLOCK, device)
        if kind == "fp4":
            return self._fp4_matrix(name, n, k, device)
        if kind == "int8":
            return self._int8_matrix(name, n, k, device)
        return self._packed_matrix(name, n, k, device)

    # -- integers

    def _check_packed(self, name: str, n: int, k: int) -> tuple[int, int]:
        """(bits, groups). Raises ModelLoadError."""
        info = self.folder.info(name + ".weight_packed")
        bits = next((b for b in (4, 8) if info.shape == (n, -(-k * b // 32))), None)
        if bits is None or info.dtype != torch.int32:
            raise ModelLoadError(f"{info.path.name}: {name}.weight_packed is {info.dtype} "
                                 f"{list(info.shape)}; expected int32 [{n}, {k} * bits / 32] with 4 or 8 "
                                 "bits")
        shape = self.folder.info(name + ".weight_scale").shape
        groups = shape[1] if len(shape) == 2 else 0
        if not 1 <= groups <= k:
            raise ModelLoadError(f"{name}.weight_scale is {list(shape)}; expected [{n}, groups]")
        self.folder.check(name + ".weight_scale", (n, groups), tuple(FLOATS))
        if name + ".weight_zero_point" in self.folder:
            zeros = self.folder.info(name + ".weight_zero_point")
            if zeros.shape != ((n, groups) if zeros.dtype == torch.int8 else (-(-n * bits // 32), groups)):
                raise ModelLoadError(f"{name}.weight_zero_point is {zeros.dtype} {list(zeros.shape)}; "
                                     f"expected int32 [{n} * {bits} / 32, {groups}]")
        return bits, groups

    def _packed_matrix(self, name: str, n: int, k: int, device: torch.device) -> Matrix:
        bits, groups = self._check_packed(name, n, k)
        index = None
        if name + ".weight_g_idx" in self.folder:
            self.folder.check(name + ".weight_g_idx", (k,), (torch.int32, torch.int64))
            index = self.folder.read(name + ".weight_g_idx").long()
        size, perm = -(-k // groups), None
        if index is not None and int(index.min()) >= 0:  # -1: no order
            size, perm = sorted_groups(name + ".weight_g_idx", index, groups)
        codes = unpack(self.folder.read(name + ".weight_packed").to(device), bits)[:, :k].contiguous()
        if perm is not None:
            perm = perm.to(device)
            codes = codes.index_select(1, perm)
        zeros = self._zeros(name, n, groups, bits, device)
        return QuantizedMatrix(codes, self._scales(name, device), zeros, size, bits, perm,
                               self.bias(name, n, device))

    def _zeros(self, name: str, n: int, groups: int, bits: int, device: torch.device) -> Tensor:
        middle = 1 << (bits - 1)
        if name + ".weight_zero_point" not in self.folder:
            return torch.full((n, groups), middle, dtype=torch.uint8, device=device)
        zeros = self.folder.read(name + ".weight_zero_point").to(device)
        if zeros.dtype == torch.int8:
            return (zeros.int() + middle).to(torch.uint8)
        return unpack(zeros.t().contiguous(), bits)[:, :n].t().contiguous()

    def _scales(self, name: str, device: torch.device) -> Tensor:
        scales = self.folder.read(name + ".weight_scale").to(torch.float16)
        if not torch.isfinite(scales).all():
            raise ModelLoadError(f"{name}.weight_scale holds numbers that are not finite in float16")
        return scales.to(device)

    def _check_int8(self, name: str, n: int, k: int) -> None:
        self.folder.check(name + ".weight", (n, k), (torch.int8,))
        shape = self.folder.info(name + ".weight_scale").shape
        if shape not in ((), (1,), (n, 1)):
            raise ModelLoadError(f"{name}.weight_scale is {list(shape)}; expected one number or [{n}, 1]")
        self.folder.check(name + ".weight_scale", shape, tuple(FLOATS))

    def _int8_matrix(self, name: str, n: int, k: int, device: torch.device) -> Matrix:
        self._check_int8(name, n, k)
        codes = self.folder.read(name + ".weight").to(device).view(torch.uint8) ^ 0x80
        scales = self._scales(name, device).view(-1, 1).expand(n, 1).contiguous()
        zeros = torch.full((n, 1), 128, dtype=torch.uint8, device=device)
        return QuantizedMatrix(codes, scales, zeros, k, 8, None, self.bias(name, n, device))

    # -- NVFP4

    def _check_fp4(self, name: str, n: int, k: int) -> tuple[str, float]:
        """(name of the codes, what scales are multiplied by). Raises ModelLoadError."""
        codes = name + (".weight_packed" if name + ".weight_packed" in self.folder else ".weight")
        if k % (2 * _FP4_GROUP):
            raise ModelLoadError(f"{name} has {k} inputs; supported for NVFP4: multiples of {2 * _FP4_GROUP}")
        self.folder.check(codes, (n, k // 2), (torch.uint8,))
        self.folder.check(name + ".weight_scale", (n, k // _FP4_GROUP), (torch.float8_e4m3fn,))
        divides = name + ".weight_global_scale" in self.folder
        factor = name + (".weight_global_scale" if divides else ".weight_scale_2")
        shape = self.folder.info(factor).shape
        if shape not in ((), (1,)):
            raise ModelLoadError(f"{factor} is {list(shape)}; expected one number")
        self.folder.check(factor, shape, tuple(FLOATS))
        number = float(self.folder.read(factor).float().view(()))
        if number == 0 and divides:
            raise ModelLoadError(f"{factor} is 0; it divides the scales")
        return codes, 1 / number if divides else number

    def _fp4_matrix(self, name: str, n: int, k: int, device: torch.device) -> Matrix:
        codes_name, factor = self._check_fp4(name, n, k)
        packed = self.folder.read(codes_name).to(device)
        codes = torch.stack((packed & 15, packed >> 4), -1).view(n, k)
        factors = torch.full((n,), factor / 2, device=device)  # 2: the table has twice the numbers
        scales = self.folder.read(name + ".weight_scale").to(device)
        groups = Groups(codes, 4, _FP4_GROUP, scales, table=FP4_VALUES, factors=factors)
        return GroupMatrix(GroupRows.of(groups), self.bias(name, n, device))
