"""Codes, scales and zero points of one quantized matrix, and their GPTQ packing into 32-bit words.

The layout (AutoGPTQ's, `checkpoint_format: gptq`) for `bits` of 2, 3, 4 or 8:
  qweight  int32 [in * bits / 32, out]       codes along `in`, lowest bits first, as one stream of bits
  qzeros   int32 [groups, out * bits / 32]   zero point - 1, packed along `out` the same way
  scales   float16 [groups, out]
  g_idx    int32 [in]                        the group of each input column
weight[k, n] = (code[k, n] - zero[g_idx[k], n]) * scale[g_idx[k], n]

Knows nothing of models or of how the codes were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

WORD_BITS = 32
SUPPORTED_BITS = (2, 3, 4, 8)
_INPUTS_AT_ONCE = 512
"""Whose zero points and scales are looked up together."""


class Matrix(Protocol):
    """[out, in] of any float type, some outputs at a time: a Tensor, or what makes one of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, outputs: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class CodedMatrix:
    """One linear layer's weight as codes on a grid; `in` first, as the packed tensors have it."""

    bits: int
    codes: Tensor   # uint8 [in, out], 0 .. 2^bits - 1
    scales: Tensor  # float16 [groups, out], above 0
    zeros: Tensor   # uint8 [groups, out], 1 .. 2^bits - 1
    g_idx: Tensor   # int32 [in], the group of each row of codes

    def dequantize(self) -> Tensor:
        """float32 [out, in], as a linear layer's weight."""
        return self[:]

    def __len__(self) -> int:
        return self.codes.shape[1]

    def __getitem__(self, outputs: slice) -> Tensor:
        """The rows of `dequantize` for these outputs, without the others."""
        group = self.g_idx.long()
        zeros, scales = self.zeros[:, outputs].float(), self.scales[:, outputs].float()
        weight = self.codes[:, outputs].float()
        for first in range(0, len(weight), _INPUTS_AT_ONCE):
            rows = slice(first, first + _INPUTS_AT_ONCE)
            weight[rows].sub_(zeros[group[rows]]).mul_(scales[group[rows]])
        return weight.t().contiguous()

    def packed(self) -> dict[str, Tensor]:
        """The four tensors of the file, by their names."""
        stored_zeros = self.zeros.to(torch.int64) - 1  # version 1 of the format stores zero - 1
        return {
            "qweight": pack_rows(self.codes, self.bits),
            "qzeros": pack_rows(stored_zeros.t(), self.bits).t().contiguous(),
            "scales": self.scales.contiguous(),
            "g_idx": self.g_idx.clone(),  # a file holds no two tensors of one memory
        }


def check_packable(in_features: int, out_features: int, bits: int) -> None:
    """Raise ValueError unless both sizes fill whole words."""
    for what, size in (("inputs", in_features), ("outputs", out_features)):
        if size * bits % WORD_BITS:
            raise ValueError(f"{size} {what} of {bits} bits do not fill whole {WORD_BITS}-bit words; "
                             f"the GPTQ format needs a multiple of {multiple_for(bits)}")


def is_packable(in_features: int, out_features: int, bits: int) -> bool:
    return in_features * bits % WORD_BITS == 0 and out_features * bits % WORD_BITS == 0


def packed_bytes(in_features: int, out_features: int, bits: int, groups: int) -> int:
    """Of the four tensors together."""
    return (in_features + groups) * out_features * bits // 8 + 2 * groups * out_features + 4 * in_features


def multiple_for(bits: int) -> int:
    """How many codes fill a whole number of words: 4 bits 8, 3 bits 32."""
    return next(count for count in (4, 8, 16, 32) if count * bits % WORD_BITS == 0)


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """Pack integers 0 .. 2^bits - 1 of shape [rows, n] along the rows.

    returns  int32 [rows * bits / 32, n]; a code may straddle two words (3 bits)
    """
    rows, width = codes.shape
    words = torch.zeros(rows * bits // WORD_BITS, width, dtype=torch.int64)
    codes = codes.to(torch.int64)
    for start in range(min(rows, WORD_BITS)):  # rows start, start + 32, ... lie alike in their words
        first_bit = start * bits
        column = codes[start::WORD_BITS]
        word, shift = divmod(first_bit, WORD_BITS)
        words[word::bits] |= (column << shift) & 0xFFFFFFFF
        if shift + bits > WORD_BITS:
            words[word + 1::bits] |= column >> (WORD_BITS - shift)
    return torch.where(words > 0x7FFFFFFF, words - (1 << WORD_BITS), words).to(torch.int32)
