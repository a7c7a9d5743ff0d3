"""The forward pass of one Llama decoder layer in plain float32 torch, in the four pieces between its linears.

Only for capturing the inputs of the linears on calibration text; the engine has its own network.
Knows nothing of caches or quantization.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.rope import frequencies
from model.families.spec import Attention


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., hidden] over its root mean square, times weight [hidden]."""
    return F.rms_norm(x, weight.shape, weight, eps)


def rope_tables(of: Attention, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, float32 [length, head_dim / 2] each."""
    assert of.rope is not None
    of_pairs = torch.tensor(frequencies(of.rope), dtype=torch.float64)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), of_pairs)
    return angles.cos().float(), angles.sin().float()


def attention(qkv: Tensor, cos: Tensor, sin: Tensor, of: Attention) -> Tensor:
    """Causal attention of whole sequences from position 0.

    qkv       float32 [batch, length, (heads + 2 * kv_heads) * head_dim]: all q heads, then k, then v
    cos, sin  float32 [at least length, head_dim / 2]
    returns   float32 [batch, length, heads * head_dim]
    """
    batch, length, _ = qkv.shape
    heads = qkv.view(batch, length, -1, of.head_dim).transpose(1, 2)
    q, k, v = heads.split([of.num_heads, of.num_kv_heads, of.num_kv_heads], dim=1)
    cos, sin = cos[:length], sin[:length]
    out = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v,
                                         is_causal=True, enable_gqa=True)
    return out.transpose(1, 2).reshape(batch, length, -1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim / 2) of x [batch, heads, length, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of gate_up [..., 2 * intermediate]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up
