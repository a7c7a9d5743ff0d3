"""The GPU's operations on torch tensors: check shapes and dtypes, then call C with the current stream.

The methods' names and arguments are those of `Operations`. An index outside its table is
not reported, since that would mean waiting for the GPU: see kernels.h.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from model.kernels import cpu_kernels
from model.kernels.binding import Library
from model.kernels.cpu_kernels import CACHE_DTYPES, DTYPE_CODES, FLOAT32, cache_code
from model.kernels.crossover import Crossovers
from model.kernels.cuda_linear import CudaLinearOperations
from model.kernels.cuda_sampling import rows_on_device
from model.kernels.sampling import SamplingRow

WORKSPACE_BYTES = 64 << 20
"""For partial sums and staged activations: 64 sequences of 70B attention need half of it."""
ALIGNMENT = 256


@functools.cache
def lend_workspace(library: Library, index: int | None) -> Tensor:
    """The workspace of the present GPU, number `index` (None: the CPU plays it), as the library has it now.

    One for the process: the library remembers one address a GPU, and captured graphs hold it, so that
    it must outlive every model that was loaded there.
    """
    device = torch.device("cpu") if index is None else torch.device("cuda", index)
    memory = torch.empty(WORKSPACE_BYTES + ALIGNMENT, dtype=torch.uint8, device=device)
    workspace = memory[-memory.data_ptr() % ALIGNMENT:][:WORKSPACE_BYTES]
    stream = None if index is None else torch.cuda.current_stream().cuda_stream
    library.call("set_workspace", workspace, WORKSPACE_BYTES, stream)
    return workspace


class CudaKernels(CudaLinearOperations):
    """What `load_kernels("cuda")` returns; the linear operations come from cuda_linear.py.

    device      where every tensor lies; "cpu" in tests that run the kernels without a GPU
    crossovers  what is known of products of many rows on this GPU
    """

    def __init__(self, library: Library, device: str = "cuda", crossovers: Crossovers | None = None) -> None:
        self.library, self.device = library, device
        self.crossovers = crossovers or Crossovers()
        self.call = library.call
        lend_workspace(library, None if device == "cpu" else torch.cuda.current_device())

    @property
    def stream(self) -> Any:
        """The stream that torch uses now, as a number; None without a GPU."""
        return None if self.device == "cpu" else torch.cuda.current_stream().cuda_stream

    least_rows = 9
    """Fewer are computed as sequences of one token each: each reads all its keys again."""

    @property
    def prompts(self) -> CudaKernels:
        return self

    @property
    def isa(self) -> str:
        """Such as sm_90; 'host' in tests that run the kernels without a GPU."""
        return "host" if self.device == "cpu" else "sm_{}{}".format(*torch.cuda.get_device_capability())

    @property
    def threads(self) -> int:
        """Of the CPU: one launches."""
        return 1

    def _rows(self, name: str, tensor: Tensor, shape: Sequence[int],
              dtypes: Sequence[torch.dtype] = FLOAT32) -> int:
        return cpu_kernels.check(name, tensor, shape, dtypes, self.device)

    def _dense(self, name: str, tensor: Tensor, shape: Sequence[int],
               dtypes: Sequence[torch.dtype] = FLOAT32) -> None:
        cpu_kernels.check_dense(name, tensor, shape, dtypes, self.device)

    # ---- rows ------------------------------------------------------------------------------------------

    def embed(self, table: Tensor, token_ids: Tensor, out: Tensor) -> None:
        self._dense("table", table, (-1, -1), tuple(DTYPE_CODES))
        self._dense("token_ids", token_ids, (-1,), (torch.int32,))
        self._dense("out", out, (len(token_ids), table.shape[1]))
        self.call("embed", table, DTYPE_CODES[table.dtype], token_ids, out, len(token_ids), *table.shape,
                  self.stream)

    # ---- cache -----------------------------------------------------------------------------------------

    def rope_write_kv(self, qkv: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, slot_mapping: Tensor,
                      k_cache: Tensor, v_cache: Tensor, num_heads: int, num_kv_heads: int) -> None:
        self._dense("k_cache", k_cache, (-1, num_kv_heads, -1, -1), CACHE_DTYPES)
        self._dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        num_pages, _, page_size, _ = k_cache.shape
        head_dim = qkv.shape[-1] // (num_heads + 2 * num_kv_heads)
        qkv_stride = self._rows("qkv", qkv, (-1, (num_heads + 2 * num_kv_heads) * head_dim))
        self._dense("cos", cos, (-1, head_dim // 2))
        self._dense("sin", sin, cos.shape)
        self._dense("positions", positions, (len(qkv),), (torch.int32,))
        self._dense("slot_mapping", slot_mapping, (len(qkv),), (torch.int64,))
        self.call("rope_write_kv", qkv, qkv_stride, cos, sin, len(cos), positions, slot_mapping, k_cache,
                  v_cache, cache_code(k_cache, head_dim), num_pages, page_size, len(qkv), num_heads,
                  num_kv_heads, head_dim, self.stream)

    def paged_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, block_table: Tensor,
                        cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, num_heads: int,
                        scale: float) -> None:
        self._dense("k_cache", k_cache, (-1, -1, -1, -1), CACHE_DTYPES)
        self._dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        num_pages, num_kv_heads, page_size, _ = k_cache.shape
        head_dim = q.shape[-1] // num_heads
        q_stride = self._rows("q", q, (-1, num_heads * head_dim))
        self._dense("seq_lens", seq_lens, (-1,), (torch.int32,))
        self._dense("cu_seqlens", cu_seqlens, (len(seq_lens) + 1,), (torch.int32,))
        table_stride = self._rows("block_table", block_table, (len(seq_lens), -1), (torch.int32,))
        self._dense("out", out, q.shape)
        self.call("paged_attention", q, q_stride, k_cache, v_cache, cache_code(k_cache, head_dim), num_pages,
                  page_size, block_table, table_stride, block_table.shape[1], cu_seqlens, seq_lens, out,
                  len(seq_lens), len(q), num_heads, num_kv_heads, head_dim, scale, self.stream)

    def copy_pages(self, k_cache: Tensor, v_cache: Tensor, src: Tensor, dst: Tensor) -> None:
        self._dense("k_cache", k_cache, k_cache.shape, (k_cache.dtype,))
        self._dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        self._dense("src", src, (-1,), (torch.int32,))
        self._dense("dst", dst, src.shape, (torch.int32,))
        self.call("copy_pages", k_cache, v_cache, len(k_cache), k_cache[0].nbytes, src, dst, len(src),
                  self.stream)

    # ---- attention of prompts --------------------------------------------------------------------------

    def prompt_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor, pages: Tensor, num_keys: int,
                         out: Tensor, num_heads: int, scale: float) -> None:
        """As paged_attention for many query rows of one sequence, by torch's matrix products in float16.

        q      float32 [T, num_heads * head_dim], the last T of the sequence's `num_keys` tokens
        pages  int32 [>= ceil(num_keys / page_size)]: the sequence's row of the block table
        out    float32 [T, num_heads * head_dim]
        """
        head_dim = q.shape[-1] // num_heads
        keys, values = self.gather_pages(k_cache, v_cache, pages, num_keys, head_dim)
        queries = q.view(len(q), num_heads, head_dim).transpose(0, 1).half()
        mixed = scaled_dot_product_attention(queries[None], keys[None], values[None], scale=scale,
                                             attn_mask=causal_lower_right(len(q), num_keys),
                                             enable_gqa=num_heads != len(keys))
        out.view(len(q), num_heads, head_dim).copy_(mixed[0].transpose(0, 1))

    def gather_pages(self, k_cache: Tensor, v_cache: Tensor, pages: Tensor, num_keys: int,
                     head_dim: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one sequence, float16 [num_kv_heads, num_keys, head_dim]; see cuda_kernels.h."""
        self._dense("k_cache", k_cache, (-1, -1, -1, -1), CACHE_DTYPES)
        self._dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        num_pages, num_kv_heads, page_size, _ = k_cache.shape
        self._dense("pages", pages, (-1,), (torch.int32,))
        if len(pages) * page_size < num_keys:
            raise ValueError(f"{len(pages)} pages of {page_size} tokens do not hold {num_keys} keys")
        keys, values = torch.empty(2, num_kv_heads, num_keys, head_dim, dtype=torch.float16,
                                   device=self.device)
        self.call("gather_pages", k_cache, v_cache, cache_code(k_cache, head_dim), num_pages, page_size,
                  num_kv_heads, head_dim, pages, num_keys, keys, values, self.stream)
        return keys, values

    # ---- sampling --------------------------------------------------------------------------------------

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow],
               probabilities: Tensor | None = None) -> Tensor:
        """int32 [S] on the GPU: the next token of each sequence, -1 where none is possible."""
        stride = self._rows("logits", logits, (len(rows), -1))
        if probabilities is not None:
            self._dense("probabilities", probabilities, logits.shape)
        chosen = torch.empty(len(rows), dtype=torch.int32, device=self.device)
        self.call("sample", logits, stride, rows_on_device(rows, self.device), chosen, probabilities,
                  *logits.shape, self.stream)
        return chosen
