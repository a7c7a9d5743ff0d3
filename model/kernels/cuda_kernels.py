"""The GPU's operations on torch tensors: check shapes and dtypes, then call C with the current stream.

The methods' names and arguments are those of `Operations`. An index outside its table is
not reported, since that would mean waiting for the GPU: see kernels.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.kernels.binding import Library
from model.kernels.checks import FLOAT32, check, check_dense
from model.kernels.cpu_kernels import CACHE_DTYPES, DTYPE_CODES, cache_code
from model.kernels.crossover import Crossovers
from model.kernels.cuda_prompts import CudaPromptOperations
from model.kernels.cuda_sampling import rows_on_device
from model.kernels.linear import LinearWeight
from model.kernels.linear_checks import QUANTIZED_KINDS, check_linear
from model.kernels.lora import LoraOperations
from model.kernels.operations import ACTIVATIONS, ANY_POSITION, NORMS
from model.kernels.sampling import SamplingRow
from model.kernels.states import StateOperations

WORKSPACE_BYTES = 64 << 20
"""For partial sums and staged activations: 64 sequences of 70B attention need half of it."""
ALIGNMENT = 256
FUSED_HEAD_DIMS = (32, 64, 128, 256)
"""Of heads whose halves are one, two, four or eight tiles of a product."""


class QueueStruct(ctypes.Structure):
    """cuda_queue of cuda_kernels.h."""

    _fields_ = (("stream", ctypes.c_void_p), ("workspace", ctypes.c_void_p),
                ("workspace_bytes", ctypes.c_int64), ("is_dependent", ctypes.c_int32))


def new_workspace(device: str) -> Tensor:
    """uint8 [WORKSPACE_BYTES] on the present GPU, for one engine: zero, and aligned for every kernel."""
    memory = torch.zeros(WORKSPACE_BYTES + ALIGNMENT, dtype=torch.uint8, device=device)
    return memory[-memory.data_ptr() % ALIGNMENT:][:WORKSPACE_BYTES]


class CudaKernels(CudaPromptOperations, StateOperations, LoraOperations):
    """What `load_kernels("cuda")` returns; linear layers come from cuda_linear.py, mixtures from
    cuda_experts.py, prompts from cuda_prompts.py, layers with a state from states.py, adapters from lora.py.
    Each has a workspace:
    one for each engine and GPU, used by one thread at a time.

    device      where every tensor lies; "cpu" in tests that run the kernels without a GPU
    crossovers  what is known of products of many rows on this GPU
    """

    def __init__(self, library: Library, device: str = "cuda", crossovers: Crossovers | None = None) -> None:
        self.library, self.device = library, device
        self.crossovers = crossovers or Crossovers()
        self.call = library.call
        self._kept, self._bounds = {}, {}
        self.workspace = new_workspace(device)  # captured graphs hold its address
        self._queue = QueueStruct(None, self.workspace.data_ptr(), WORKSPACE_BYTES, True)

    @property
    def stream(self) -> int:
        """What the library takes for one: the address of the queue, with the stream that torch uses now."""
        if self.device != "cpu":
            self._queue.stream = torch.cuda.current_stream().cuda_stream
        return ctypes.addressof(self._queue)

    @property
    def is_dependent(self) -> bool:
        """Whether kernels may start before the one in front has ended, on GPUs that can do that."""
        return bool(self._queue.is_dependent)

    @is_dependent.setter
    def is_dependent(self, value: bool) -> None:
        self._queue.is_dependent = value

    def _place(self) -> tuple[str, Any]:
        return self.device, self.stream

    least_rows = 9
    """Fewer are computed as sequences of one token each: each reads all its keys again."""

    @property
    def prompts(self) -> CudaKernels:
        return self

    @property
    def whole_layers(self) -> CudaKernels:
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
        return check(name, tensor, shape, dtypes, self.device)

    def _dense(self, name: str, tensor: Tensor, shape: Sequence[int],
               dtypes: Sequence[torch.dtype] = FLOAT32) -> None:
        check_dense(name, tensor, shape, dtypes, self.device)

    # ---- rows ------------------------------------------------------------------------------------------

    looks_up_packed = False
    runs_ahead = True

    def embed(self, table: Tensor, token_ids: Tensor, out: Tensor, scale: float = 1.0) -> None:
        self._dense("table", table, (-1, -1), tuple(DTYPE_CODES))
        self._dense("token_ids", token_ids, (-1,), (torch.int32,))
        self._dense("out", out, (len(token_ids), table.shape[1]))
        self.call("embed", table, DTYPE_CODES[table.dtype], token_ids, out, scale, len(token_ids),
                  *table.shape, self.stream)

    def norm_rows(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, kind: str,
                  out: Tensor, num_groups: int = 1, add: bool = False, scale: float = 1.0) -> None:
        x_stride, out_stride = self._rows("x", x, (-1, -1)), self._rows("out", out, x.shape)
        size = x.shape[1] // num_groups
        is_shared = all(part is None or len(part) == size for part in (weight, bias))
        for name, part in (("weight", weight), ("bias", bias)):
            if part is not None:
                self._dense(name, part, (size if is_shared else x.shape[1],))
        self.call("norm_rows", x, x_stride, weight, bias, int(is_shared), eps, NORMS.index(kind), out,
                  out_stride, int(add), scale, len(x), num_groups, size, self.stream)

    def activate(self, x: Tensor, out: Tensor, kind: str, gated: bool) -> None:
        out_stride = self._rows("out", out, (-1, -1))
        x_stride = self._rows("x", x, (len(out), out.shape[1] * (2 if gated else 1)))
        self.call("activate", x, x_stride, out, out_stride, ACTIVATIONS.index(kind), int(gated), *out.shape,
                  self.stream)

    def xielu_rows(self, x: Tensor, out: Tensor, above: float, below: float) -> None:
        out_stride = self._rows("out", out, (-1, -1))
        self.call("xielu_rows", x, self._rows("x", x, out.shape), out, out_stride, above, below, *out.shape,
                  self.stream)

    def cut_rows(self, x: Tensor, deviations: float) -> None:
        self.call("cut_rows", x, self._rows("x", x, (-1, -1)), deviations, *x.shape, self.stream)

    def match_rows(self, x: Tensor, like: Tensor, eps: float) -> None:
        stride, like_stride = self._rows("x", x, (-1, -1)), self._rows("like", like, x.shape)
        self.call("match_rows", x, stride, like, like_stride, eps, *x.shape, self.stream)

    def mix_rows(self, x: Tensor, shares: Tensor, out: Tensor, size: int, add: bool = False) -> None:
        inputs, outputs = x.shape[1] // size, out.shape[1] // size
        x_stride = self._rows("x", x, (-1, inputs * size))
        shares_stride = self._rows("shares", shares, (len(x), outputs * inputs))
        out_stride = self._rows("out", out, (len(x), outputs * size))
        self.call("mix_rows", x, x_stride, shares, shares_stride, out, out_stride, int(add), len(x), inputs,
                  outputs, size, self.stream)

    def cap_rows(self, x: Tensor, scale: float, cap: float | None = None) -> None:
        stride = self._rows("x", x, (-1, -1))
        self.call("cap_rows", x, stride, scale, cap or 0.0, *x.shape, self.stream)

    def rotate_heads(self, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, num_heads: int,
                     interleaved: bool = False) -> None:
        stride = self._rows("x", x, (-1, -1))
        self._dense("cos", cos, (-1, -1))
        self._dense("sin", sin, cos.shape)
        self._dense("positions", positions, (len(x),), (torch.int32,))
        self.call("rotate_heads", x, stride, cos, sin, len(cos), positions, int(interleaved), len(x),
                  num_heads, x.shape[1] // num_heads, 2 * cos.shape[1], self.stream)

    # ---- cache -----------------------------------------------------------------------------------------

    def rope_write_kv(self, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, positions: Tensor,
                      slot_mapping: Tensor, k_cache: Tensor, v_cache: Tensor | None, num_heads: int,
                      num_kv_heads: int, interleaved: bool = False,
                      query_scale: Tensor | None = None) -> None:
        self._dense("k_cache", k_cache, (-1, num_kv_heads, -1, -1), CACHE_DTYPES)
        if v_cache is not None:
            self._dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        num_pages, _, page_size, _ = k_cache.shape
        num_all = num_heads + (1 if v_cache is None else 2) * num_kv_heads
        head_dim = qkv.shape[-1] // num_all
        qkv_stride = self._rows("qkv", qkv, (-1, num_all * head_dim))
        tables = [table for table in (cos, query_scale) if table is not None]
        num_positions = len(tables[0]) if tables else ANY_POSITION
        if cos is not None:
            self._dense("cos", cos, (-1, -1))
            self._dense("sin", sin, cos.shape)
        if query_scale is not None:
            self._dense("query_scale", query_scale, (num_positions,))
        self._dense("positions", positions, (len(qkv),), (torch.int32,))
        self._dense("slot_mapping", slot_mapping, (len(qkv),), (torch.int64,))
        self.call("rope_write_kv", qkv, qkv_stride, cos, sin, query_scale, num_positions, positions,
                  slot_mapping, k_cache, v_cache, cache_code(k_cache, head_dim), num_pages, page_size,
                  len(qkv), num_heads, num_kv_heads, head_dim, 0 if cos is None else 2 * cos.shape[1],
                  int(interleaved), self.stream)

    def fuses_heads(self, weight: LinearWeight, k_cache: Tensor, rotary_dim: int) -> bool:
        return (weight.kind in QUANTIZED_KINDS.values() and k_cache.dtype == torch.float16
                and k_cache.shape[-1] in FUSED_HEAD_DIMS and rotary_dim == k_cache.shape[-1])

    def linear_rope_write_kv(self, x: Tensor, weight: LinearWeight, qkv: Tensor, norm: Tensor | None,
                             eps: float, cos: Tensor, sin: Tensor, positions: Tensor, slot_mapping: Tensor,
                             k_cache: Tensor, v_cache: Tensor, num_heads: int, num_kv_heads: int,
                             interleaved: bool = False) -> None:
        """The same as linear and rope_write_kv to the bit, but keys and values do not come to qkv."""
        check_linear(x, weight.n, weight.k, qkv, norm, "store")
        self._dense("k_cache", k_cache, (-1, num_kv_heads, -1, -1), (torch.float16,))
        self._dense("v_cache", v_cache, k_cache.shape, (torch.float16,))
        num_pages, _, page_size, head_dim = k_cache.shape
        self._dense("cos", cos, (-1, head_dim // 2))
        self._dense("sin", sin, cos.shape)
        self._dense("positions", positions, (len(x),), (torch.int32,))
        self._dense("slot_mapping", slot_mapping, (len(x),), (torch.int64,))
        self.call("linear_rope_write_kv", x, x.stride(0), len(x), norm, eps, ctypes.byref(weight.struct), qkv,
                  qkv.stride(0), cos, sin, len(cos), positions, slot_mapping, k_cache, v_cache, num_pages,
                  page_size, num_heads, num_kv_heads, head_dim, int(interleaved), self.stream)

    def paged_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor | None, block_table: Tensor,
                        cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, num_heads: int, scale: float,
                        window: int | None = None, softcap: float | None = None,
                        sinks: Tensor | None = None) -> None:
        self._dense("k_cache", k_cache, (-1, -1, -1, -1), CACHE_DTYPES)
        if v_cache is not None:
            self._dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        num_pages, num_kv_heads, page_size, _ = k_cache.shape
        head_dim = q.shape[-1] // num_heads
        q_stride = self._rows("q", q, (-1, num_heads * head_dim))
        self._dense("seq_lens", seq_lens, (-1,), (torch.int32,))
        self._dense("cu_seqlens", cu_seqlens, (len(seq_lens) + 1,), (torch.int32,))
        table_stride = self._rows("block_table", block_table, (len(seq_lens), -1), (torch.int32,))
        self._dense("out", out, q.shape)
        if sinks is not None:
            self._dense("sinks", sinks, (num_heads,))
        self.call("paged_attention", q, q_stride, k_cache, v_cache, cache_code(k_cache, head_dim), num_pages,
                  page_size, block_table, table_stride, block_table.shape[1], cu_seqlens, seq_lens, out,
                  len(seq_lens), len(q), num_heads, num_kv_heads, head_dim, scale, window or 0,
                  softcap or 0.0, sinks, self.stream)

    def copy_pages(self, k_cache: Tensor, v_cache: Tensor | None, src: Tensor, dst: Tensor) -> None:
        self._dense("k_cache", k_cache, k_cache.shape, (k_cache.dtype,))
        if v_cache is not None:
            self._dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        self._dense("src", src, (-1,), (torch.int32,))
        self._dense("dst", dst, src.shape, (torch.int32,))
        self.call("copy_pages", k_cache, v_cache, len(k_cache), k_cache[0].nbytes, src, dst, len(src),
                  self.stream)

    # ---- sampling --------------------------------------------------------------------------------------

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow], probabilities: Tensor | None = None,
               surprises: Tensor | None = None, previous: Tensor | None = None) -> Tensor:
        """int32 [S] on the GPU: the next token of each sequence, -1 where none is possible.

        previous  int32 [S]: the last entry of each row's history, which the host does not know yet
        """
        stride = self._rows("logits", logits, (len(rows), -1))
        if probabilities is not None:
            self._dense("probabilities", probabilities, logits.shape)
        if surprises is not None:
            self._dense("surprises", surprises, (len(rows),), (torch.float64,))
        if previous is not None:
            self._dense("previous", previous, (len(rows),), (torch.int32,))
        chosen = torch.empty(len(rows), dtype=torch.int32, device=self.device)
        self.call("sample_after", logits, stride, rows_on_device(rows, self.device), previous, chosen,
                  probabilities, surprises, *logits.shape, self.stream)
        return chosen
