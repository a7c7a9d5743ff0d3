"""The GPU's operations on torch tensors: check shapes and dtypes, then call C with the current stream.

The methods' names and arguments are those of reference.py and of CpuKernels. An index outside its table is
not reported, since that would mean waiting for the GPU: see kernels.h.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.kernels.binding import Library
from model.kernels.cpu_kernels import DTYPE_CODES, check_dense


class CudaKernels:
    """What `load_kernels("cuda")` returns.

    device  where every tensor lies; "cpu" in tests that run the kernels without a GPU
    """

    def __init__(self, library: Library, device: str = "cuda") -> None:
        self.library, self.device = library, device
        self.call = library.call

    @property
    def stream(self) -> Any:
        """The stream that torch uses now, as a number; None without a GPU."""
        return None if self.device == "cpu" else torch.cuda.current_stream().cuda_stream

    def embed(self, table: Tensor, token_ids: Tensor, out: Tensor) -> None:
        check_dense("table", table, (-1, -1), tuple(DTYPE_CODES), self.device)
        check_dense("token_ids", token_ids, (-1,), (torch.int32,), self.device)
        check_dense("out", out, (len(token_ids), table.shape[1]), device=self.device)
        self.call("embed", table, DTYPE_CODES[table.dtype], token_ids, out, len(token_ids), *table.shape,
                  self.stream)

    def copy_pages(self, k_cache: Tensor, v_cache: Tensor, src: Tensor, dst: Tensor) -> None:
        check_dense("k_cache", k_cache, k_cache.shape, (k_cache.dtype,), self.device)
        check_dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,), self.device)
        check_dense("src", src, (-1,), (torch.int32,), self.device)
        check_dense("dst", dst, src.shape, (torch.int32,), self.device)
        self.call("copy_pages", k_cache, v_cache, len(k_cache), k_cache[0].nbytes, src, dst, len(src),
                  self.stream)
