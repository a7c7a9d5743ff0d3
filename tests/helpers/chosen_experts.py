"""Which experts a run chooses, and runs that are held to the choices of another one.

A mixture may choose another expert at a near tie for the least rounding, and rows that attend to such a row
change with it. Held to the same choices, what is left of the error is the rounding's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from model.network.mixture import Mixture

_route = Mixture._route
_NEVER = -1e30


@contextmanager
def noted_choices() -> Iterator[list[Tensor]]:
    """What every layer chooses for the rows of each step, in the order in which it is computed."""
    choices: list[Tensor] = []

    def noting(mixture: Any, x: Tensor, v: Any) -> tuple[Tensor, Tensor]:
        chosen, shares = _route(mixture, x, v)
        choices.append(chosen.clone())
        return chosen, shares

    with patch.object(Mixture, "_route", noting):
        yield choices


@contextmanager
def held_to(choices: list[Tensor]) -> Iterator[None]:
    """These instead; shares follow from the run's own scores. For routing whose shares are those of the
    chosen scores alone. The same steps must be computed, none of them from a recording."""
    left = iter(choices)

    def holding(mixture: Any, x: Tensor, v: Any) -> tuple[Tensor, Tensor]:
        chosen, shares = _route(mixture, x, v)
        wanted, moe, weights = next(left), mixture._moe, mixture._weights
        scores = v.of("scores", moe.num_experts)
        is_wanted = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, wanted.long(), True)
        correction = None if weights.correction is None else torch.zeros_like(weights.correction)
        mixture._ops.route(scores.masked_fill(~is_wanted, _NEVER), moe.routing, correction,
                           weights.expert_scale, chosen, shares)
        assert torch.equal(chosen.sort().values, wanted.sort().values)
        return chosen, shares

    with patch.object(Mixture, "_route", holding):
        yield
    assert next(left, None) is None
