"""From the logits of a step to the next token of each sequence, by the sampling kernel."""

from __future__ import annotations

from torch import Tensor

from model.kernels.sampling import SamplingRow
from model.network.place import Place


class Sampler:
    """The chain itself is the kernel `sample`; what it computes is written in model/kernels/reference.py."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def choose(self, logits: Tensor, rows: list[SamplingRow]) -> list[int]:
        """The next token of each row; -1 where every token is banned or the logits are not numbers.

        logits  float32 [len(rows), vocab_size]
        """
        with self._place.active():
            return self._place.ops.sample(logits, rows).tolist()
