"""FP8 checkpoints: e4m3 weights with one scale, one for each row, or one for each block of 128 x 128.

For a Linear with k inputs and n outputs the file holds
  weight             float8_e4m3fn [n, k]
  weight_scale_inv   a number, [n, 1], or [ceil(n / 128), ceil(k / 128)]: it multiplies, whatever its name
                     (weight_scale with compressed-tensors)
Scales of activations serve static quantization of those and are not needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.config import shown
from model.files import ModelLoadError
from model.formats.plain import FLOATS
from model.formats.safetensors_reader import TensorFolder
from model.formats.weights import CPU, Float8Matrix, Matrix, MatrixInfo
from model.formats.widened import WideningReader
from model.kernels.float8 import OUTPUTS, Float8

_SCALES = (".weight_scale_inv", ".weight_scale")


class Fp8Reader(WideningReader):
    """FP8 modules, and plain ones beside them. `settings` is config.json's quantization_config."""

    def __init__(self, folder: TensorFolder, settings: dict[str, Any], exact: bool) -> None:
        super().__init__(folder, exact)
        self.block = block_size(settings.get("weight_block_size"))

    def describe(self) -> str:
        return "FP8"

    def is_quantized(self, name: str) -> bool:
        return is_fp8(self.folder, name)

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        if not self.is_quantized(name):
            return super().matrix_info(name, n, k)
        return fp8_info(self, name, n, k, self.block)

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        if not self.is_quantized(name):
            return super().matrix(name, n, k, device)
        return fp8_matrix(self, name, n, k, self.block, device)


def is_fp8(folder: TensorFolder, name: str) -> bool:
    weight = name + ".weight"
    return weight in folder and folder.info(weight).dtype == torch.float8_e4m3fn


def block_size(value: Any) -> tuple[int, int]:
    """Raises ModelLoadError."""
    if value is None:
        return 128, 128
    if not isinstance(value, list) or len(value) != 2 or not all(
            isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= 1 << 20 for size in value):
        raise ModelLoadError(f"FP8 with weight_block_size {shown(value)}; expected two sizes")
    return value[0], value[1]


def check_fp8(folder: TensorFolder, name: str, n: int, k: int, block: tuple[int, int]) -> str:
    """The name of a module's scales. Raises ModelLoadError."""
    folder.check(name + ".weight", (n, k), (torch.float8_e4m3fn,))
    scale = next((name + end for end in _SCALES if name + end in folder), None)
    if scale is None:
        raise ModelLoadError(f"the model has no tensor {name}.weight_scale_inv or {name}.weight_scale, but "
                             f"{name}.weight is FP8")
    shape = folder.info(scale).shape
    blocks = (-(-n // block[0]), -(-k // block[1]))
    if shape not in ((), (1,), (n, 1), (n,), blocks):
        raise ModelLoadError(f"{scale} is {list(shape)}; expected one number, [{n}, 1] or {list(blocks)}")
    folder.check(scale, shape, tuple(FLOATS))
    return scale


def fp8_info(reader: WideningReader, name: str, n: int, k: int, block: tuple[int, int]) -> MatrixInfo:
    """Raises ModelLoadError."""
    scale = check_fp8(reader.folder, name, n, k, block)
    widened = reader.wide_info(name, n, k)
    groups = _groups(reader.folder.info(scale).shape, n, k, block)
    if groups is None:
        return widened
    scales = -(-n // OUTPUTS) * groups * 4 if groups > 1 else 0
    return MatrixInfo("f8", n * k + n * 4 + scales, widened)


def _groups(shape: tuple[int, ...], n: int, k: int, block: tuple[int, int]) -> int | None:
    """Groups of columns with a scale of their own; None where the kernels have no such blocks."""
    if shape in ((), (1,), (n, 1), (n,)):
        return 1
    fits = block[0] % OUTPUTS == 0 and (block[1] % 32 == 0 or block[1] >= k)
    return -(-k // block[1]) if fits else None


def fp8_matrix(reader: WideningReader, name: str, n: int, k: int, block: tuple[int, int],
               device: torch.device) -> Matrix:
    """The weight as it is, or times its scales where those lie in blocks that the kernels do not have."""
    scale_name = check_fp8(reader.folder, name, n, k, block)
    scale = reader.folder.read(scale_name).float().to(device)
    weight = reader.folder.read(name + ".weight").to(device)
    groups = _groups(tuple(scale.shape), n, k, block)
    if groups is None:
        rows_of = torch.arange(n, device=device) // block[0]

        def numbers(first: int, last: int) -> Tensor:
            rows = scale[rows_of[first:last]]
            return weight[first:last].float() * rows.repeat_interleave(block[1], 1)[:, :k]

        return reader.wide_matrix(name, n, k, numbers, device)
    bias = reader.bias(name, n, device)
    if groups > 1:
        scales = scale.repeat_interleave(block[0] // OUTPUTS, 0)[:-(-n // OUTPUTS)].contiguous()
        return Float8Matrix(Float8(weight, torch.ones(n, device=device), scales, block[1]), bias)
    if scale.numel() not in (1, n):
        scale = scale[torch.arange(n, device=device) // block[0]]
    return Float8Matrix(Float8(weight, scale.view(-1).expand(n).contiguous(), None, k), bias)
