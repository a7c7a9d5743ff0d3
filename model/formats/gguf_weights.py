"""The weights of a GGUF file as matrices, each with the codes and scales that it has in the file."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.files import ModelLoadError
from model.formats.ggml_types import SUPPORTED
from model.formats.gguf import GgufFile, GgufTensor
from model.formats.weights import CPU, DenseMatrix, GroupMatrix, Matrix, MatrixInfo
from model.kernels.groups import GroupRows, Groups

_DENSE_KINDS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


class GgufReader:
    """A WeightReader."""

    def __init__(self, gguf: GgufFile, exact: bool = False) -> None:
        """`exact`: tables of blocks become float32 instead of float16, which takes twice the memory."""
        self.gguf = gguf
        self._table_dtype = torch.float32 if exact else torch.float16

    def describe(self) -> str:
        """Like 'GGUF Q4_K, Q6_K': the types of matrices, the most frequent one first."""
        bytes_of: Counter[str] = Counter()
        for tensor in self.gguf.tensors.values():
            if len(tensor.shape) > 1:
                bytes_of[tensor.type.name] += tensor.nbytes
        return "GGUF " + ", ".join(name for name, _ in bytes_of.most_common())

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.gguf.tensors.values())

    def has_tensor(self, name: str) -> bool:
        return self._stored(name) in self.gguf

    def numbers(self, name: str) -> list[float] | None:
        """Of a small tensor; None if there is none of this name. Raises ModelLoadError unless it is F32."""
        if name not in self.gguf:
            return None
        tensor = self.gguf.tensor(name)
        if tensor.type.name != "F32" or tensor.rows != 1:
            raise ModelLoadError(f"{tensor.path.name}: {name} is {tensor.type.name} {list(tensor.shape)}; "
                                 "expected F32 with one dimension")
        return tensor.type.dequantize(tensor.read()).view(-1).tolist()

    def is_quantized(self, name: str) -> bool:
        weight = name + ".weight"
        return self.has_tensor(weight) and self.gguf.tensor(self._stored(weight)).type.unpack is not None

    def matrix_info(self, name: str, n: int, k: int) -> MatrixInfo:
        tensor = self._checked(name + ".weight", (n, k))
        if tensor.type.dtype is not None:
            return MatrixInfo(_DENSE_KINDS[tensor.type.dtype], tensor.nbytes)
        info = GroupMatrix(self._group_rows(tensor, name), None).info
        assert info.widened is not None
        return info

    def matrix(self, name: str, n: int, k: int, device: torch.device = CPU) -> Matrix:
        tensor = self._checked(name + ".weight", (n, k))
        bias = self._bias(name, n, device)
        if tensor.type.dtype is not None:
            return DenseMatrix(check_finite(tensor, tensor.read().to(device).view(tensor.type.dtype)), bias)
        return GroupMatrix(self._group_rows(tensor, name, device), bias)

    def _group_rows(self, tensor: GgufTensor, name: str, device: torch.device = CPU) -> GroupRows:
        """Reads nothing of the weights before they are asked for."""
        factor = self._factor(name + ".scale")

        def unpacked(raw: Tensor) -> Groups:
            groups = tensor.type.groups(raw)
            return groups if groups.factors is None else replace(groups, factors=groups.factors * factor)

        def read(first: int, last: int) -> Groups:
            groups = unpacked(tensor.read(first, last).to(device))
            for part in groups.numbers:
                if part.is_floating_point():
                    check_finite(tensor, part)
            return groups

        return GroupRows(tensor.rows, unpacked(torch.zeros(1, tensor.row_bytes, dtype=torch.uint8)), read)

    def vector(self, name: str, n: int, device: torch.device = CPU) -> Tensor:
        if n == 1 and (number := self._of_metadata(name)) is not None:
            return torch.tensor([number], device=device)
        tensor = self._checked(name, (n,))
        return check_finite(tensor, tensor.type.dequantize(tensor.read()).view(n)).to(device)

    def numbers_of(self, name: str, count: int, device: torch.device = CPU) -> Tensor:
        shape = self.gguf.tensor(name).shape
        tensor = self._checked(name, shape if math.prod(shape) == count else (count,))
        return check_finite(tensor, tensor.type.dequantize(tensor.read()).flatten()).to(device)

    def filters(self, name: str, channels: int, taps: int, device: torch.device = CPU) -> Tensor:
        shapes = {2: (channels, taps), 4: (1, channels, 1, taps)}
        tensor = self._checked(name, shapes.get(len(self.gguf.tensor(name).shape), (channels, 1, taps)))
        return check_finite(tensor, tensor.type.dequantize(tensor.read()).view(channels, taps)).to(device)

    def table_info(self, name: str, rows: int, columns: int) -> MatrixInfo:
        tensor = self._checked(name, (rows, columns))
        dtype = tensor.type.dtype or self._table_dtype
        return MatrixInfo(_DENSE_KINDS[dtype], rows * columns * dtype.itemsize)

    def table(self, name: str, rows: int, columns: int, device: torch.device = CPU) -> Tensor:
        """Blocks become numbers, a part at a time."""
        tensor = self._checked(name, (rows, columns))
        if tensor.type.dtype is not None:
            return tensor.read().view(tensor.type.dtype).to(device)
        table = torch.empty(rows, columns, dtype=self._table_dtype, device=device)
        step = max(1, (8 << 20) // columns)
        for first in range(0, rows, step):
            last = min(rows, first + step)
            table[first:last] = tensor.type.dequantize(tensor.read(first, last))
        return table

    def _checked(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        tensor = _part(self.gguf.tensor(self._stored(name)), name)
        where = f"{tensor.path.name}: tensor {tensor.name}"
        if not tensor.type.is_supported:
            raise ModelLoadError(f"{where} has type {tensor.type.name}; supported: {', '.join(SUPPORTED)}")
        if shape == (1, *tensor.shape):
            tensor = replace(tensor, shape=shape)  # one row may be stored as a vector
        if tensor.shape != shape:
            raise ModelLoadError(f"{where} is {list(tensor.shape)}; expected {list(shape)}")
        return tensor

    def _stored(self, name: str) -> str:
        """The tensor that `name` means, or is a part of. Falcon-H1's norms do not end in .weight."""
        whole = _whole(name)
        bare = whole.removesuffix(".weight")
        return bare if whole not in self.gguf and bare in self.gguf else whole

    def _of_metadata(self, name: str) -> float | None:
        """Number 3 of the list "xielu.alpha_p" for "blk.3.xielu.alpha_p"; None where there is none."""
        _, _, rest = name.partition("blk.")
        layer, _, key = rest.partition(".")
        values = self.gguf.metadata.get(key)
        has_it = layer.isdigit() and isinstance(values, np.ndarray) and int(layer) < len(values)
        return float(values[int(layer)]) if has_it else None

    def _factor(self, name: str) -> float:
        """What all weights of a matrix are multiplied by, beside the scales of NVFP4."""
        if not self.has_tensor(name):
            return 1.0
        tensor = self._checked(name, (1,))
        return float(check_finite(tensor, tensor.type.dequantize(tensor.read())))

    def _bias(self, name: str, n: int, device: torch.device) -> Tensor | None:
        bias = name + ".bias"
        return self.vector(bias, n, device) if self.has_tensor(bias) else None


def check_finite(tensor: GgufTensor, numbers: Tensor) -> Tensor:
    """`numbers`. Raises ModelLoadError if there is an infinity or NaN among them."""
    finite = numbers.float() if numbers.dtype.itemsize == 1 else numbers
    if not torch.isfinite(finite).all():
        raise ModelLoadError(f"{tensor.path.name}: tensor {tensor.name} holds infinity or what is no number. "
                             "Download the file again, or convert the model anew.")
    return numbers


def _whole(name: str) -> str:
    """The tensor that "ffn_up_exps#3.weight" is number 3 of: "ffn_up_exps.weight"."""
    module, mark, rest = name.partition("#")
    return f"{module}.{rest.partition('.')[2]}" if mark else name


def _part(tensor: GgufTensor, name: str) -> GgufTensor:
    """The matrix or vector of a stack that `name` means; a tensor that is none as it is."""
    _, mark, rest = name.partition("#")
    if not mark:
        return tensor
    index = int(rest.partition(".")[0])
    if len(tensor.shape) < 2 or index >= tensor.shape[0]:
        raise ModelLoadError(f"{tensor.path.name}: tensor {tensor.name} is {list(tensor.shape)}; expected a "
                             f"stack of more than {index}")
    part = replace(tensor, shape=tensor.shape[1:])
    return replace(part, offset=tensor.offset + index * part.nbytes)
