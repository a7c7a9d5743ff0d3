"""The CPU's operations on torch tensors: check shapes, dtypes and strides, then call C.

The methods' names and arguments are those of `Operations`; reference/ says what they compute. They write into
`out` and allocate nothing. One thread at a time may use them (the engine's).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.kernels.binding import Library
from model.kernels.build.cpu import ISAS
from model.kernels.cache_kinds import kind_of
from model.kernels.checks import check, check_dense
from model.kernels.experts import ExpertOperations, PackedExperts
from model.kernels.linear import LinearOperations, LinearWeight
from model.kernels.linear_checks import EPILOGUES, check_linear
from model.kernels.lora import LoraOperations
from model.kernels.operations import ACTIVATIONS, ANY_POSITION, NORMS
from model.kernels.sampling import SamplingRow, SamplingStruct
from model.kernels.states import StateOperations

DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""PARLOR_F32, PARLOR_F16, PARLOR_BF16 of kernels.h."""
CACHE_DTYPES = (torch.float16, torch.float32, torch.uint8)


def cache_code(cache: Tensor, head_dim: int) -> int:
    """PARLOR_F32, _F16, _Q8 or _Q4. Raises ValueError if it holds heads of another size."""
    return kind_of(str(cache.dtype).removeprefix("torch."), cache.shape[3], head_dim).code


def _check_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor | None, out: Tensor, num_heads: int,
                     sinks: Tensor | None) -> tuple[int, int, int]:
    """The row stride of q, num_kv_heads and head_dim. Raises ValueError if the shapes disagree."""
    check_dense("k_cache", k_cache, (-1, -1, -1, -1), CACHE_DTYPES)
    if v_cache is not None:
        check_dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
    q_stride = check("q", q, (-1, -1))
    head_dim = q.shape[1] // num_heads
    check("q", q, (-1, num_heads * head_dim))
    check_dense("out", out, q.shape)
    if sinks is not None:
        check_dense("sinks", sinks, (num_heads,))
    return q_stride, k_cache.shape[1], head_dim


class CpuPrompts:
    """PromptOperations with AMX: products of bfloat16, which no row shares with another."""

    least_rows, whole_layers = 1, None

    def __init__(self, kernels: CpuKernels) -> None:
        self._kernels = kernels

    def prompt_linear(self, x: Tensor, weight: LinearWeight, out: Tensor, norm: Tensor | None = None,
                      eps: float = 0.0, epilogue: str = "store", precise: int = 0) -> None:
        """As `linear`, both factors of a product rounded to bfloat16, but for the first `precise` outputs."""
        self._kernels.multiply("prompt_linear", x, weight, out, norm, eps, epilogue, precise)

    def prompt_mlp(self, x: Tensor, gate_up: LinearWeight, inner: Tensor, down: LinearWeight, out: Tensor,
                   norm: Tensor | None = None, eps: float = 0.0, epilogue: str = "store") -> None:
        """The bits of prompt_linear by `gate_up`, then by `down`; between them bfloat16 is handed over."""
        check_linear(x, gate_up.n, gate_up.k, inner, norm, "silu_mul")
        check_linear(inner, down.n, down.k, out, None, epilogue)
        self._kernels.call("prompt_mlp", x, x.stride(0), len(x), norm, eps, ctypes.byref(gate_up.struct),
                           inner, inner.stride(0), ctypes.byref(down.struct), out, out.stride(0),
                           EPILOGUES.index(epilogue), None)

    def prompt_experts(self, x: Tensor, experts: PackedExperts, chosen: Tensor, shares: Tensor, out: Tensor,
                       add: bool = False, gate: Tensor | None = None) -> None:
        """As `experts`, both factors of a product rounded to bfloat16."""
        self._kernels.compute_experts("prompt_experts", x, experts, chosen, shares, out, add, gate)

    def prompt_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor | None, pages: Tensor,
                         num_keys: int, out: Tensor, num_heads: int, scale: float, window: int | None = None,
                         softcap: float | None = None, sinks: Tensor | None = None) -> None:
        """As `paged_attention` for one sequence, in products of bfloat16; not to a cache of float32.

        q      float32 [T, num_heads * head_dim], the last T of the sequence's `num_keys` tokens
        pages  int32 [>= ceil(num_keys / page_size)]: the sequence's row of the block table
        out    float32 [T, num_heads * head_dim]
        """
        q_stride, num_kv_heads, head_dim = _check_attention(q, k_cache, v_cache, out, num_heads, sinks)
        check_dense("pages", pages, (-1,), (torch.int32,))
        num_pages, _, page_size, _ = k_cache.shape
        self._kernels.call("prompt_attention", q, q_stride, k_cache, v_cache, cache_code(k_cache, head_dim),
                           num_pages, page_size, pages, len(pages), num_keys, out, len(q), num_heads,
                           num_kv_heads, head_dim, scale, window or 0, softcap or 0.0, sinks, None)

    def keep_in_float16(self, weights: Sequence[LinearWeight], nbytes: int) -> None:
        """Prompts are multiplied by the weights as they are."""

    def measure_crossovers(self, weights: Sequence[LinearWeight]) -> None:
        """There is one way for each weight, whatever the number of rows."""


class CpuKernels(LinearOperations, ExpertOperations, StateOperations, LoraOperations):
    """What `load_kernels("cpu")` returns; linear layers come from linear.py, mixtures from experts.py, layers
    with a state from states.py, adapters from lora.py."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.call = library.call

    def _place(self) -> tuple[str, Any]:
        return "cpu", None

    # ---- control ---------------------------------------------------------------------------------------

    @property
    def isa(self) -> str:
        """The instruction set in use, of build.cpu.ISAS."""
        return ISAS[self.library.function("current_isa")()]

    def supported_isas(self) -> tuple[str, ...]:
        """The sets that this machine has, ascending."""
        mask = self.library.function("supported_isas")()
        return tuple(name for index, name in enumerate(ISAS) if mask >> index & 1)

    def force_isa(self, name: str | None) -> None:
        """For tests: use another set, in the whole process; None: the best again.

        Raises ValueError if this machine does not have it.
        """
        if name is not None and name not in self.supported_isas():
            raise ValueError(f"this machine has no {name}; supported: {', '.join(self.supported_isas())}")
        self.call("force_isa", -1 if name is None else ISAS.index(name))

    @property
    def threads(self) -> int:
        return self.library.function("get_threads")()

    def set_threads(self, count: int) -> None:
        """Resize the thread team, which is one for the process; KernelError outside of 1 to 256."""
        self.call("set_threads", count)

    @property
    def prompts(self) -> CpuPrompts | None:
        """AMX has a way of its own with rows of prompts; elsewhere they are computed as all others are."""
        return CpuPrompts(self) if self.isa == "amx" else None

    # ---- rows ------------------------------------------------------------------------------------------

    looks_up_packed = True
    runs_ahead = False

    def fuses_heads(self, weight: LinearWeight, k_cache: Tensor, rotary_dim: int) -> bool:
        return False

    def embed(self, table: Tensor | LinearWeight, token_ids: Tensor, out: Tensor, scale: float = 1.0) -> None:
        if not isinstance(table, Tensor):
            check_dense("token_ids", token_ids, (-1,), (torch.int32,))
            check_dense("out", out, (len(token_ids), table.k))
            self.call("embed_packed", ctypes.byref(table.struct), token_ids, out, scale, len(token_ids), None)
            return
        check_dense("table", table, (-1, -1), tuple(DTYPE_CODES))
        check_dense("token_ids", token_ids, (-1,), (torch.int32,))
        check_dense("out", out, (len(token_ids), table.shape[1]))
        self.call("embed", table, DTYPE_CODES[table.dtype], token_ids, out, scale, len(token_ids),
                  *table.shape, None)

    def norm_rows(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, kind: str,
                  out: Tensor, num_groups: int = 1, add: bool = False, scale: float = 1.0) -> None:
        x_stride, out_stride = check("x", x, (-1, -1)), check("out", out, x.shape)
        size = x.shape[1] // num_groups
        is_shared = all(part is None or len(part) == size for part in (weight, bias))
        for name, part in (("weight", weight), ("bias", bias)):
            if part is not None:
                check_dense(name, part, (size if is_shared else x.shape[1],))
        self.call("norm_rows", x, x_stride, weight, bias, int(is_shared), eps, NORMS.index(kind), out,
                  out_stride, int(add), scale, len(x), num_groups, size, None)

    def activate(self, x: Tensor, out: Tensor, kind: str, gated: bool) -> None:
        out_stride = check("out", out, (-1, -1))
        x_stride = check("x", x, (len(out), out.shape[1] * (2 if gated else 1)))
        self.call("activate", x, x_stride, out, out_stride, ACTIVATIONS.index(kind), int(gated), *out.shape,
                  None)

    def xielu_rows(self, x: Tensor, out: Tensor, above: float, below: float) -> None:
        out_stride = check("out", out, (-1, -1))
        self.call("xielu_rows", x, check("x", x, out.shape), out, out_stride, above, below, *out.shape, None)

    def cut_rows(self, x: Tensor, deviations: float) -> None:
        self.call("cut_rows", x, check("x", x, (-1, -1)), deviations, *x.shape, None)

    def match_rows(self, x: Tensor, like: Tensor, eps: float) -> None:
        stride, like_stride = check("x", x, (-1, -1)), check("like", like, x.shape)
        self.call("match_rows", x, stride, like, like_stride, eps, *x.shape, None)

    def mix_rows(self, x: Tensor, shares: Tensor, out: Tensor, size: int, add: bool = False) -> None:
        inputs, outputs = x.shape[1] // size, out.shape[1] // size
        x_stride = check("x", x, (-1, inputs * size))
        shares_stride = check("shares", shares, (len(x), outputs * inputs))
        out_stride = check("out", out, (len(x), outputs * size))
        self.call("mix_rows", x, x_stride, shares, shares_stride, out, out_stride, int(add), len(x), inputs,
                  outputs, size, None)

    def cap_rows(self, x: Tensor, scale: float, cap: float | None = None) -> None:
        stride = check("x", x, (-1, -1))
        self.call("cap_rows", x, stride, scale, cap or 0.0, *x.shape, None)

    def rotate_heads(self, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, num_heads: int,
                     interleaved: bool = False) -> None:
        stride = check("x", x, (-1, -1))
        check_dense("cos", cos, (-1, -1))
        check_dense("sin", sin, cos.shape)
        check_dense("positions", positions, (len(x),), (torch.int32,))
        self.call("rotate_heads", x, stride, cos, sin, len(cos), positions, int(interleaved), len(x),
                  num_heads, x.shape[1] // num_heads, 2 * cos.shape[1], None)

    def rope_write_kv(self, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, positions: Tensor,
                      slot_mapping: Tensor, k_cache: Tensor, v_cache: Tensor | None, num_heads: int,
                      num_kv_heads: int, interleaved: bool = False,
                      query_scale: Tensor | None = None) -> None:
        check_dense("k_cache", k_cache, (-1, num_kv_heads, -1, -1), CACHE_DTYPES)
        if v_cache is not None:
            check_dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        num_pages, _, page_size, _ = k_cache.shape
        qkv_stride = check("qkv", qkv, (-1, -1))
        num_all = num_heads + (1 if v_cache is None else 2) * num_kv_heads
        head_dim = qkv.shape[1] // num_all
        check("qkv", qkv, (-1, num_all * head_dim))
        tables = [table for table in (cos, query_scale) if table is not None]
        num_positions = len(tables[0]) if tables else ANY_POSITION
        if cos is not None:
            check_dense("cos", cos, (-1, -1))
            check_dense("sin", sin, cos.shape)
        if query_scale is not None:
            check_dense("query_scale", query_scale, (num_positions,))
        check_dense("positions", positions, (len(qkv),), (torch.int32,))
        check_dense("slot_mapping", slot_mapping, (len(qkv),), (torch.int64,))
        self.call("rope_write_kv", qkv, qkv_stride, cos, sin, query_scale, num_positions, positions,
                  slot_mapping, k_cache, v_cache, cache_code(k_cache, head_dim), num_pages, page_size,
                  len(qkv), num_heads, num_kv_heads, head_dim, 0 if cos is None else 2 * cos.shape[1],
                  int(interleaved), None)

    # ---- cache -----------------------------------------------------------------------------------------

    def paged_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor | None, block_table: Tensor,
                        cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, num_heads: int, scale: float,
                        window: int | None = None, softcap: float | None = None,
                        sinks: Tensor | None = None) -> None:
        q_stride, num_kv_heads, head_dim = _check_attention(q, k_cache, v_cache, out, num_heads, sinks)
        num_pages, _, page_size, _ = k_cache.shape
        check_dense("seq_lens", seq_lens, (-1,), (torch.int32,))
        check_dense("cu_seqlens", cu_seqlens, (len(seq_lens) + 1,), (torch.int32,))
        table_stride = check("block_table", block_table, (len(seq_lens), -1), (torch.int32,))
        self.call("paged_attention", q, q_stride, k_cache, v_cache, cache_code(k_cache, head_dim), num_pages,
                  page_size, block_table, table_stride, block_table.shape[1], cu_seqlens, seq_lens, out,
                  len(seq_lens), len(q), num_heads, num_kv_heads, head_dim, scale, window or 0,
                  softcap or 0.0, sinks, None)

    def copy_pages(self, k_cache: Tensor, v_cache: Tensor | None, src: Tensor, dst: Tensor) -> None:
        check_dense("k_cache", k_cache, k_cache.shape, (k_cache.dtype,))
        if v_cache is not None:
            check_dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,))
        check_dense("src", src, (-1,), (torch.int32,))
        check_dense("dst", dst, src.shape, (torch.int32,))
        self.call("copy_pages", k_cache, v_cache, len(k_cache), k_cache[0].nbytes, src, dst, len(src), None)

    # ---- sampling --------------------------------------------------------------------------------------

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow],
               probabilities: Tensor | None = None, surprises: Tensor | None = None) -> Tensor:
        """int32 [S]: the next token of each sequence, -1 where none is possible."""
        stride = check("logits", logits, (len(rows), -1))
        if probabilities is not None:
            check_dense("probabilities", probabilities, logits.shape)
        if surprises is not None:
            check_dense("surprises", surprises, (len(rows),), (torch.float64,))
        chosen = torch.empty(len(rows), dtype=torch.int32)
        pointer_array: Any = ctypes.POINTER(SamplingStruct) * len(rows)
        pointers = pointer_array(*(ctypes.pointer(row.struct) for row in rows))
        self.call("sample", logits, stride, pointers, chosen, probabilities, surprises, *logits.shape,
                  None)
        return chosen
