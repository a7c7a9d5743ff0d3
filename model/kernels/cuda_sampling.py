"""The rows of a sampling call in device memory: one buffer, one copy.

What `sample` of the GPU's library reads lies on the GPU: addresses of structs, the structs, and the arrays
that they point to. Knows the layout of SamplingRow, nothing of how tokens are chosen.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from model.kernels.sampling import SamplingRow, SamplingStruct

_COUNTED = {"history": "num_tokens", "bias_ids": "num_biases", "bias_values": "num_biases",
            "eos_ids": "num_eos_ids"}
"""Pointers of the struct, and the field that counts their elements of 4 bytes."""
_STRUCT_BYTES = ctypes.sizeof(SamplingStruct)


def rows_on_device(rows: Sequence[SamplingRow], device: str) -> Tensor:
    """uint8: the addresses of the rows' structs (8 bytes each), then everything that they need.

    The buffer must live until the kernel has run; it is copied on the current stream.
    """
    arrays = [_arrays(row) for row in rows]
    total = sum(8 + _STRUCT_BYTES + sum(map(_rounded, of_row.values())) for of_row in arrays)
    host = torch.empty(total, dtype=torch.uint8, pin_memory=device != "cpu")
    buffer = torch.empty(total, dtype=torch.uint8, device=device)
    shift = buffer.data_ptr() - host.data_ptr()
    addresses = (ctypes.c_uint64 * len(rows)).from_address(host.data_ptr())
    end = host.data_ptr() + 8 * len(rows)
    for index, (row, of_row) in enumerate(zip(rows, arrays, strict=True)):
        struct = SamplingStruct.from_address(end)
        ctypes.memmove(end, ctypes.addressof(row.struct), _STRUCT_BYTES)
        addresses[index] = end + shift
        end += _STRUCT_BYTES
        for pointer, nbytes in of_row.items():
            ctypes.memmove(end, getattr(row.struct, pointer), nbytes)
            setattr(struct, pointer, end + shift)
            end += _rounded(nbytes)
    return buffer.copy_(host, non_blocking=True)


def _arrays(row: SamplingRow) -> dict[str, int]:
    """Bytes behind each pointer of the struct."""
    sizes = {pointer: 4 * getattr(row.struct, count) for pointer, count in _COUNTED.items()}
    return sizes if row.allowed is None else {**sizes, "allowed": row.allowed.nbytes}


def _rounded(nbytes: int) -> int:
    return -(-nbytes // 8) * 8
