"""Logits of a request that are wanted for themselves: as they are, or as log-probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.engine.request import TokenLogprob

_BLOCK = 256
"""Logits of which the greatest is looked for first; see _likeliest."""
_LEAST = -100.0  # e to this is nothing in float32; -inf times that nothing would be no number


def token_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: int) -> list[TokenLogprob]:
    """How likely each token is after its row of logits, to some millionths: in float32, for it is computed
    beside decoding and should only read the logits a few times.

    logits     float32 [len(token_ids), vocab_size]
    token_ids  the tokens that came after these rows; -1 where none did
    """
    greatest = logits.amax(-1, keepdim=True)
    below = (logits - greatest).clamp_(min=_LEAST)
    shares = below.exp()
    total = shares.sum(-1)
    entropies = total.log() - shares.mul_(below).sum(-1) / total
    scale = greatest + total.log()[:, None]
    chosen = logits[torch.arange(len(token_ids)), torch.tensor(token_ids)] - scale[:, 0]
    values, ids = _likeliest(logits, num_top)
    values = values - scale
    return [TokenLogprob(token_id, value, tuple(zip(*top, strict=True)), entropy)
            for token_id, value, entropy, *top in zip(token_ids, chosen.tolist(), entropies.tolist(),
                                                      ids.tolist(), values.tolist(), strict=True)]


def _likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """topk(count) of each row. The `count` greatest lie in the `count` blocks of the greatest maxima, and to
    look for those takes a tenth of the time."""
    rows, vocab_size = logits.shape
    whole = vocab_size - vocab_size % _BLOCK
    if not 0 < count <= whole // _BLOCK:
        return logits.topk(min(count, vocab_size))
    blocks = logits[:, :whole].unflatten(1, (-1, _BLOCK))
    best = blocks.amax(-1).topk(count).indices[..., None]  # [rows, count, 1]
    ids = (best * _BLOCK + torch.arange(_BLOCK, device=logits.device)).flatten(1)
    rest = torch.arange(whole, vocab_size, device=logits.device).expand(rows, -1)
    ids = torch.cat([ids, rest], 1)
    values, places = logits.gather(1, ids).topk(count)
    return values, ids.gather(1, places)


class Scores(Protocol):
    """What is kept of the logits of a prompt; they come in parts."""

    first: int  # logits after the tokens from here on are wanted

    def take(self, position: int, logits: Tensor) -> None:
        """float32 [n, vocab_size], after the tokens position .. position + n - 1; used up on return."""


class LogitScores:
    """The logits themselves: float32 [prompt_length - first, vocab_size]."""

    def __init__(self, prompt_length: int, first: int, vocab_size: int) -> None:
        self.first = first
        self.logits = torch.empty(prompt_length - first, vocab_size)

    def take(self, position: int, logits: Tensor) -> None:
        self.logits[position - self.first:][:len(logits)] = logits


class PromptLogprobs:
    """Log-probabilities of the tokens of a prompt behind the one at `first`."""

    def __init__(self, token_ids: list[int], num_top: int, first: int = 0) -> None:
        self.first = first
        self.found: list[TokenLogprob] = []
        self._token_ids, self._num_top = token_ids, num_top

    def take(self, position: int, logits: Tensor) -> None:
        tokens = self._token_ids[position + 1:position + 1 + len(logits)]
        if tokens:  # nothing follows the last one
            del self.found[position - self.first:]  # what is computed again after a preemption
            self.found += token_logprobs(logits[:len(tokens)], tokens, self._num_top)
