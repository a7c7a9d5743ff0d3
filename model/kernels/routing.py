"""How the scores of a router become a choice of experts and their shares: what `route` is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCORINGS = ("softmax", "softmax of chosen", "sigmoid", "softmax of near")
"""In the order of PARLOR_ROUTE_* in kernels.h."""


@dataclass(frozen=True)
class Routing:
    """values = softmax or sigmoid of the scores; the top_k largest are chosen, and their values are their
    shares.

    A correction for each expert, where there is one, is added to the values for the choice alone. Where
    experts are in groups (neighbours, equally many), the choice is within the best `top_groups` of them; what
    a group counts is the sum of its `best_of_group` largest.

    "softmax of near" is SparseMixer's (https://arxiv.org/abs/2409.12136): each chosen expert has its share of
    a softmax of its own, over what is not chosen before it and not far below it: (s - t) / max(|t|, s) <=
    margin for its score s and another's, t.
    """

    top_k: int
    scoring: Literal["softmax", "softmax of chosen", "sigmoid", "softmax of near"] = "softmax"
    renormalized: bool = False  # shares are divided by their sum + share_eps
    share_eps: float = 0.0
    scale: float = 1.0          # what shares are multiplied by at last
    num_groups: int = 1
    top_groups: int = 1
    best_of_group: int = 1
    margin: float = 0.0
