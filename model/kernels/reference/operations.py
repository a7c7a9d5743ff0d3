"""Each operation of the kernel libraries in plain torch: what every kernel is tested against.

The same names and arguments as the methods of `Operations`. Written to be read, not to be fast. All
arithmetic is float32 (float64 where a function says so); all tensors are on one device. The linear operations
are in linear.py, adapters in lora.py, layers with a state in states.py, sampling is in sampling.py, the
layout of the cache's pages in cache.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model.kernels.reference.activations import activate, activated
from model.kernels.reference.cache import cache_kind, hadamard, read_keys, read_values, write
from model.kernels.reference.experts import experts, pack_experts, route
from model.kernels.reference.linear import (
    LinearWeight,
    linear,
    pack_dense,
    pack_float8,
    pack_group_rows,
    pack_groups,
    pack_linear,
)
from model.kernels.reference.lora import lora, pack_lora, put_lora
from model.kernels.reference.sampling import sample
from model.kernels.reference.states import gated_delta, mamba2, short_conv
from model.kernels.rounding import round_groups


def embed(table: Tensor | LinearWeight, token_ids: Tensor, out: Tensor, scale: float = 1.0) -> None:
    """out[t] = table[token_ids[t]] * scale.

    table      float16, bfloat16 or float32 [vocab_size, hidden_size], or what pack_groups returned for it
    token_ids  int32 [T]
    out        float32 [T, hidden_size]
    """
    rows = table if isinstance(table, Tensor) else table.weight
    out.copy_(rows[token_ids.long()].float() * scale)


def norm_rows(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, kind: str, out: Tensor,
              num_groups: int = 1, add: bool = False, scale: float = 1.0) -> None:
    """y = norm(x) * weight + bias, group by group of a row; out = y * scale, or out += y * scale.

    x       float32 [T, num_groups * n], any row stride
    weight  float32 [n] for every group, or [num_groups * n]; None: 1
    bias    as weight; None: 0
    kind    rms    x / sqrt(mean(x^2) + eps)
            layer  the same of x - mean(x)
            none   x
    out     float32 [T, num_groups * n], any row stride; may be x itself
    """
    groups = x.unflatten(1, (num_groups, -1))
    if kind == "layer":
        groups = groups - groups.mean(-1, keepdim=True)
    if kind != "none":
        groups = groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + eps)
    n = groups.shape[-1]
    if weight is not None:
        groups = groups * weight.view(-1, n)
    if bias is not None:
        groups = groups + bias.view(-1, n)
    y = groups.flatten(1) * scale
    out.copy_(out + y if add else y)


def gate_rows(x: Tensor, gate: Tensor, out: Tensor, kind: str) -> None:
    """out = x * f(gate), f being one of ACTIVATIONS but `clamped`; float32 [T, n], any row stride.

    out may be x or gate itself.
    """
    out.copy_(x * activated(gate, kind))


def softplus_rows(x: Tensor, bias: Tensor | None, out: Tensor, scale: Tensor | None = None, low: float = 0.0,
                  high: float = math.inf) -> None:
    """out = clamp(log(1 + exp(x + bias)), low, high) * scale: a step or a decay of each head.

    x            float32 [T, n], any row stride
    bias, scale  float32 [n]; None: 0, 1
    out          float32 [T, n], any row stride; may be x itself
    """
    y = torch.nn.functional.softplus(x if bias is None else x + bias).clamp(low, high)
    out.copy_(y if scale is None else y * scale)


def xielu_rows(x: Tensor, out: Tensor, above: float, below: float) -> None:
    """out = x / 2 + above * x^2 where x > 0, x / 2 + below * (exp(x) - 1 - x) elsewhere.

    x, out  float32 [R, n], any row stride; may be the same
    """
    out.copy_(x / 2 + torch.where(x > 0, above * x * x, below * (torch.expm1(x) - x)))


def cut_rows(x: Tensor, deviations: float) -> None:
    """x = max(0, x - mean(x) - deviations * deviation(x)); float32 [R, n], any row stride."""
    mean = x.mean(-1, keepdim=True)
    deviation = (x - mean).square().mean(-1, keepdim=True).sqrt()
    x.copy_((x - (mean + deviations * deviation)).clamp(min=0))


def match_rows(x: Tensor, like: Tensor, eps: float) -> None:
    """x = x * sqrt(mean(like^2) / max(mean(x^2), eps)); float32 [R, n], any row stride."""
    own = x.square().mean(-1, keepdim=True).clamp(min=eps)
    x.copy_(x * (like.square().mean(-1, keepdim=True) / own).sqrt())


def mix_rows(x: Tensor, shares: Tensor, out: Tensor, size: int, add: bool = False) -> None:
    """out[i] = sum over j of shares[i, j] * x[j], or out[i] += that, for each row.

    x       float32 [R, J * size], any row stride
    shares  float32 [R, I * J], any row stride
    out     float32 [R, I * size], any row stride; no part of x
    """
    inputs = x.unflatten(1, (-1, size))
    mixed = (shares.unflatten(1, (-1, inputs.shape[1])) @ inputs).flatten(1)
    out.copy_(out + mixed if add else mixed)


def cap_rows(x: Tensor, scale: float, cap: float | None = None) -> None:
    """x = x * scale, or cap * tanh(x * scale / cap); float32 [R, n], any row stride."""
    x.copy_(x * scale if cap is None else cap * torch.tanh(x * scale / cap))


def rotated(heads: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool) -> Tensor:
    """heads [T, H, head_dim], the first 2 * cos.shape[1] dimensions rotated by position."""
    c, s = cos[positions.long()].unsqueeze(1), sin[positions.long()].unsqueeze(1)
    dim = 2 * cos.shape[1]
    turned, rest = heads[..., :dim], heads[..., dim:]
    if interleaved:
        low, high = turned[..., ::2], turned[..., 1::2]
        turned = torch.stack((low * c - high * s, high * c + low * s), dim=-1).flatten(-2)
    else:
        low, high = turned.chunk(2, dim=-1)
        turned = torch.cat((low * c - high * s, high * c + low * s), dim=-1)
    return torch.cat((turned, rest), dim=-1)


def rotate_heads(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, num_heads: int,
                 interleaved: bool = False) -> None:
    """Rotate heads in place; for what is normed after it. See rope_write_kv.

    x  float32 [T, num_heads * head_dim], any row stride
    """
    x.copy_(rotated(x.unflatten(1, (num_heads, -1)), cos, sin, positions, interleaved).flatten(1))


def rope_write_kv(qkv: Tensor, cos: Tensor | None, sin: Tensor | None, positions: Tensor,
                  slot_mapping: Tensor, k_cache: Tensor, v_cache: Tensor | None, num_heads: int,
                  num_kv_heads: int, interleaved: bool = False, query_scale: Tensor | None = None) -> None:
    """Rotate the queries in place; rotate the keys and write them and the values into the cache.

    qkv           float32 [T, (num_heads + 2 * num_kv_heads) * head_dim], rows may be strided: queries, keys,
                  values (these not where v_cache is None). Only the queries change
    cos, sin      float32 [max_positions, rotary_dim / 2]; None: nothing is rotated
    positions     int32 [T]
    slot_mapping  int64 [T]: page * page_size + offset of each token; a negative one is not written
    k_cache, v_cache  [num_pages, num_kv_heads, page_size, head_dim, or bytes] of a kind of cache_kinds.py;
                      without v_cache the values are the keys as they are kept
    interleaved   pairs are neighbours instead of halves
    query_scale   float32 [max_positions] or None: rotated queries are multiplied by their position's

    The first rotary_dim elements of a head are rotated: i is paired with i + rotary_dim / 2 (Hugging Face's
    Llama, rotate_half), or 2 * i with 2 * i + 1. For the quantized kinds queries, keys and values are then
    multiplied by a Hadamard matrix, which spreads what is large in one dimension over all of them and changes
    no product of query and key.
    """
    page_size = k_cache.shape[2]
    num_all = num_heads + (1 if v_cache is None else 2) * num_kv_heads
    heads = qkv.unflatten(1, (num_all, -1))
    turned = heads[:, :num_heads + num_kv_heads]
    if cos is not None and sin is not None:
        turned = rotated(turned, cos, sin, positions, interleaved)
    queries, keys = turned.split((num_heads, num_kv_heads), dim=1)
    if query_scale is not None:
        queries = queries * query_scale[positions.long()].view(-1, 1, 1)
    is_quantized = cache_kind(k_cache, heads.shape[2]).is_quantized
    kept = slot_mapping >= 0
    page, offset = slot_mapping[kept] // page_size, slot_mapping[kept] % page_size
    write(k_cache, page, offset, keys[kept], are_keys=True)
    if v_cache is not None:
        write(v_cache, page, offset, heads[:, num_heads + num_kv_heads:][kept], are_keys=False)
    heads[:, :num_heads] = hadamard(queries) if is_quantized else queries


def paged_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor | None, block_table: Tensor,
                    cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, num_heads: int, scale: float,
                    window: int | None = None, softcap: float | None = None,
                    sinks: Tensor | None = None) -> None:
    """Causal attention of a ragged batch of prompts and decode steps over the paged cache.

    q            float32 [T, num_heads * head_dim], rows may be strided (a view into qkv)
    k_cache, v_cache  [num_pages, num_kv_heads, page_size, head_dim, or bytes] of a kind of cache_kinds.py;
                      without v_cache the values are the keys
    block_table  int32 [S, max_pages]: the pages of each sequence, in order
    cu_seqlens   int32 [S + 1]: query rows of sequence s are cu_seqlens[s] .. cu_seqlens[s + 1]
    seq_lens     int32 [S]: keys of each sequence, this step's included
    out          float32 [T, num_heads * head_dim], rows may be strided
    window       keys that a row sees, its own position's included; None: all; negative: those from the
                 last multiple of -window on
    softcap      scores become softcap * tanh(score / softcap)
    sinks        float32 [num_heads]: a score more for each row in the softmax, of a value of zero

    Query row i of sequence s stands at position seq_lens[s] - (its number of query rows) + i and sees the
    keys up to its own position. Query head h uses key head h // (num_heads // num_kv_heads). With a quantized
    kind q comes from rope_write_kv multiplied by the Hadamard matrix; `out` is no longer.
    """
    num_kv_heads, page_size = k_cache.shape[1:3]
    head_dim = q.shape[1] // num_heads
    all_keys = read_keys(k_cache, head_dim)
    all_values = all_keys if v_cache is None else read_values(v_cache, head_dim)
    is_quantized = cache_kind(k_cache, head_dim).is_quantized
    group = num_heads // num_kv_heads
    bounds = cu_seqlens.tolist()
    for s, num_keys in enumerate(seq_lens.tolist()):
        first, last = bounds[s], bounds[s + 1]
        if first == last:
            continue
        pages = block_table[s, :math.ceil(num_keys / page_size)].long()
        keys, values = (cache[pages].transpose(0, 1).reshape(num_kv_heads, -1, head_dim)[:, :num_keys]
                        .repeat_interleave(group, dim=0) for cache in (all_keys, all_values))
        queries = q[first:last].unflatten(1, (num_heads, head_dim)).transpose(0, 1)
        scores = queries @ keys.transpose(1, 2) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        key_positions = torch.arange(num_keys, device=q.device)
        own_positions = key_positions[num_keys - (last - first):, None]
        hidden = key_positions[None, :] > own_positions
        if window is not None:
            begin = own_positions // -window * -window if window < 0 else own_positions - window + 1
            hidden |= key_positions[None, :] < begin
        # where a row sees nothing but its own past, what is hidden may hold anything
        values = values.masked_fill(hidden.all(0)[:, None], 0.0)
        scores = scores.masked_fill(hidden, -math.inf)
        if sinks is not None:
            scores = torch.cat((scores, sinks.view(-1, 1, 1).expand(-1, last - first, 1)), dim=-1)
        weights = scores.softmax(dim=-1)[..., :num_keys]
        mixed = (weights @ values).transpose(0, 1)
        mixed = hadamard(mixed) if is_quantized else mixed
        out[first:last] = mixed.reshape(last - first, num_heads * head_dim)


def copy_pages(k_cache: Tensor, v_cache: Tensor | None, src: Tensor, dst: Tensor) -> None:
    """Copy whole pages inside the cache: page src[i] to page dst[i].

    src, dst  int32 [n]; no page of dst is in src or twice in dst
    """
    k_cache[dst.long()] = k_cache[src.long()]
    if v_cache is not None:
        v_cache[dst.long()] = v_cache[src.long()]


# ---- sampling ------------------------------------------------------------------------------------------


class ReferenceOperations:
    """All of them as one `Operations`: a model can run on them, slowly."""

    library = None
    isa, threads, prompts = "reference", 1, None
    embed = staticmethod(embed)
    norm_rows = staticmethod(norm_rows)
    activate = staticmethod(activate)
    gate_rows = staticmethod(gate_rows)
    softplus_rows = staticmethod(softplus_rows)
    xielu_rows = staticmethod(xielu_rows)
    cut_rows = staticmethod(cut_rows)
    match_rows = staticmethod(match_rows)
    mix_rows = staticmethod(mix_rows)
    cap_rows = staticmethod(cap_rows)
    rotate_heads = staticmethod(rotate_heads)
    rope_write_kv = staticmethod(rope_write_kv)
    paged_attention = staticmethod(paged_attention)
    copy_pages = staticmethod(copy_pages)
    short_conv = staticmethod(short_conv)
    gated_delta = staticmethod(gated_delta)
    mamba2 = staticmethod(mamba2)
    sample = staticmethod(sample)
    pack_linear = staticmethod(pack_linear)
    pack_dense = staticmethod(pack_dense)
    pack_groups = staticmethod(pack_groups)
    round_groups = staticmethod(round_groups)
    pack_group_rows = staticmethod(pack_group_rows)
    pack_float8 = staticmethod(pack_float8)
    looks_up_packed = True
    runs_ahead = False
    fuses_heads = staticmethod(lambda weight, k_cache, rotary_dim: False)
    linear = staticmethod(linear)
    pack_lora = staticmethod(pack_lora)
    put_lora = staticmethod(put_lora)
    lora = staticmethod(lora)
    route = staticmethod(route)
    pack_experts = staticmethod(pack_experts)
    experts = staticmethod(experts)

    def call(self, name: str, *arguments: object) -> None:
        raise NotImplementedError(f"{name}: plain torch has no compiled functions")
