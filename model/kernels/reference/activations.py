"""The functions between the two products of an mlp, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def activate(x: Tensor, out: Tensor, kind: str, gated: bool) -> None:
    """out = f(x), or f(x[:, :n]) * x[:, n:] where gated.

    x     float32 [T, n], gated [T, 2 * n], any row stride
    kind  silu       a / (1 + exp(-a))
          gelu       a / 2 * (1 + erf(a / sqrt(2)))
          gelu_tanh  a / 2 * (1 + tanh(sqrt(2 / pi) * (a + 0.044715 * a^3)))
          relu2      max(a, 0)^2
          relu       max(a, 0)
          clamped    a / (1 + exp(-1.702 * a)) of min(a, 7), and what it gates is kept within -7 and 7, plus 1
          sigmoid    1 / (1 + exp(-a))
          none       a
    out   float32 [T, n], any row stride
    """
    gate, up = x.chunk(2, dim=-1) if gated else (x, None)
    y = activated(gate, kind)
    if up is not None and kind == "clamped":
        up = up.clamp(-7, 7) + 1
    out.copy_(y if up is None else y * up)


def activated(a: Tensor, kind: str) -> Tensor:
    """f(a) of `activate`."""
    functional = torch.nn.functional
    return {"silu": functional.silu, "gelu": functional.gelu,
            "gelu_tanh": lambda a: functional.gelu(a, approximate="tanh"),
            "relu2": lambda a: functional.relu(a).square(),
            "relu": functional.relu,
            "clamped": lambda a: a.clamp(max=7) * torch.sigmoid(1.702 * a.clamp(max=7)),
            "sigmoid": torch.sigmoid, "none": lambda a: a}[kind](a)
