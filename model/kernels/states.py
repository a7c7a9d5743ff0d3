"""Layers with a state in the compiled libraries, and what is done row by row around them.

Checks shapes, dtypes and strides, then calls C.

The same for the CPU's library and the GPU's; reference/states.py says what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.kernels.checks import check, check_dense
from model.kernels.operations import ACTIVATIONS

_INT32 = (torch.int32,)


class StateOperations:
    """The class that inherits them has a library, a device and a stream."""

    call: Callable[..., None]

    def _place(self) -> tuple[str, Any]:
        """The device that every tensor lies on, and the stream."""
        raise NotImplementedError

    def gate_rows(self, x: Tensor, gate: Tensor, out: Tensor, kind: str) -> None:
        width = x.shape[1]
        strides = self._strides((("x", x, width), ("gate", gate, width), ("out", out, width)), len(x))
        self.call("gate_rows", x, strides[0], gate, strides[1], out, strides[2], ACTIVATIONS.index(kind),
                  *x.shape, self._place()[1])

    def softplus_rows(self, x: Tensor, bias: Tensor | None, out: Tensor, scale: Tensor | None = None,
                      low: float = 0.0, high: float = math.inf) -> None:
        device, stream = self._place()
        strides = self._strides((("x", x, -1), ("out", out, x.shape[1])), len(x))
        for name, part in (("bias", bias), ("scale", scale)):
            if part is not None:
                check_dense(name, part, (x.shape[1],), device=device)
        self.call("softplus_rows", x, strides[0], bias, scale, low, high, out, strides[1], *x.shape, stream)

    def short_conv(self, x: Tensor, weight: Tensor, bias: Tensor | None, states: Tensor, slots: Tensor,
                   cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor, activation: str = "none",
                   row_slots: Tensor | None = None) -> None:
        device, stream = self._place()
        strides = self._strides((("x", x, -1), ("out", out, x.shape[1])), len(x))
        check_dense("weight", weight, (-1, x.shape[1]), device=device)
        if bias is not None:
            check_dense("bias", bias, (x.shape[1],), device=device)
        step = self._step(states, (len(weight) - 1, x.shape[1]), slots, cu_seqlens, seq_lens, row_slots,
                          len(x))
        self.call("short_conv", x, strides[0], weight, bias, out, strides[1], ACTIVATIONS.index(activation),
                  *step, *weight.shape, stream)

    def gated_delta(self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, states: Tensor,
                    slots: Tensor, cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor,
                    row_slots: Tensor | None = None, tiled: bool = False) -> None:
        num_heads, key_dim, value_dim = states.shape[1:]
        num_key_heads = q.shape[1] // key_dim
        keys, values = num_key_heads * key_dim, num_heads * value_dim
        decay_dim = 1 if log_decay.shape[1] == num_heads else key_dim
        named = (("q", q, keys), ("k", k, keys), ("v", v, values),
                 ("log_decay", log_decay, num_heads * decay_dim), ("beta", beta, num_heads),
                 ("out", out, values))
        strides = self._strides(named, len(q))
        step = self._step(states, (num_heads, key_dim, value_dim), slots, cu_seqlens, seq_lens, row_slots,
                          len(q))
        self.call("gated_delta", q, strides[0], k, strides[1], v, strides[2], log_decay, strides[3],
                  decay_dim, beta, strides[4], out, strides[5], *step, num_key_heads, num_heads, int(tiled),
                  key_dim, value_dim, self._place()[1])

    def mamba2(self, x: Tensor, b: Tensor, c: Tensor, dt: Tensor, a: Tensor, d: Tensor | None, states: Tensor,
               slots: Tensor, cu_seqlens: Tensor, seq_lens: Tensor, out: Tensor,
               row_slots: Tensor | None = None) -> None:
        device, stream = self._place()
        num_heads, state_size, head_dim = states.shape[1:]
        num_groups = b.shape[1] // state_size
        named = (("x", x, num_heads * head_dim), ("b", b, num_groups * state_size),
                 ("c", c, num_groups * state_size), ("dt", dt, num_heads), ("out", out, num_heads * head_dim))
        strides = self._strides(named, len(x))
        for name, part in (("a", a), ("d", d)):
            if part is not None:
                check_dense(name, part, (num_heads,), device=device)
        step = self._step(states, (num_heads, state_size, head_dim), slots, cu_seqlens, seq_lens, row_slots,
                          len(x))
        self.call("mamba2", x, strides[0], b, strides[1], c, strides[2], dt, strides[3], a, d, out,
                  strides[4], *step, num_groups, num_heads, state_size, head_dim, stream)

    def _strides(self, named: tuple[tuple[str, Tensor, int], ...], num_rows: int) -> list[int]:
        """The row strides of float32 [num_rows, columns] tensors, each with its name."""
        device = self._place()[0]
        return [check(name, tensor, (num_rows, columns), device=device) for name, tensor, columns in named]

    def _step(self, states: Tensor, shape: tuple[int, ...], slots: Tensor, cu_seqlens: Tensor,
              seq_lens: Tensor, row_slots: Tensor | None, num_rows: int) -> tuple[Any, ...]:
        """The arguments from `states` to `num_rows` of kernels.h."""
        device = self._place()[0]
        if states.dim() != len(shape) + 1 or not len(states) or not states[0].is_contiguous():
            raise ValueError(f"states has the shape {list(states.shape)} and the strides {states.stride()}; "
                             f"expected slots of {list(shape)}, each dense")
        check("states", states.as_strided((len(states), math.prod(shape)), (states.stride(0), 1)),
              (-1, states[0].numel()), device=device)
        if states.shape[1:] != shape:
            raise ValueError(f"states has slots of {list(states.shape[1:])}; expected {list(shape)}")
        check_dense("slots", slots, (-1,), _INT32, device)
        check_dense("cu_seqlens", cu_seqlens, (len(slots) + 1,), _INT32, device)
        check_dense("seq_lens", seq_lens, slots.shape, _INT32, device)
        if row_slots is not None:
            check_dense("row_slots", row_slots, (num_rows,), _INT32, device)
        return (states, states.stride(0), len(states), slots, cu_seqlens, seq_lens, row_slots, len(slots),
                num_rows)
