"""The ways in which keys and values are kept, and the bytes that each takes.

float32 and float16 are plain numbers. q8 and q4 are rotated and rounded: codes of 8 or 4 bits, and a float16
scale for every 32 of them; kernels.h says how they lie in a page. Knows sizes only: no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = 32
"""Consecutive dimensions of a head that share a scale; the last group of a head may be smaller."""


@dataclass(frozen=True)
class CacheKind:
    name: str
    code: int        # PARLOR_F32, _F16, _Q8 or _Q4 of kernels.h
    bits: int        # of one number, scales not counted
    dtype: str       # of torch, of the tensors that hold the cache
    is_quantized: bool

    def row_bytes(self, head_dim: int) -> int:
        """Bytes of one token's key (or value) of one head, its scales included."""
        scales = 2 * -(-head_dim // GROUP) if self.is_quantized else 0
        return head_dim * self.bits // 8 + scales

    def cache_shape(self, num_pages: int, num_kv_heads: int, page_size: int,
                    head_dim: int) -> tuple[int, int, int, int]:
        """Shape of a layer's key tensor, and of its value tensor; a quantized kind's last axis counts bytes.

        Only the sizes mean something: a kernel arranges each [page_size, last] block as kernels.h says.
        """
        return num_pages, num_kv_heads, page_size, self.row_bytes(head_dim) if self.is_quantized else head_dim


CACHE_KINDS = {kind.name: kind for kind in (
    CacheKind("fp16", 1, 16, "float16", False), CacheKind("q8", 3, 8, "uint8", True),
    CacheKind("q4", 4, 4, "uint8", True), CacheKind("fp32", 0, 32, "float32", False))}
"""By name, the usual one first."""


def kind_of(dtype: str, last_size: int, head_dim: int) -> CacheKind:
    """The kind of a cache tensor from its dtype (as torch writes it, without "torch.") and its last size.

    Raises ValueError if there is none.
    """
    for kind in CACHE_KINDS.values():
        if kind.dtype == dtype and kind.cache_shape(1, 1, 1, head_dim)[3] == last_size:
            return kind
    expected = ", ".join(f"{kind.dtype} [..., {kind.cache_shape(1, 1, 1, head_dim)[3]}] ({kind.name})"
                         for kind in CACHE_KINDS.values())
    raise ValueError(f"a cache is {dtype} [..., {last_size}] for heads of {head_dim}; expected {expected}")
