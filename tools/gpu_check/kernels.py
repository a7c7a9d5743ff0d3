"""The kernels beside the products, one by one: microseconds, and the share of the least time for their bytes.

    python -m tools.gpu_check.kernels          a product and the attention of a token, for a profiler

Sizes are those of a model's shape. Caches are used in turn, so that the GPU's own does not hold them, and as
CUDA graphs, so that short kernels follow each other without gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from model.engine.request import SamplingParams
from model.families.spec import Attention, Spec
from model.formats.synthetic import GROUP_SIZE, synthetic_config
from model.kernels import load_kernels
from model.kernels.cache_kinds import CACHE_KINDS
from model.kernels.crossover import milliseconds
from model.kernels.linear import LinearWeight
from model.kernels.sampling import SamplingRow
from model.network.cuda_graph import cuda_capture
from model.network.modules import layer_modules
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


def random_weight(ops: Any, n: int, k: int, group_size: int, kind: str = "one zero point") -> LinearWeight:
    """4 bits; `kind`: one zero point for all, a byte for each group, or (act-order) columns in any order."""
    codes = torch.randint(0, 16, (n, k), dtype=torch.uint8, device="cuda")
    scales = torch.full((n, k // group_size), 0.01, dtype=torch.float16, device="cuda")
    zeros = torch.full((n, k // group_size), 8, dtype=torch.uint8, device="cuda")
    if kind == "byte zero points":
        zeros.random_(0, 16)
    order = torch.randperm(k, device="cuda").int() if kind == "act-order" else None
    return ops.pack_linear(codes, scales, zeros, group_size, perm=order)


def measure_kernels(spec: Spec, limits: Rates, context: int = 2048) -> list[dict[str, Any]]:
    ops = load_kernels("cuda")
    found = [_attention(ops, spec, limits, kind, batch, context)
             for kind in ("fp16", "q8", "q4") for batch in (1, 8)]
    return [*found, *_rotation(ops, spec, limits), _prompt(ops, spec, limits, context),
            *_sampling(ops, spec, limits)]


def _caches(of: Attention, kind: str, num_pages: int) -> list[torch.Tensor]:
    made = CACHE_KINDS[kind]
    shape = made.cache_shape(num_pages, of.num_kv_heads, PAGE_SIZE, of.head_dim)
    dtype = getattr(torch, made.dtype)
    if dtype.is_floating_point:
        return [torch.randn(shape, dtype=dtype, device="cuda") for _ in range(2)]
    # as scales such bytes are numbers from 0 to 1
    return [torch.randint(0x3c, shape, dtype=dtype, device="cuda") for _ in range(2)]


def _attend(ops: Any, of: Attention, kind: str, batch: int, context: int,
            num_layers: int) -> Callable[[], None]:
    """Decoding behind a context, in layers with caches of their own."""
    pages = context // PAGE_SIZE
    layers = [_caches(of, kind, batch * pages) for _ in range(num_layers)]
    q = torch.randn(batch, of.query_size, device="cuda")
    out = torch.empty_like(q)
    table = torch.arange(batch * pages, dtype=torch.int32, device="cuda").view(batch, -1)
    starts = torch.arange(batch + 1, dtype=torch.int32, device="cuda")
    lengths = torch.full((batch,), context, dtype=torch.int32, device="cuda")

    def run() -> None:
        for keys, values in layers:
            ops.paged_attention(q, keys, values, table, starts, lengths, out, of.num_heads, 0.1)

    return run


def _attention(ops: Any, spec: Spec, limits: Rates, kind: str, batch: int, context: int) -> dict[str, Any]:
    of = spec.layers[0].attention
    num_bytes = batch * context * 2 * of.num_kv_heads * CACHE_KINDS[kind].row_bytes(of.head_dim)
    num_layers = max(1, _CACHE_BYTES // num_bytes)
    run = _attend(ops, of, kind, batch, context, num_layers)
    return row(f"attention at {context:,}, {kind}, {batch} rows", limits,
               milliseconds(graphed(run)) * 1000 / num_layers, num_bytes)


def _rotation(ops: Any, spec: Spec, limits: Rates) -> list[dict[str, Any]]:
    """Of a token, in a kernel of its own and in that of the product, which alone is a linear layer."""
    of = spec.attentions[0]
    caches = _caches(of, "fp16", 4)
    n, k = (of.num_heads + 2 * of.num_kv_heads) * of.head_dim, spec.hidden_size
    x, qkv = torch.randn(1, k, device="cuda"), torch.randn(1, n, device="cuda")
    table = torch.ones(8, of.head_dim // 2, device="cuda")
    position, slot = (torch.zeros(1, dtype=dtype, device="cuda") for dtype in (torch.int32, torch.int64))
    place, heads = (table, table, position, slot, *caches), (of.num_heads, of.num_kv_heads)
    weights = [random_weight(ops, n, k, GROUP_SIZE) for _ in range(max(1, _CACHE_BYTES // (n * k // 2)))]

    def rotate() -> None:
        for _ in weights:
            ops.rope_write_kv(qkv, *place, *heads)

    def project() -> None:
        for weight in weights:
            ops.linear_rope_write_kv(x, weight, qkv, None, 0.0, *place, *heads)

    return [row(what, limits, milliseconds(graphed(run)) * 1000 / len(weights), num_bytes)
            for what, run, num_bytes in (("rotation and writing, 1 row", rotate, 4 * qkv.nbytes),
                                         ("the same with the product", project, weights[0].nbytes))]


def _prompt(ops: Any, spec: Spec, limits: Rates, context: int) -> dict[str, Any]:
    """All rows of a prompt at once: gathered keys and values, then torch's attention."""
    of = spec.layers[0].attention
    caches = _caches(of, "fp16", context // PAGE_SIZE)
    q = torch.randn(context, of.query_size, device="cuda")
    out, pages = torch.empty_like(q), torch.arange(context // PAGE_SIZE, dtype=torch.int32, device="cuda")
    taken = milliseconds(lambda: ops.prompt_attention(q, *caches, pages, context, out, of.num_heads, 0.1))
    num_bytes = 2 * q.nbytes + 2 * caches[0].nbytes
    return row(f"attention of a prompt of {context:,}", limits, taken * 1000, num_bytes,
               2 * context * (context + 1) * of.query_size)


def _sampling(ops: Any, spec: Spec, limits: Rates) -> list[dict[str, Any]]:
    """With the copy of a row's settings and the wait for its token, as each step of decoding has them."""
    history, found = torch.randint(0, spec.vocab_size, (2048,), dtype=torch.int32), []
    logits = torch.randn(1, spec.vocab_size, device="cuda") * 3
    ways = {"greedy": SamplingParams(temperature=0.0), "by default": SamplingParams(),
            "every cut": SamplingParams(top_k=40, top_p=0.9, min_p=0.02, typical_p=0.9)}
    for name, settings in ways.items():
        rows = [SamplingRow(settings, history=history, num_tokens=2048, prompt_length=1024, seed=1)]
        taken = milliseconds(lambda rows=rows: ops.sample(logits, rows).tolist())
        found.append(row(f"sampling {name}, {spec.vocab_size:,} tokens", limits, taken * 1000,
                         logits.nbytes))
    return found


def main() -> int:
    """Each twice: a profiler repeats them as often as it needs."""
    ops, config = load_kernels("cuda"), synthetic_config("llama-2-7b")
    group = layer_modules(config.spec, config.names, 0)[0]
    weight = random_weight(ops, group.n, group.k, GROUP_SIZE)
    x, out = torch.randn(1, group.k, device="cuda"), torch.empty(1, group.n, device="cuda")
    attend = _attend(ops, config.spec.layers[0].attention, "fp16", 1, 2048, 1)
    for _ in range(2):
        ops.linear(x, weight, out)
        attend()
    torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
