"""A decoder over a paged cache: token ids of a ragged batch in, logits out.

Its layers are one stage on one device, or several on several. Knows nothing of requests, sampling or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from model.formats.weights import WeightReader
from model.kernels.lora import LoraSegment
from model.model_config import ModelConfig
from model.network.adapters import Adapters
from model.network.link import Copy, verified_copy
from model.network.place import Place
from model.network.stage import Stage
from model.network.step import Sizes, StepInput
from model.network.weights import ModelWeights, Progress, load_weights


class Transformer:
    """Weights, cache and buffers of one model. `max_tokens` is the largest T of a step."""

    @classmethod
    def load(cls, places: Sequence[Place], num_layers: Sequence[int], reader: WeightReader,
             config: ModelConfig, sizes: Sizes, *, exact: bool, progress: Progress | None = None,
             adapters: Adapters | None = None) -> Transformer:
        """Read the weights and allocate the rest; `num_layers` layers at each of the places, in order."""
        starts = [sum(num_layers[:index]) for index in range(len(places) + 1)]
        layers = [range(*pair) for pair in pairwise(starts)]
        homes = [place for place, count in zip(places, num_layers, strict=True) for _ in range(count)]
        weights = load_weights(homes, reader, config, exact, progress, adapters)
        stages = [Stage(place, config.spec, weights, part, sizes)
                  for place, part in zip(places, layers, strict=True)]
        for stage in stages:
            stage.prepare(sizes.copy_bytes)
        return cls(config, weights, stages, sizes, adapters)

    def __init__(self, config: ModelConfig, weights: ModelWeights, stages: list[Stage],
                 sizes: Sizes, adapters: Adapters | None = None) -> None:
        self.config, self.weights, self.stages, self.adapters = config, weights, stages, adapters
        self.max_tokens, self.has_adapters = sizes.max_tokens, sizes.has_adapters
        shape = (sizes.max_tokens, config.spec.hidden_size)
        self._copies: list[Copy] = [verified_copy(a.place.device, b.place.device, shape)
                                    for a, b in pairwise(stages)]

    @property
    def devices(self) -> list[torch.device]:
        """Of each stage; the hidden state comes out at the last."""
        return [stage.place.device for stage in self.stages]

    @property
    def recorded_sizes(self) -> tuple[int, ...]:
        """Rows of the steps that are repeated from a recording made while loading; see Recorder.sizes."""
        return self.stages[0].recorded_sizes

    @property
    def least_prompt_rows(self) -> int:
        """See PromptOperations.least_rows; 1 where prompts are computed as everything else is."""
        ways = [stage.place.ops.prompts for stage in self.stages]
        return max((way.least_rows for way in ways if way is not None), default=1)

    def seal(self) -> None:
        """Loading is over: nothing more is recorded ahead."""
        for stage in self.stages:
            stage.seal()

    def put_adapter(self, number: int, added: Mapping[str, list[LoraSegment]]) -> None:
        """See Adapters.put."""
        assert self.adapters is not None
        if self.adapters.put(number, added):
            for stage in self.stages:
                stage.forget_steps_with_adapters()

    def rotate_for(self, length: int) -> None:
        """See Tables.rotate_for."""
        for stage in self.stages:
            stage.rotate_for(length)

    def forward(self, steps: Sequence[StepInput]) -> Tensor:
        """Compute the new tokens and put their keys and values into the cache.

        steps    the same input on the device of each stage
        returns  float32 [T, hidden_size] before the last norm; valid until the next call
        """
        num_tokens = len(steps[0].token_ids)
        self.stages[0].run(steps[0])
        for index, copy in enumerate(self._copies, 1):
            copy(self.stages[index - 1].hidden(num_tokens), self.stages[index].hidden(num_tokens))
            self.stages[index].run(steps[index])
        return self.stages[-1].hidden(num_tokens)

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Norm and head: hidden float32 [R, hidden_size], out float32 [R, vocab_size], on the last device."""
        self.stages[-1].logits(hidden, out)

    def copy_pages(self, sources: Tensor, targets: Tensor) -> None:
        """Copy whole pages in every layer; int32 [cache groups, n] on the host, all read before any is
        written."""
        for stage in self.stages:
            stage.copy_pages(sources, targets)

    def copy_states(self, source: Tensor, target: Tensor) -> None:
        """Copy whole slots in every layer that keeps a state; int64 [n] on the host, all read before any is
        written."""
        for stage in self.stages:
            stage.copy_states(source, target)
