"""A decoder of the Llama family over a paged cache: token ids of a ragged batch in, logits out.

Sizes come from ModelConfig, arithmetic from the kernels; every buffer is allocated once. Knows nothing of
requests, sampling or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig, rope_inverse_frequencies
from model.kernels.cache_kinds import CACHE_KINDS
from model.network.call_list import CallLists
from model.network.weights import ModelWeights


@dataclass(frozen=True)
class StepInput:
    """One step for S sequences with T new tokens together. Shapes as the kernels want them.

    Steps of the same T and S must be the same tensors with new contents: steps are recorded by these two.
    """

    token_ids: Tensor     # int32 [T]
    positions: Tensor     # int32 [T]
    slot_mapping: Tensor  # int64 [T]: page * PAGE_SIZE + offset
    block_table: Tensor   # int32 [S, max_pages]
    cu_seqlens: Tensor    # int32 [S + 1]
    seq_lens: Tensor      # int32 [S]


@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer: [num_pages, num_kv_heads, PAGE_SIZE, head_dim or row bytes]."""

    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def allocate(cls, config: ModelConfig, num_pages: int, page_size: int, kind: str) -> KVCache:
        """`kind`: a key of CACHE_KINDS. Not initialized: what was never written is never read."""
        made = CACHE_KINDS[kind]
        shape = made.cache_shape(num_pages, config.num_kv_heads, page_size, config.head_dim)
        memory = torch.empty(config.num_layers, 2, *shape, dtype=getattr(torch, made.dtype))
        return cls([layer[0] for layer in memory], [layer[1] for layer in memory])


@dataclass(frozen=True)
class Views:
    """The first T rows of every buffer, which stay where they are."""

    hidden: Tensor     # float32 [T, hidden_size]
    qkv: Tensor        # float32 [T, (num_heads + 2 * num_kv_heads) * head_dim]
    queries: Tensor    # the first num_heads * head_dim columns of qkv
    attention: Tensor  # float32 [T, num_heads * head_dim]
    inner: Tensor      # float32 [T, intermediate_size]


class Transformer:
    """Weights, cache and buffers of one model. `max_tokens` is the largest T of a step."""

    def __init__(self, ops: Any, config: ModelConfig, weights: ModelWeights, cache: KVCache,
                 max_seq_len: int, max_tokens: int) -> None:
        self.ops, self.config, self.weights, self.cache = ops, config, weights, cache
        self.max_tokens = max_tokens
        self._cos, self._sin = rope_tables(config, max_seq_len)
        self._scale = config.head_dim ** -0.5
        query_size = config.num_heads * config.head_dim
        qkv_size = query_size + 2 * config.num_kv_heads * config.head_dim
        widths = (config.hidden_size, qkv_size, query_size, config.intermediate_size)
        self._buffers = [torch.empty(max_tokens, width) for width in widths]
        self._query_size = query_size
        self._calls = CallLists(ops)

    def forward(self, step: StepInput) -> Tensor:
        """Compute the new tokens and put their keys and values into the cache.

        returns  float32 [T, hidden_size] before the last norm; valid until the next call
        """
        num_tokens = len(step.token_ids)
        self._calls.run((num_tokens, len(step.seq_lens)), lambda: self._layers(step, num_tokens))
        return self._buffers[0][:num_tokens]

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Norm and head: hidden float32 [R, hidden_size], out float32 [R, vocab_size]."""
        def compute() -> None:
            self.weights.lm_head(hidden, out, self.weights.norm, self.config.rms_norm_eps)

        self._calls.run((len(hidden), hidden.data_ptr(), out.data_ptr()), compute)

    def _layers(self, step: StepInput, num_tokens: int) -> None:
        eps = self.config.rms_norm_eps
        v = self._views(num_tokens)
        self.ops.embed(self.weights.embeddings, step.token_ids, v.hidden)
        for index, layer in enumerate(self.weights.layers):
            layer.qkv(v.hidden, v.qkv, layer.input_norm, eps)
            self._attend(step, v, index)
            layer.o_proj(v.attention, v.hidden, epilogue="add")
            layer.gate_up(v.hidden, v.inner, layer.post_norm, eps, "silu_mul")
            layer.down_proj(v.inner, v.hidden, epilogue="add")

    def copy_pages(self, source: Tensor, target: Tensor) -> None:
        """Copy whole pages in every layer; int32 [n] both, all read before any is written."""
        for keys, values in zip(self.cache.keys, self.cache.values, strict=True):
            self.ops.copy_pages(keys, values, source, target)

    def _attend(self, step: StepInput, v: Views, index: int) -> None:
        config, keys, values = self.config, self.cache.keys[index], self.cache.values[index]
        self.ops.rope_write_kv(v.qkv, self._cos, self._sin, step.positions, step.slot_mapping, keys, values,
                               config.num_heads, config.num_kv_heads)
        self.ops.paged_attention(v.queries, keys, values, step.block_table, step.cu_seqlens, step.seq_lens,
                                 v.attention, config.num_heads, self._scale)

    def _views(self, num_tokens: int) -> Views:
        hidden, qkv, attention, inner = (b[:num_tokens] for b in self._buffers)
        return Views(hidden, qkv, qkv[:, :self._query_size], attention, inner)


def rope_tables(config: ModelConfig, max_seq_len: int) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [max_seq_len, head_dim // 2]; angles in float32, as transformers computes them."""
    frequencies = torch.tensor(rope_inverse_frequencies(config.rope, config.head_dim), dtype=torch.float32)
    angles = torch.outer(torch.arange(max_seq_len, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def buffer_bytes(config: ModelConfig, max_tokens: int, max_logit_rows: int) -> int:
    """What Transformer and the logits of a step allocate besides weights, cache and rope_tables."""
    query_size = config.num_heads * config.head_dim
    qkv_size = query_size + 2 * config.num_kv_heads * config.head_dim
    row = config.hidden_size + qkv_size + query_size + config.intermediate_size
    return 4 * (max_tokens * row + max_logit_rows * config.vocab_size)
