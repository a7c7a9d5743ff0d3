"""The forward pass of one Llama decoder layer in plain float32 torch, in the four pieces between its linears.

Only for capturing the inputs of the linears on calibration text; the engine has its own network.
Knows nothing of caches, batches of unequal length or quantization.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.quantize.source import LlamaConfig


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., hidden] over its root mean square, times weight [hidden]."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rope_tables(config: LlamaConfig, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, float32 [length, head_dim / 2] each."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    frequencies = scaled_frequencies(config.rope_theta ** -exponents, config.rope_scaling)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


def scaled_frequencies(frequencies: Tensor, scaling: dict) -> Tensor:
    """Stretch for a longer context: "linear" all alike, "llama3" only the slow ones.

    Source: transformers, modeling_rope_utils.py, _compute_linear_scaling_... and _compute_llama3_parameters.
    """
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "linear":
        return frequencies / scaling["factor"]
    if kind == "llama3":
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (keep + (1 - keep) / scaling["factor"])
    return frequencies


def attention(qkv: Tensor, cos: Tensor, sin: Tensor, config: LlamaConfig) -> Tensor:
    """Causal attention of whole sequences from position 0.

    qkv      float32 [batch, length, (heads + 2 * kv_heads) * head_dim]: all q heads, then k, then v
    returns  float32 [batch, length, heads * head_dim]
    """
    batch, length, _ = qkv.shape
    heads = qkv.view(batch, length, -1, config.head_dim).transpose(1, 2)
    q, k, v = heads.split([config.num_heads, config.num_kv_heads, config.num_kv_heads], dim=1)
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
