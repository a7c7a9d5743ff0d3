"""A layer of the Spec with its weights, in the parts that a stage runs one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from model.families.spec import Layer
from model.network.branch import Branch
from model.network.layer_inputs import InputWeights
from model.network.mixture import Mixture
from model.network.step import Rows, StepInput
from model.network.streams import StreamWeights
from model.network.weights import DenseWeights


class Mixer(Protocol):
    """How tokens see those before them, in one layer: three things that are done to the rows of a step."""

    def project(self, step: StepInput, v: Rows, of_prompts: bool) -> None:
        """Hidden states to what is mixed, in buffers of its own; v: rows of the step that decode, or those of
        its prompts."""

    def mix(self, step: StepInput, v: Rows) -> None:
        """Each token with those before it, which are kept for the next step; all rows of a step."""

    def add(self, v: Rows, of_prompts: bool) -> None:
        """The result to the hidden state."""


@dataclass(frozen=True)
class BuiltLayer:
    """A layer of the Spec, ready to run."""

    layer: Layer
    mixers: list[Mixer]
    mlp: DenseWeights | Mixture | None
    of_mixers: Branch
    branch: Branch  # of the mlp
    index: int      # of the whole model's layers
    input: InputWeights | None
    streams: StreamWeights | None
    scale: float
