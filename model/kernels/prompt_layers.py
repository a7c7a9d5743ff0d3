"""A layer as a device may compute it for rows of prompts in one call: attention and a gated mlp behind norms.

Knows packed weights and the cache, nothing of specs and checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class PromptAttention:
    """Queries and keys that are rotated as they are projected; keys and values of their own that are kept."""

    qkv: Any        # a PackedWeight: hidden_size -> queries, keys, values
    out_proj: Any
    cos: Tensor     # float32 [max_positions, rotary_dim / 2]
    sin: Tensor
    interleaved: bool
    k_cache: Tensor
    v_cache: Tensor
    group: int      # of the caches that share block tables
    num_heads: int
    num_kv_heads: int
    scale: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None


@dataclass(frozen=True)
class PromptLayer:
    """x += attention(rms(x)); x += down(silu(gate) * up), gate and up of rms(x)."""

    attention: PromptAttention
    gate_up: Any
    down: Any
    norms: tuple[Tensor | None, Tensor | None]  # float32 [hidden_size] each
    eps: tuple[float, float]

    @property
    def weights(self) -> list[Any]:
        return [self.attention.qkv, self.attention.out_proj, self.gate_up, self.down]


@dataclass(frozen=True)
class PromptPart:
    """The rows first .. last - 1 are the last of a sequence, which has `num_keys` keys then."""

    first: int
    last: int
    num_keys: int
    pages: Sequence[Tensor]  # of each cache group int32 [>= ceil(num_keys / page_size)]
