"""The types of tensors in GGUF files: blocks of bytes -> codes, scales and minimums.

A row is a run of blocks of 32 or 256 weights. Each type here is unpacked into the one form
  weight = (table[code] or code - zero) * scale * step - minimum * min_step
with a scale and a minimum for each group of 16 or 32 weights, and (K-quants) a step for each 256 of them, so
that nothing is rounded. Types that use grids (IQ1 to IQ3) and ternary ones are known by name and size only.
Layout: https://github.com/ggml-org/llama.cpp/blob/b4882/ggml/src/ggml-common.h
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.kernels.groups import Groups

IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4_VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice the E2M1 numbers
_FP4_FACTOR = 0.5  # so that they are right


@dataclass(frozen=True)
class GgmlType:
    """A type of tensors; `unpack` is None for those whose numbers Parlor cannot compute with."""

    name: str
    block: int        # weights in a block
    block_bytes: int
    unpack: Callable[[Tensor], Groups] | None = None
    dtype: torch.dtype | None = None  # of types without blocks

    @property
    def is_supported(self) -> bool:
        return self.unpack is not None or self.dtype is not None

    def row_bytes(self, columns: int) -> int:
        return columns // self.block * self.block_bytes

    def groups(self, raw: Tensor) -> Groups:
        """Unpack uint8 [rows, row_bytes] of a type with blocks."""
        assert self.unpack is not None
        rows = len(raw)
        found = self.unpack(raw.view(-1, self.block_bytes))
        factors = torch.full((rows,), _FP4_FACTOR, device=raw.device) if found.has_factors else None

        def joined(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.reshape(rows, -1)

        return Groups(found.codes.reshape(rows, -1), found.bits, found.size, found.scales.reshape(rows, -1),
                      found.zero, joined(found.mins), joined(found.steps), joined(found.min_steps),
                      found.table, factors)

    def dequantize(self, raw: Tensor) -> Tensor:
        """float32 [rows, columns] of uint8 [rows, row_bytes]."""
        if self.dtype is not None:
            return raw.view(self.dtype).float()
        return self.groups(raw).dequantize()


def _halves(blocks: Tensor, at: int, count: int = 1) -> Tensor:
    """float16 [blocks, count]."""
    return blocks[:, at:at + 2 * count].contiguous().view(torch.float16)


def _nibbles(part: Tensor, run: int) -> Tensor:
    """Each run of `run` bytes holds as many low nibbles' weights, then those of the high ones."""
    runs = part.reshape(len(part), -1, 1, run)
    return torch.cat((runs & 15, runs >> 4), 2).view(len(part), -1)


def _pairs_of_bits(part: Tensor) -> Tensor:
    """32 bytes hold the weights of their lowest two bits, then those of the next two, and so on."""
    runs = part.reshape(len(part), -1, 1, 32)
    return torch.cat([runs >> shift & 3 for shift in (0, 2, 4, 6)], 2).view(len(part), -1)


def _single_bits(part: Tensor, count: int) -> Tensor:
    """32 bytes hold the weights of their lowest bit, then those of the next; `count` bits."""
    return torch.cat([part >> bit & 1 for bit in range(count)], 1)


def _bit_string(part: Tensor) -> Tensor:
    """A bit a weight, lowest first."""
    return torch.stack([part >> bit & 1 for bit in range(8)], -1).view(len(part), -1)


def _q4_0(b: Tensor) -> Groups:
    return Groups(_nibbles(b[:, 2:], 16), 4, 32, _halves(b, 0), 8)


def _q4_1(b: Tensor) -> Groups:
    return Groups(_nibbles(b[:, 4:], 16), 4, 32, _halves(b, 0), mins=-_halves(b, 2))


def _q5_0(b: Tensor) -> Groups:
    return Groups(_nibbles(b[:, 6:], 16) | _bit_string(b[:, 2:6]) << 4, 5, 32, _halves(b, 0), 16)


def _q5_1(b: Tensor) -> Groups:
    return Groups(_nibbles(b[:, 8:], 16) | _bit_string(b[:, 4:8]) << 4, 5, 32, _halves(b, 0),
                  mins=-_halves(b, 2))


def _q8_0(b: Tensor) -> Groups:
    return Groups(b[:, 2:] ^ 0x80, 8, 32, _halves(b, 0), 128)  # int8 + 128


def _q2_k(b: Tensor) -> Groups:
    return Groups(_pairs_of_bits(b[:, 16:80]), 2, 16, (b[:, :16] & 15).view(torch.int8),
                  mins=b[:, :16] >> 4, steps=_halves(b, 80), min_steps=_halves(b, 82))


def _q3_k(b: Tensor) -> Groups:
    low, high = b[:, 96:104], b[:, 104:108]
    scales = torch.cat((low & 15, low >> 4), 1) | torch.cat([high >> s & 3 for s in (0, 2, 4, 6)], 1) << 4
    codes = _pairs_of_bits(b[:, 32:96]) | _single_bits(b[:, :32], 8) << 2
    return Groups(codes, 3, 16, scales.view(torch.int8) - 32, 4, steps=_halves(b, 108))


def _six_bit_scales(b: Tensor) -> tuple[Tensor, Tensor]:
    """Scales int8 and minimums uint8 [blocks, 8] of the 12 bytes of Q4_K and Q5_K."""
    first, second, rest = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scales = torch.cat((first & 63, rest & 15 | first >> 6 << 4), 1)
    return scales.view(torch.int8), torch.cat((second & 63, rest >> 4 | second >> 6 << 4), 1)


def _q4_k(b: Tensor) -> Groups:
    scales, mins = _six_bit_scales(b)
    return Groups(_nibbles(b[:, 16:], 32), 4, 32, scales, mins=mins, steps=_halves(b, 0),
                  min_steps=_halves(b, 2))


def _q5_k(b: Tensor) -> Groups:
    scales, mins = _six_bit_scales(b)
    codes = _nibbles(b[:, 48:], 32) | _single_bits(b[:, 16:48], 8) << 4
    return Groups(codes, 5, 32, scales, mins=mins, steps=_halves(b, 0), min_steps=_halves(b, 2))


def _q6_k(b: Tensor) -> Groups:
    codes = _nibbles(b[:, :128], 64) | _pairs_of_bits(b[:, 128:192]) << 4
    return Groups(codes, 6, 16, b[:, 192:208].view(torch.int8), 32, steps=_halves(b, 208))


def _iq4_nl(b: Tensor) -> Groups:
    return Groups(_nibbles(b[:, 2:], 16), 4, 32, _halves(b, 0), table=IQ4_VALUES)


def _iq4_xs(b: Tensor) -> Groups:
    low = torch.stack((b[:, 4:8] & 15, b[:, 4:8] >> 4), -1).view(-1, 8)
    high = torch.stack([b[:, 2:4] >> shift & 3 for shift in (0, 2, 4, 6)], -1).view(-1, 8)
    return Groups(_nibbles(b[:, 8:], 16), 4, 32, (low | high << 4).view(torch.int8) - 32,
                  steps=_halves(b, 0), table=IQ4_VALUES)


def _mxfp4(b: Tensor) -> Groups:
    return Groups(_nibbles(b[:, 1:], 16), 4, 32, b[:, :1].view(torch.float8_e8m0fnu), table=FP4_VALUES)


def _nvfp4(b: Tensor) -> Groups:
    """Scales without sign, whose NaN counts as 0."""
    scales = (b[:, :4] & 0x7F).where(b[:, :4] & 0x7F != 0x7F, 0)
    return Groups(_nibbles(b[:, 4:], 8), 4, 16, scales.view(torch.float8_e4m3fn), table=FP4_VALUES)


_TYPES = {
    0: GgmlType("F32", 1, 4, dtype=torch.float32), 1: GgmlType("F16", 1, 2, dtype=torch.float16),
    30: GgmlType("BF16", 1, 2, dtype=torch.bfloat16),
    2: GgmlType("Q4_0", 32, 18, _q4_0), 3: GgmlType("Q4_1", 32, 20, _q4_1),
    6: GgmlType("Q5_0", 32, 22, _q5_0), 7: GgmlType("Q5_1", 32, 24, _q5_1),
    8: GgmlType("Q8_0", 32, 34, _q8_0),
    10: GgmlType("Q2_K", 256, 84, _q2_k), 11: GgmlType("Q3_K", 256, 110, _q3_k),
    12: GgmlType("Q4_K", 256, 144, _q4_k), 13: GgmlType("Q5_K", 256, 176, _q5_k),
    14: GgmlType("Q6_K", 256, 210, _q6_k),
    20: GgmlType("IQ4_NL", 32, 18, _iq4_nl), 23: GgmlType("IQ4_XS", 256, 136, _iq4_xs),
    39: GgmlType("MXFP4", 32, 17, _mxfp4), 40: GgmlType("NVFP4", 64, 36, _nvfp4),
    9: GgmlType("Q8_1", 32, 40), 15: GgmlType("Q8_K", 256, 292), 16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74), 18: GgmlType("IQ3_XXS", 256, 98), 19: GgmlType("IQ1_S", 256, 50),
    21: GgmlType("IQ3_S", 256, 110), 22: GgmlType("IQ2_S", 256, 82), 24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2), 26: GgmlType("I32", 1, 4), 27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8), 29: GgmlType("IQ1_M", 256, 56), 34: GgmlType("TQ1_0", 256, 54),
    35: GgmlType("TQ2_0", 256, 66), 41: GgmlType("Q1_0", 128, 18),
}
SUPPORTED = tuple(kind.name for kind in _TYPES.values() if kind.is_supported)


def ggml_type(number: int) -> GgmlType | None:
    """The type that GGUF files name by this number, or None."""
    return _TYPES.get(number)
