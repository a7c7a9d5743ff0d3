"""Logits of a request that are wanted for themselves: as they are, or as log-probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.engine.request import TokenLogprob


def token_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: int) -> list[TokenLogprob]:
    """How likely each token is after its row of logits; in float64.

    logits     float32 [len(token_ids), vocab_size]
    token_ids  the tokens that came after these rows; -1 where none did
    """
    table = logits.double().log_softmax(-1)
    chosen = table[torch.arange(len(token_ids)), torch.tensor(token_ids)].tolist()
    values, ids = table.topk(min(num_top, table.shape[1]))
    return [TokenLogprob(token_id, value, tuple(zip(*top, strict=True)))
            for token_id, value, *top in zip(token_ids, chosen, ids.tolist(), values.tolist(), strict=True)]


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
    """Log-probabilities of all tokens of a prompt but the first."""

    first = 0

    def __init__(self, token_ids: list[int], num_top: int) -> None:
        self.found: list[TokenLogprob] = []
        self._token_ids, self._num_top = token_ids, num_top

    def take(self, position: int, logits: Tensor) -> None:
        tokens = self._token_ids[position + 1:position + 1 + len(logits)]
        if tokens:  # nothing follows the last one
            del self.found[position:]  # what is computed again after a preemption
            self.found += token_logprobs(logits[:len(tokens)], tokens, self._num_top)
