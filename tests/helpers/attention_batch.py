"""A ragged batch of attention on scattered pages, of any cache kind, for the tests of kernels."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import torch

from model.kernels.cache_kinds import CACHE_KINDS
from model.kernels.reference import cache as cache_reference
from tests.helpers.strided import GUARD


def empty_caches(kind: str, num_pages: int, kv_heads: int, page_size: int,
                 head_dim: int) -> list[torch.Tensor]:
    """A key and a value cache that hold NaN wherever a float can."""
    made = CACHE_KINDS[kind]
    shape = made.cache_shape(num_pages, kv_heads, page_size, head_dim)
    fill = 255 if made.is_quantized else math.nan  # 0xFFFF is a NaN of float16
    return [torch.full(shape, fill, dtype=getattr(torch, made.dtype)) for _ in range(2)]


def _as_values(keys: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The value cache that holds the very numbers of this key cache."""
    kind = cache_reference.cache_kind(keys, head_dim)
    if not kind.is_quantized:
        return cache_reference.transposed_keys(keys).transpose(2, 3).contiguous()
    values = torch.empty_like(keys)
    codes, scales = cache_reference._unpacked(keys, kind, head_dim, are_keys=True)
    cache_reference._pack(codes, scales, values, kind, are_keys=False)
    return values


class Batch:
    """Sequences are (query rows, keys). Whatever a kernel must not read holds NaN."""

    def __init__(self, sequences: list[tuple[int, int]], *, heads: int, kv_heads: int, head_dim: int,
                 page_size: int = 32, kind: str = "fp16", keys_only: bool = False) -> None:
        """keys_only: these are the values, too."""
        self.heads, self.scale, self.page_size = heads, head_dim ** -0.5, page_size
        counts = [math.ceil(keys / page_size) for _, keys in sequences]
        num_pages = sum(counts) + 2
        self.k_cache, values = empty_caches(kind, num_pages, kv_heads, page_size, head_dim)
        self.v_cache = None if keys_only else values
        order = torch.randperm(num_pages)
        free = iter(order.tolist())
        self.block_table = torch.full((len(sequences), max([*counts, 1])), -1, dtype=torch.int32)
        for s, count in enumerate(counts):
            self.block_table[s, :count] = torch.tensor([next(free) for _ in range(count)], dtype=torch.int32)
        places = [(int(self.block_table[s, i // page_size]), i % page_size)
                  for s, (_, keys) in enumerate(sequences) for i in range(keys)]
        pages, offsets = torch.tensor(places).reshape(-1, 2).unbind(1)
        for cache, are_keys in ((self.k_cache, True), (self.v_cache, False)):
            if cache is not None:
                rows = torch.randn(len(places), kv_heads, head_dim)
                cache_reference.write(cache, pages, offsets, rows, are_keys)
        self.cu_seqlens = torch.tensor([0, *itertools.accumulate(m for m, _ in sequences)], dtype=torch.int32)
        self.seq_lens = torch.tensor([keys for _, keys in sequences], dtype=torch.int32)
        tokens = int(self.cu_seqlens[-1])
        self.qkv = torch.randn(tokens, (heads + (1 if keys_only else 2) * kv_heads) * head_dim)
        self.q = self.qkv[:, :heads * head_dim]

    def part(self, s: int, first: int = 0, last: int | None = None) -> Batch:
        """Sequence `s` alone, only its query rows first .. last, as if its later keys were not there yet."""
        rows = int(self.cu_seqlens[s + 1] - self.cu_seqlens[s])
        last = rows if last is None else last
        alone = object.__new__(Batch)
        alone.heads, alone.scale, alone.page_size = self.heads, self.scale, self.page_size
        alone.k_cache, alone.v_cache = self.k_cache, self.v_cache
        alone.block_table = self.block_table[s:s + 1]
        alone.cu_seqlens = torch.tensor([0, last - first], dtype=torch.int32)
        alone.seq_lens = self.seq_lens[s:s + 1] - (rows - last)
        start = int(self.cu_seqlens[s])
        alone.q = self.q[start + first:start + last]
        return alone

    def with_values(self) -> Batch:
        """The same with the keys once more as values of their own."""
        alike = copy.copy(self)
        alike.v_cache = _as_values(self.k_cache, self.q.shape[1] // self.heads)
        return alike

    def run(self, ops: Any, **rules: Any) -> torch.Tensor:
        """`rules` are further arguments of paged_attention."""
        out = torch.full(self.q.shape, GUARD)
        ops.paged_attention(self.q, self.k_cache, self.v_cache, self.block_table, self.cu_seqlens,
                            self.seq_lens, out, self.heads, self.scale, **rules)
        return out
