"""Whether a tensor is what a kernel takes: its shape, dtype, device and strides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FLOAT32 = (torch.float32,)


def check(name: str, tensor: Tensor, shape: Sequence[int], dtypes: Sequence[torch.dtype] = FLOAT32,
          device: str = "cpu") -> int:
    """Raise ValueError unless `tensor` lies dense on `device` with this shape (-1: any) and a dtype of these.

    Only rows may be apart. Returns the row stride in elements.
    """
    fits = tensor.dim() == len(shape) and all(want in (-1, have)
                                              for want, have in zip(shape, tensor.shape, strict=True))
    if not fits or tensor.dtype not in dtypes or tensor.device.type != device:
        kinds = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on "
                         f"{tensor.device}; expected {kinds} {list(shape)} on {device}")
    if not (tensor.is_contiguous() or (tensor.dim() == 2 and tensor[0].is_contiguous())):
        raise ValueError(f"{name} has the strides {tensor.stride()}; expected dense rows")
    # torch gives a single row any stride.
    return tensor.stride(0) if tensor.shape[0] > 1 else math.prod(tensor.shape[1:])


def check_dense(name: str, tensor: Tensor, shape: Sequence[int],
                dtypes: Sequence[torch.dtype] = FLOAT32, device: str = "cpu") -> None:
    """As `check`, without gaps between rows."""
    check(name, tensor, shape, dtypes, device)
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has the strides {tensor.stride()}; expected a contiguous tensor")
