"""From the logits of a step to the next token of each sequence, by the sampling kernel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from model.kernels.sampling import SamplingRow


class Sampler:
    """The chain itself is the kernel `sample`; what it computes is written in model/kernels/reference.py."""

    def __init__(self, ops: Any) -> None:
        self._sample = ops.sample

    def choose(self, logits: Tensor, rows: list[SamplingRow]) -> list[int]:
        """The next token of each row; -1 where every token is banned or the logits are not numbers.

        logits  float32 [len(rows), vocab_size]
        """
        return self._sample(logits, rows).tolist()
