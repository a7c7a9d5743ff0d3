"""The logits of one place as so few numbers that the stages of sampling can be tried out on them elsewhere.

The likeliest tokens stand one by one, and so do those that a stage treats in a way of its own: what has
occurred (penalties, DRY), ends of a reply, and what is biased. All others are counted in groups of nearly the
same logit: no stage asks which of them is which. What each stage does is written at `sample` of
kernels/reference/sampling.py; the page does it in webui/static/sampling/sampler-chain.js.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_LIKELIEST = 200
GROUP_WIDTH = 1 / 128
"""Of the rest's logits. A group weighs what its tokens do at temperature 1; at 0.5 it is off by 5e-6."""
FAR_BELOW = 8000.0
"""A token so far below the likeliest one has no weight at any temperature that can be set."""
LONGEST_REPEAT = 1256
"""Beyond that DRY counts no further, whatever is allowed (MOST_BEYOND_ALLOWED in the reference)."""


@dataclass(frozen=True)
class Candidate:
    """A token that stands for itself.

    logit    as the model gave it
    back     how many tokens have come since it last occurred (0: it is the last one); None: it never did
    count    how often it occurs in the reply so far
    repeats  of its occurrences those that DRY may count: (b, n) says that the n tokens before the one that
             is the b-th from the end are those at the end of the history; each n is greater than those at a
             smaller b
    """

    token_id: int
    logit: float
    back: int | None = None
    count: int = 0
    repeats: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class NextLogits:
    """`candidates` by falling logit; `rest` as (logit, number of tokens), by falling logit. Tokens that the
    model itself rules out, by minus infinity or no number at all, are in neither."""

    candidates: tuple[Candidate, ...]
    rest: tuple[tuple[float, int], ...]


def next_logits(logits: Tensor, history: Sequence[int], reply_length: int, breaks: Sequence[int] = (),
                others: Collection[int] = ()) -> NextLogits:
    """What is to be known of the token after `history`.

    logits        float32 [vocab_size], after its last token
    reply_length  tokens at its end that are the reply's
    breaks        for each token of it whether what DRY takes for one sequence ends there; empty: nowhere
    others        ids that are to stand for themselves as well
    """
    x = logits.double().nan_to_num(nan=-math.inf, posinf=3.4e38, neginf=-math.inf)
    if x.max() == -math.inf:
        raise ValueError("No token is possible: the logits are not numbers.")
    vocab_size = len(x)
    is_possible = x >= x.max() - FAR_BELOW
    likeliest = x.topk(min(NUM_LIKELIEST, vocab_size)).indices.tolist()
    backs: dict[int, int] = {}
    for back, token_id in enumerate(reversed(history)):
        backs.setdefault(token_id, back)
    counts = Counter(history[len(history) - reply_length:])
    repeats = _repeats(history, breaks)
    ids = torch.tensor([token_id for token_id in {*likeliest, *backs, *others} if token_id < vocab_size])
    ids = ids[is_possible[ids]]
    candidates = [Candidate(token_id, logit, backs.get(token_id), counts[token_id],
                            tuple(repeats.get(token_id, ())))
                  for token_id, logit in zip(ids.tolist(), x[ids].tolist(), strict=True)]
    candidates.sort(key=lambda one: (-one.logit, one.token_id))
    is_possible[ids] = False
    return NextLogits(tuple(candidates), _groups(x[is_possible]))


def _groups(x: Tensor) -> tuple[tuple[float, int], ...]:
    if not len(x):
        return ()
    greatest = x.max()
    numbers, which, counts = torch.floor((greatest - x) / GROUP_WIDTH).unique(
        return_inverse=True, return_counts=True)
    tops = greatest - numbers * GROUP_WIDTH
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, which, (x - tops[which]).exp())
    return tuple(zip((tops + (sums / counts).log()).tolist(), counts.tolist(), strict=True))


def _repeats(history: Sequence[int], breaks: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """Candidate.repeats by token id."""
    backwards, ends = list(reversed(history)), list(reversed(breaks))
    most = min(ends.index(1) if 1 in ends else len(backwards), LONGEST_REPEAT)
    found: dict[int, list[tuple[int, int]]] = {}
    for b, length in enumerate(_lengths_shared_with_the_beginning(backwards)):
        n = min(length, most)
        if not b or not n or (ends and ends[b - 1]):
            continue
        known = found.setdefault(backwards[b - 1], [])
        if not known or n > known[-1][1]:
            known.append((b, n))
    return found


def _lengths_shared_with_the_beginning(tokens: Sequence[int]) -> list[int]:
    """For each place how many tokens from there on are those from 0 on. Gusfield's Z algorithm: linear."""
    lengths = [0] * len(tokens)
    begin = end = 0  # of the match that reaches farthest
    for at in range(1, len(tokens)):
        length = min(end - at, lengths[at - begin]) if at < end else 0
        while at + length < len(tokens) and tokens[length] == tokens[at + length]:
            length += 1
        lengths[at] = length
        if at + length > end:
            begin, end = at, at + length
    return lengths
