"""A reader of GPTQ files written from the format's description alone, as a string of bits.

So the packer and the readers are not checked with their own inverse.
"""

import torch


def unpack_by_description(words, bits):
    """Codes [n * 32 / bits, out] of int32 words [n, out]: bits from the lowest up, word after word."""
    columns = []
    for column in words.t().tolist():
        stream = "".join(f"{word & 0xFFFFFFFF:032b}"[::-1] for word in column)
        columns.append([int(stream[i:i + bits][::-1], 2) for i in range(0, len(stream), bits)])
    return torch.tensor(columns).t()


def dequantize_by_description(tensors, name, bits):
    """float32 [out, in] of a GPTQ version 1 linear: zero points are stored minus one."""
    codes = unpack_by_description(tensors[f"{name}.qweight"], bits)
    zeros = unpack_by_description(tensors[f"{name}.qzeros"].t(), bits).t() + 1
    scales = tensors[f"{name}.scales"].float()
    rows = [(codes[k] - zeros[g]) * scales[g] for k, g in enumerate(tensors[f"{name}.g_idx"].tolist())]
    return torch.stack(rows).t()
