"""Layers with a state in plain torch: short convolutions, the gated delta rule, Mamba 2.

A sequence keeps its state in a row ("slot") of `states`, however long it is. Of every function here:

states      float32 [num_slots, ...]: slots may lie apart, the numbers of one are dense
slots       int32 [S]: the slot of each sequence, no two the same. A negative one is padding: nothing of the
            sequence is read or written, its rows of `out` may hold anything
cu_seqlens  int32 [S + 1]: rows of sequence s are cu_seqlens[s] .. cu_seqlens[s + 1]
seq_lens    int32 [S]: tokens of each sequence, this step's included. Where they are this step's alone the
            state begins as zeros, whatever the slot holds; else it is what the slot holds
row_slots   int32 [T] or None: the state after row t goes to this slot, too, unless it is negative. No
            sequence's slot, and no slot twice
Rows of all other tensors may be strided. Rows are computed one after the other, so that neither chunks nor
the batch change a bit; after a sequence's last row its state is in the slot.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

L2_EPS = 1e-6
"""Under the root of a head's length."""


def _sequences(states: Tensor, slots: Tensor, cu_seqlens: Tensor,
               seq_lens: Tensor) -> Iterator[tuple[Tensor, range]]:
    """(its state, to be changed in place; its rows) of each sequence."""
    bounds = cu_seqlens.tolist()
    for s, (slot, length) in enumerate(zip(slots.tolist(), seq_lens.tolist(), strict=True)):
        rows = range(bounds[s], bounds[s + 1])
        if slot < 0 or not rows:
            continue
        if length == len(rows):
            states[slot] = 0
        yield states[slot], rows


def _keep(states: Tensor, row_slots: Tensor | None, t: int, state: Tensor) -> None:
    """Row t is done."""
    if row_slots is not None and row_slots[t] >= 0:
        states[row_slots[t]] = state


def short_conv(x: Tensor, weight: Tensor, bias: Tensor | None, states: Tensor, slots: Tensor,
               cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, activation: str = "none",
               row_slots: Tensor | None = None) -> None:
    """out[t, c] = f(bias[c] + sum over j of weight[j, c] * x[t - (K - 1) + j, c]), within a sequence.

    x           float32 [T, C]
    weight      float32 [K, C], the last row for the newest input
    bias        float32 [C]; None: 0
    states      float32 [num_slots, K - 1, C]: the last inputs, the newest last
    out         float32 [T, C]; may be x itself
    activation  none or silu
    """
    for state, rows in _sequences(states, slots, cu_seqlens, seq_lens):
        inputs = torch.cat((state, x[rows.start:rows.stop]))
        y = torch.stack([(window * weight).sum(0) for window in inputs.unfold(0, len(weight), 1).mT])
        y = y if bias is None else y + bias
        out[rows.start:rows.stop] = torch.nn.functional.silu(y) if activation == "silu" else y
        for t in rows:
            first = t - rows.start + 1
            _keep(states, row_slots, t, inputs[first:first + len(state)])
        state.copy_(inputs[len(rows):])


def gated_delta(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, states: Tensor,
                slots: Tensor, cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor,
                row_slots: Tensor | None = None, tiled: bool = False) -> None:
    """The gated delta rule: a state S [Dk, Dv] for each value head is corrected towards S^T k = v.

    S = exp(log_decay) * S;  S += k (x) (beta * (v - S^T k));  out = S^T q * Dk^-0.5
    with q and k of length 1: x / sqrt(sum(x^2) + 1e-6).

    q, k       float32 [T, Hk * Dk]
    v          float32 [T, Hv * Dv]; value head h uses key head h // (Hv // Hk), or h % Hk where tiled
    log_decay  float32 [T, Hv], or [T, Hv * Dk]: a number for each row of a head's S; at most 0
    beta       float32 [T, Hv]
    states     float32 [num_slots, Hv, Dk, Dv]
    out        float32 [T, Hv * Dv]; may be v itself

    Yang et al., Gated delta networks (ICLR 2025), equation 10; with a decay for each row Kimi Team, Kimi
    Linear (2025), equation 1.
    """
    _, num_heads, key_dim, value_dim = states.shape

    def unit(x: Tensor) -> Tensor:
        heads = x.unflatten(1, (-1, key_dim))
        heads = heads * torch.rsqrt(heads.square().sum(-1, keepdim=True) + L2_EPS)
        times = num_heads // heads.shape[1]
        return heads.repeat(1, times, 1) if tiled else heads.repeat_interleave(times, dim=1)

    queries, keys, values = unit(q) * key_dim ** -0.5, unit(k), v.unflatten(1, (num_heads, value_dim))
    for state, rows in _sequences(states, slots, cu_seqlens, seq_lens):
        for t in rows:
            state *= log_decay[t].exp().view(num_heads, -1, 1)
            wrong = beta[t, :, None] * (values[t] - (state * keys[t, :, :, None]).sum(1))
            state += keys[t, :, :, None] * wrong[:, None]
            out[t] = (state * queries[t, :, :, None]).sum(1).flatten()
            _keep(states, row_slots, t, state)


def mamba2(x: Tensor, b: Tensor, c: Tensor, dt: Tensor, a: Tensor, d: Tensor | None, states: Tensor,
           slots: Tensor, cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor,
           row_slots: Tensor | None = None) -> None:
    """Mamba 2's recurrence: S = exp(dt * a) * S + b (x) (dt * x);  out = S^T c + d * x, for each head.

    x       float32 [T, H * P]
    b, c    float32 [T, G * N]; head h uses group h // (H // G)
    dt      float32 [T, H]: how far a token moves the state, at least 0
    a       float32 [H], at most 0
    d       float32 [H]; None: 0
    states  float32 [num_slots, H, N, P]
    out     float32 [T, H * P]; may be x itself

    Dao, Gu, Transformers are SSMs (2024), section 6; the state is the transpose of the one there.
    """
    _, num_heads, state_size, head_dim = states.shape

    def of_heads(groups: Tensor) -> Tensor:
        groups = groups.unflatten(1, (-1, state_size))
        return groups.repeat_interleave(num_heads // groups.shape[1], dim=1)[..., None]

    inputs, sources, readers = x.unflatten(1, (num_heads, head_dim)), of_heads(b), of_heads(c)
    for state, rows in _sequences(states, slots, cu_seqlens, seq_lens):
        for t in rows:
            state *= (dt[t] * a).exp().view(-1, 1, 1)
            state += sources[t] * (dt[t, :, None] * inputs[t])[:, None]
            y = (state * readers[t]).sum(1)
            out[t] = (y if d is None else y + d[:, None] * inputs[t]).flatten()
            _keep(states, row_slots, t, state)
