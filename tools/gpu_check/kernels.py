"""The kernels beside the products, one by one: microseconds, and the share of the least time for their bytes.

Sizes are those of a model's shape. Caches are used in turn, so that the GPU's own does not hold them, and as
CUDA graphs, so that short kernels follow each other without gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from model.engine.request import SamplingParams
from model.kernels import load_kernels
from model.kernels.cache_kinds import CACHE_KINDS
from model.kernels.crossover import milliseconds
from model.kernels.sampling import SamplingRow
from model.network.cuda_graph import cuda_capture
from model.sizes import PAGE_SIZE
from tools.benchmark.limits import Rates, Work

_CACHE_BYTES = 256 << 20


def graphed(work: Callable[[], Any]) -> Callable[[], None]:
    """`work`, captured after it has run once."""
    work()
    torch.cuda.synchronize()
    return cuda_capture(torch.device("cuda", torch.cuda.current_device()))(work)


def row(what: str, limits: Rates, taken: float, num_bytes: float, operations: float = 0.0) -> dict[str, Any]:
    floor = limits.least_seconds(Work(num_bytes, operations)) * 1e6
    return {"what": what, "microseconds": taken, "floor": floor, "share": floor / taken}


def measure_kernels(config: Any, limits: Rates, context: int = 2048) -> list[dict[str, Any]]:
    ops = load_kernels("cuda")
    found = [_attention(ops, config, limits, kind, batch, context)
             for kind in ("fp16", "q8", "q4") for batch in (1, 8)]
    return [*found, _rotation(ops, config, limits), _prompt(ops, config, limits, context),
            *_sampling(ops, config, limits)]


def _caches(config: Any, kind: str, num_pages: int) -> list[torch.Tensor]:
    made = CACHE_KINDS[kind]
    shape = made.cache_shape(num_pages, config.num_kv_heads, PAGE_SIZE, config.head_dim)
    return [torch.zeros(shape, dtype=getattr(torch, made.dtype), device="cuda") for _ in range(2)]


def _attention(ops: Any, config: Any, limits: Rates, kind: str, batch: int, context: int) -> dict[str, Any]:
    """Decoding behind a context."""
    pages = context // PAGE_SIZE
    num_bytes = batch * context * 2 * config.num_kv_heads * CACHE_KINDS[kind].row_bytes(config.head_dim)
    layers = [_caches(config, kind, batch * pages) for _ in range(max(1, _CACHE_BYTES // num_bytes))]
    q = torch.randn(batch, config.num_heads * config.head_dim, device="cuda")
    out = torch.empty_like(q)
    table = torch.arange(batch * pages, dtype=torch.int32, device="cuda").view(batch, -1)
    starts = torch.arange(batch + 1, dtype=torch.int32, device="cuda")
    lengths = torch.full((batch,), context, dtype=torch.int32, device="cuda")

    def run() -> None:
        for keys, values in layers:
            ops.paged_attention(q, keys, values, table, starts, lengths, out, config.num_heads, 0.1)

    return row(f"attention at {context:,}, {kind}, {batch} rows", limits,
               milliseconds(graphed(run)) * 1000 / len(layers), num_bytes)


def _rotation(ops: Any, config: Any, limits: Rates) -> dict[str, Any]:
    caches = _caches(config, "fp16", 4)
    heads = config.num_heads + 2 * config.num_kv_heads
    qkv = torch.randn(1, heads * config.head_dim, device="cuda")
    table = torch.ones(8, config.head_dim // 2, device="cuda")
    position, slot = (torch.zeros(1, dtype=dtype, device="cuda") for dtype in (torch.int32, torch.int64))

    def run() -> None:
        for _ in range(32):
            ops.rope_write_kv(qkv, table, table, position, slot, *caches, config.num_heads,
                              config.num_kv_heads)

    return row("rotation and writing, 1 row", limits, milliseconds(graphed(run)) * 1000 / 32, 4 * qkv.nbytes)


def _prompt(ops: Any, config: Any, limits: Rates, context: int) -> dict[str, Any]:
    """All rows of a prompt at once: gathered keys and values, then torch's attention."""
    caches = _caches(config, "fp16", context // PAGE_SIZE)
    q = torch.randn(context, config.num_heads * config.head_dim, device="cuda")
    out, pages = torch.empty_like(q), torch.arange(context // PAGE_SIZE, dtype=torch.int32, device="cuda")
    taken = milliseconds(lambda: ops.prompt_attention(q, *caches, pages, context, out, config.num_heads, 0.1))
    num_bytes = 2 * q.nbytes + 2 * caches[0].nbytes
    return row(f"attention of a prompt of {context:,}", limits, taken * 1000, num_bytes,
               2 * context * (context + 1) * config.num_heads * config.head_dim)


def _sampling(ops: Any, config: Any, limits: Rates) -> list[dict[str, Any]]:
    """With the copy of a row's settings and the wait for its token, as each step of decoding has them."""
    history, found = torch.randint(0, config.vocab_size, (2048,), dtype=torch.int32), []
    logits = torch.randn(1, config.vocab_size, device="cuda") * 3
    ways = {"greedy": SamplingParams(temperature=0.0), "by default": SamplingParams(),
            "every cut": SamplingParams(top_k=40, top_p=0.9, min_p=0.02, typical_p=0.9)}
    for name, settings in ways.items():
        rows = [SamplingRow(settings, history=history, num_tokens=2048, prompt_length=1024, seed=1)]
        taken = milliseconds(lambda rows=rows: ops.sample(logits, rows).tolist())
        found.append(row(f"sampling {name}, {config.vocab_size:,} tokens", limits, taken * 1000,
                         logits.nbytes))
    return found
