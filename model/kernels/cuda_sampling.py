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

_STRUCT_BYTES = ctypes.sizeof(SamplingStruct)
_WORD = {name: getattr(SamplingStruct, name).offset // 8
         for name in ("history", "bias_ids", "bias_values", "eos_ids", "allowed", "breaks")}
"""Where the pointers are in the struct, whose fields have eight bytes each."""


def rows_on_device(rows: Sequence[SamplingRow], device: str) -> Tensor:
    """uint8: the addresses of the rows' structs (8 bytes each), then everything that they need.

    The buffer must live until the kernel has run; it is copied on the current stream.
    """
    arrays = [_arrays(row) for row in rows]
    total = len(rows) * (8 + _STRUCT_BYTES)
    total += sum(_rounded(nbytes) for of_row in arrays for _, _, nbytes in of_row)
    host = torch.empty(total, dtype=torch.uint8, pin_memory=device != "cpu")
    buffer = torch.empty(total, dtype=torch.uint8, device=device)
    start = host.data_ptr()
    shift, words = buffer.data_ptr() - start, host.view(torch.int64).numpy()
    end = start + 8 * len(rows)
    for index, (row, of_row) in enumerate(zip(rows, arrays, strict=True)):
        struct = (end - start) // 8
        words[index] = end + shift
        ctypes.memmove(end, ctypes.addressof(row.struct), _STRUCT_BYTES)
        end += _STRUCT_BYTES
        for pointer, address, nbytes in of_row:
            ctypes.memmove(end, address, nbytes)
            words[struct + pointer] = end + shift
            end += _rounded(nbytes)
    return buffer.copy_(host, non_blocking=True)


def _arrays(row: SamplingRow) -> list[tuple[int, int, int]]:
    """(word of the struct, address on the host, bytes) of each array that is not empty."""
    struct, found = row.struct, []
    if struct.num_tokens:
        found.append((_WORD["history"], struct.history, 4 * struct.num_tokens))
    if struct.num_biases:
        found += [(_WORD[name], getattr(struct, name), 4 * struct.num_biases)
                  for name in ("bias_ids", "bias_values")]
    if struct.num_eos_ids:
        found.append((_WORD["eos_ids"], struct.eos_ids, 4 * struct.num_eos_ids))
    if row.allowed is not None:
        found.append((_WORD["allowed"], struct.allowed, row.allowed.nbytes))
    if row.breaks is not None and struct.num_tokens:
        found.append((_WORD["breaks"], struct.breaks, struct.num_tokens))
    return found


def _rounded(nbytes: int) -> int:
    return (nbytes + 7) & -8
