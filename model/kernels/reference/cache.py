"""What is written to a page and read from it, in plain torch: the layouts of kernels.h, kind by kind.

Used by rope_write_kv and paged_attention of operations.py. Written to be read, not to be fast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.kernels.cache_kinds import GROUP, CacheKind, kind_of


def cache_kind(cache: Tensor, head_dim: int) -> CacheKind:
    return kind_of(str(cache.dtype).removeprefix("torch."), cache.shape[3], head_dim)


def hadamard(x: Tensor) -> Tensor:
    """The last axis times a normalized Hadamard matrix, which is its own inverse: float32 [..., n].

    In blocks of the largest power of two that divides n; additions in the order of the fast transform, so
    that kernels can give the same bits.
    """
    n = x.shape[-1]
    block = n & -n
    step = 1
    while step < block:
        a, b = x.reshape(*x.shape[:-1], n // (2 * step), 2, step).unbind(-2)
        x = torch.stack((a + b, a - b), dim=-2).reshape(x.shape)
        step *= 2
    return x * (1 / math.sqrt(block))


def quantize(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of rotated heads: float32 [..., n] -> uint8 [..., n], float16 [..., groups].

    8 bits: scale = largest / 127, code = x / scale to nearest even (two's complement), value = code * scale.
    4 bits: scale = largest / 8, the codes 0 .. 15 are the middles of 16 equal cells from -8 to 8 scales:
            code = floor(x / scale) + 8, value = (code - 7.5) * scale.
    The division is a product with 1 / scale in float32. A scale of zero gives values of zero.
    """
    n = x.shape[-1]
    groups = -(-n // GROUP)
    padded = torch.nn.functional.pad(x, (0, groups * GROUP - n)).unflatten(-1, (groups, GROUP))
    scales = (padded.abs().amax(-1) / (127 if bits == 8 else 8)).half()
    inverse = torch.where(scales == 0, 0.0, 1 / scales.float()).unsqueeze(-1)
    codes = (padded * inverse).round().clamp(-127, 127) if bits == 8 else \
        ((padded * inverse).floor() + 8).clamp(0, 15)
    return codes.to(torch.int16).to(torch.uint8).flatten(-2)[..., :n], scales


def dequantize(codes: Tensor, scales: Tensor, bits: int) -> Tensor:
    """The rotated heads that `quantize` meant: float32 [..., n]."""
    numbers = codes.view(torch.int8).float() if bits == 8 else codes.float() - 7.5
    return numbers * scales.float().repeat_interleave(GROUP, dim=-1)[..., :codes.shape[-1]]


def read_keys(cache: Tensor, head_dim: int) -> Tensor:
    """float32 [num_pages, num_kv_heads, page_size, head_dim]; those of quantized kinds still rotated."""
    kind = cache_kind(cache, head_dim)
    if not kind.is_quantized:
        return transposed_keys(cache).transpose(2, 3).float()
    codes, scales = _unpacked(cache, kind, head_dim, are_keys=True)
    return dequantize(codes, scales, kind.bits)


def read_values(cache: Tensor, head_dim: int) -> Tensor:
    """As read_keys."""
    kind = cache_kind(cache, head_dim)
    if not kind.is_quantized:
        return cache.float()
    codes, scales = _unpacked(cache, kind, head_dim, are_keys=False)
    return dequantize(codes, scales, kind.bits)


def write(cache: Tensor, page: Tensor, offset: Tensor, rows: Tensor, are_keys: bool) -> None:
    """Put rows, float32 [T, num_kv_heads, head_dim] (not yet rotated), at (page[i], offset[i])."""
    kind = cache_kind(cache, rows.shape[-1])
    if not kind.is_quantized:
        if are_keys:
            transposed_keys(cache)[page, :, :, offset] = rows.to(cache.dtype)
        else:
            cache[page, :, offset] = rows.to(cache.dtype)
        return
    codes, scales = _unpacked(cache, kind, rows.shape[-1], are_keys)
    codes[page, :, offset], scales[page, :, offset] = quantize(hadamard(rows), kind.bits)
    _pack(codes, scales, cache, kind, are_keys)


def transposed_keys(k_cache: Tensor) -> Tensor:
    """The key cache of a plain kind as it lies in memory: [num_pages, num_kv_heads, head_dim, page_size].

    It has the values' shape everywhere else, but in each page and head the keys are the columns, so that a
    kernel takes the same element of 16 keys with one load. Pages stay whole, so nobody else need know.
    """
    num_pages, num_kv_heads, page_size, head_dim = k_cache.shape
    return k_cache.view(num_pages, num_kv_heads, head_dim, page_size)


# A page of a quantized kind: words of 32 bits, then scales. A word holds the codes of 4 or 8 consecutive
# dimensions of a key, or of one dimension of 4 or 8 consecutive values; its first code is in the lowest bits.


def _unpacked(cache: Tensor, kind: CacheKind, head_dim: int, are_keys: bool) -> tuple[Tensor, Tensor]:
    """Copies: uint8 [num_pages, num_kv_heads, page_size, head_dim] and float16 [..., page_size, groups]."""
    pages, heads, page_size = cache.shape[:3]
    octets, scales = cache.flatten(2).split([page_size * head_dim * kind.bits // 8,
                                             page_size * 2 * -(-head_dim // GROUP)], dim=2)
    codes = octets if kind.bits == 8 else torch.stack((octets & 15, octets >> 4), dim=-1)
    in_word = 32 // kind.bits
    if are_keys:
        codes = codes.reshape(pages, heads, head_dim // in_word, page_size, in_word).transpose(2, 3)
    else:
        codes = codes.reshape(pages, heads, page_size // in_word, head_dim, in_word).transpose(3, 4)
    by_group = scales.contiguous().view(torch.float16).reshape(pages, heads, -1, page_size)
    return codes.reshape(pages, heads, page_size, head_dim).clone(), by_group.transpose(2, 3).clone()


def _pack(codes: Tensor, scales: Tensor, cache: Tensor, kind: CacheKind, are_keys: bool) -> None:
    """The inverse of `_unpacked`."""
    pages, heads, page_size, head_dim = codes.shape
    in_word = 32 // kind.bits
    if are_keys:
        codes = codes.reshape(pages, heads, page_size, head_dim // in_word, in_word).transpose(2, 3)
    else:
        codes = codes.reshape(pages, heads, page_size // in_word, in_word, head_dim).transpose(3, 4)
    octets = codes.reshape(pages, heads, -1)
    if kind.bits == 4:
        octets = octets[..., ::2] | octets[..., 1::2] << 4
    scale_octets = scales.transpose(2, 3).contiguous().view(torch.uint8).reshape(pages, heads, -1)
    cache.copy_(torch.cat((octets, scale_octets), dim=2).view(cache.shape))
