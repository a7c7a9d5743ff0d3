"""Prompts on the GPU: attention by torch's matrix products, and whole layers in float16 between products.

The hidden state stays float32. What is multiplied is float16, and so is what a product gives: rows are scaled
so that neither can leave its range, see cuda/prompts.cu.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from model.kernels.checks import check_dense
from model.kernels.cpu_kernels import CACHE_DTYPES, cache_code
from model.kernels.cuda_experts import CudaExpertOperations
from model.kernels.linear import LinearWeight
from model.kernels.linear_checks import check_linear
from model.kernels.prompt_layers import PromptAttention, PromptLayer, PromptPart

SCORE_BYTES = 64 << 20
"""Of a prompt's scores at a time, where they are not torch's own attention's."""
RUN = 32
"""Tokens that a block rotates and keeps: kRun of cuda/prompt_heads.cu."""
_HEAD_UNIT = 16


def hidden_keys(num_rows: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """bool [num_rows, num_keys]: what the last rows of a sequence do not see."""
    keys = torch.arange(num_keys, device=device)
    own = keys[num_keys - num_rows:, None]
    if window is None:
        return keys > own
    return (keys > own) | (keys < (own // -window * -window if window < 0 else own - window + 1))


def weighted_in_parts(queries: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None,
                      softcap: float | None, sinks: Tensor | None) -> Tensor:
    """Attention whose scores torch's own does not know; as many rows at a time as SCORE_BYTES have room for.

    queries float16 [num_heads, T, head_dim], keys and values float16 [num_kv_heads, num_keys, head_dim]
    """
    num_heads, num_rows, _ = queries.shape
    num_keys, group = keys.shape[1], num_heads // len(keys)
    hidden = hidden_keys(num_rows, num_keys, window, queries.device)
    mixed = torch.empty_like(queries)
    step = max(1, SCORE_BYTES // (4 * group * num_keys))
    for head in range(len(keys)):
        heads = slice(head * group, (head + 1) * group)
        for first in range(0, num_rows, step):
            rows = slice(first, first + step)
            scores = (queries[heads, rows] @ keys[head].T).float() * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            scores.masked_fill_(hidden[rows], -torch.inf)
            if sinks is not None:
                scores = torch.cat((scores, sinks[heads, None, None].expand(-1, scores.shape[1], 1)), dim=-1)
            mixed[heads, rows] = scores.softmax(-1)[..., :num_keys].half() @ values[head]
    return mixed


def attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None,
           softcap: float | None, sinks: Tensor | None) -> Tensor:
    """float16 [num_heads, T, head_dim]; arguments as in weighted_in_parts, T the last of the keys' tokens."""
    num_rows, num_keys = queries.shape[1], keys.shape[1]
    if window is not None:  # keys that the first row does not see, nobody does
        past = num_keys - num_rows
        first = past // -window * -window if window < 0 else max(0, past + 1 - window)
        keys, values, num_keys = keys[:, first:], values[:, first:], num_keys - first
    if softcap is not None or sinks is not None:
        return weighted_in_parts(queries, keys, values, scale, window, softcap, sinks)
    # brings torch's compiler, which takes as long as torch
    from torch.nn.attention.bias import causal_lower_right
    mask = causal_lower_right(num_rows, num_keys) if window is None else \
        ~hidden_keys(num_rows, num_keys, window, queries.device)
    return scaled_dot_product_attention(queries[None], keys[None], values[None], scale=scale, attn_mask=mask,
                                        enable_gqa=len(queries) != len(keys))[0]


@dataclass(frozen=True)
class Halfs:
    """Rows in float16, staged for a product or left by one, and what each is to be multiplied by then."""

    values: Tensor   # float16 [m, columns]
    factors: Tensor  # float32 [m]


class CudaPromptOperations(CudaExpertOperations):
    """PromptOperations but for prompt_linear; the class that inherits them has a library and a stream."""

    def prompt_attention(self, q: Tensor, k_cache: Tensor, v_cache: Tensor | None, pages: Tensor,
                         num_keys: int, out: Tensor, num_heads: int, scale: float, window: int | None = None,
                         softcap: float | None = None, sinks: Tensor | None = None) -> None:
        """As paged_attention for many query rows of one sequence, by torch's matrix products in float16.

        q      float32 [T, num_heads * head_dim], the last T of the sequence's `num_keys` tokens
        pages  int32 [>= ceil(num_keys / page_size)]: the sequence's row of the block table
        out    float32 [T, num_heads * head_dim]
        """
        head_dim = q.shape[-1] // num_heads
        keys, values = self.gather_pages(k_cache, v_cache, pages, num_keys, head_dim)
        queries = q.view(len(q), num_heads, head_dim).transpose(0, 1).half()
        mixed = attend(queries, keys, values, scale, window, softcap, sinks)
        out.view(len(q), num_heads, head_dim).copy_(mixed.transpose(0, 1))

    def gather_pages(self, k_cache: Tensor, v_cache: Tensor | None, pages: Tensor, num_keys: int,
                     head_dim: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one sequence, float16 [num_kv_heads, num_keys, head_dim]; see cuda_kernels.h."""
        check_dense("k_cache", k_cache, (-1, -1, -1, -1), CACHE_DTYPES, self.device)
        if v_cache is not None:
            check_dense("v_cache", v_cache, k_cache.shape, (k_cache.dtype,), self.device)
        num_pages, num_kv_heads, page_size, _ = k_cache.shape
        check_dense("pages", pages, (-1,), (torch.int32,), self.device)
        if len(pages) * page_size < num_keys:
            raise ValueError(f"{len(pages)} pages of {page_size} tokens do not hold {num_keys} keys")
        keys, values = torch.empty(2, num_kv_heads, num_keys, head_dim, dtype=torch.float16,
                                   device=self.device)
        self.call("gather_pages", k_cache, v_cache, cache_code(k_cache, head_dim), num_pages, page_size,
                  num_kv_heads, head_dim, pages, num_keys, keys, values, self.stream)
        return keys, values

    # ---- layers in float16 -----------------------------------------------------------------------------

    def prompt_mlp(self, x: Tensor, gate_up: LinearWeight, inner: Tensor, down: LinearWeight, out: Tensor,
                   norm: Tensor | None = None, eps: float = 0.0, epilogue: str = "store") -> None:
        """Nothing is left in `inner` where there are enough rows for torch's products."""
        if len(x) < self._fewest_rows([gate_up, down]) or epilogue not in ("store", "add"):
            super().prompt_mlp(x, gate_up, inner, down, out, norm, eps, epilogue)
            return
        check_linear(x, gate_up.n, gate_up.k, inner, norm, "silu_mul")
        check_linear(inner, down.n, down.k, out, None, epilogue)
        product = self._times(self._sum_staged(x, None, None, gate_up, norm, eps), gate_up)
        product = self._times(self._silu_staged(product, gate_up, down), down)
        if epilogue == "store":
            out.zero_()
        self._add(out, product, down)

    def takes_layer(self, layer: PromptLayer) -> bool:
        """Whether prompt_layers does: attention to float16, heads that are rotated as a whole."""
        a = layer.attention
        head_dim = a.k_cache.shape[-1]
        return (a.k_cache.dtype == torch.float16 and head_dim % _HEAD_UNIT == 0
                and 2 * a.cos.shape[1] == head_dim and not any(
                    weight.kind == "f32" or weight.struct.exact for weight in layer.weights))

    def fewest_rows(self, layers: Sequence[PromptLayer]) -> int:
        """That are worth prompt_layers."""
        return max(self._fewest_rows(layer.weights) for layer in layers)

    def prompt_layers(self, x: Tensor, layers: Sequence[PromptLayer], positions: Tensor,
                      slot_mappings: Sequence[Tensor], prompts: Sequence[PromptPart]) -> None:
        """These layers, for all rows of some prompts. Their keys and values come into the cache.

        x              float32 [T, hidden_size], changed; rows lie side by side
        positions      int32 [T];  slot_mappings  of each cache group int64 [T]
        """
        first = layers[0]
        staged = self._sum_staged(x, None, None, first.attention.qkv, first.norms[0], first.eps[0])
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            a = layer.attention
            projected = self._times(staged, a.qkv)
            mixed = self._mixed(projected, a, positions, slot_mappings[a.group], prompts)
            product = self._times(self._heads_staged(mixed, a.out_proj), a.out_proj)
            staged = self._sum_staged(x, product, a.out_proj, layer.gate_up, layer.norms[1], layer.eps[1])
            product = self._times(staged, layer.gate_up)
            product = self._times(self._silu_staged(product, layer.gate_up, layer.down), layer.down)
            if following is None:
                self._add(x, product, layer.down)
            else:
                staged = self._sum_staged(x, product, layer.down, following.attention.qkv,
                                          following.norms[0], following.eps[0])

    def _mixed(self, projected: Halfs, a: PromptAttention, positions: Tensor, slots: Tensor,
               prompts: Sequence[PromptPart]) -> Tensor:
        """Each token with those before it: float16 [T, num_heads, head_dim], a head side by side."""
        num_tokens, head_dim = len(projected.values), a.k_cache.shape[-1]
        num_pages, _, page_size, _ = a.k_cache.shape
        rules = a.scale, a.window, a.softcap, a.sinks
        parts = []
        for prompt in prompts:
            rows, count = slice(prompt.first, prompt.last), prompt.last - prompt.first
            past = prompt.num_keys - count
            queries = self._new_halfs(count, a.num_heads, head_dim)
            # without a past the keys need not be gathered from the cache
            own = [None, None] if past else [self._new_halfs(count, a.num_kv_heads, head_dim)
                                             for _ in range(2)]
            self.call("prompt_rope_keep", projected.values[rows], projected.factors[rows], a.qkv.bias, a.cos,
                      a.sin, len(a.cos), positions[rows], slots[rows], a.k_cache, a.v_cache, num_pages,
                      page_size, count, past % page_size % RUN, a.num_heads, a.num_kv_heads, head_dim,
                      int(a.interleaved), queries, *own, self.stream)
            keys, values = self.gather_pages(a.k_cache, a.v_cache, prompt.pages[a.group], prompt.num_keys,
                                             head_dim) if past else (part.transpose(0, 1) for part in own)
            parts.append(attend(queries.transpose(0, 1), keys, values, *rules).transpose(0, 1))
        if len(parts) == 1 and len(parts[0]) == num_tokens and parts[0].stride(2) == 1:
            return parts[0]
        return torch.cat(parts)

    def _fewest_rows(self, weights: Sequence[LinearWeight]) -> int:
        return max(self.crossovers.rows(weight, self._is_kept(weight)) for weight in weights)

    def _times(self, staged: Halfs, weight: LinearWeight) -> Halfs:
        return Halfs(self._multiplied(staged.values, weight, torch.float16), staged.factors)

    def _add(self, x: Tensor, product: Halfs, weight: LinearWeight) -> None:
        self.call("prompt_add_stage", x, x.stride(0), *x.shape, product.values, product.factors, weight.bias,
                  None, 0.0, None, None, None, None, self.stream)

    def _sum_staged(self, x: Tensor, product: Halfs | None, of: LinearWeight | None, weight: LinearWeight,
                    norm: Tensor | None, eps: float) -> Halfs:
        """x += the product by `of`, if there is one; x times norm as `weight` multiplies it."""
        staged = self._room(len(x), weight)
        added = (None, None, None) if product is None or of is None else (product.values, product.factors,
                                                                         of.bias)
        self.call("prompt_add_stage", x, x.stride(0), *x.shape, *added, norm, eps,
                  ctypes.byref(weight.struct), self._bound(weight), staged.values, staged.factors,
                  self.stream)
        return staged

    def _silu_staged(self, product: Halfs, of: LinearWeight, weight: LinearWeight) -> Halfs:
        staged = self._room(len(product.values), weight)
        self.call("prompt_silu_stage", product.values, product.factors, of.bias, len(product.values),
                  ctypes.byref(weight.struct), self._bound(weight), staged.values, staged.factors,
                  self.stream)
        return staged

    def _heads_staged(self, heads: Tensor, weight: LinearWeight) -> Halfs:
        """heads  float16 [m, num_heads, head_dim]"""
        staged = self._room(len(heads), weight)
        self.call("prompt_heads_stage", heads, *heads.stride()[:2], heads.shape[2], len(heads),
                  ctypes.byref(weight.struct), self._bound(weight), staged.values, staged.factors,
                  self.stream)
        return staged

    def _room(self, rows: int, weight: LinearWeight) -> Halfs:
        return Halfs(self._new_halfs(rows, self._columns(weight)), torch.empty(rows, device=self.device))

    def _new_halfs(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float16, device=self.device)
