"""Layers that follow each other and whose prompts a device computes in one call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from torch import Tensor

from model.kernels.operations import PromptOperations, WholeLayers
from model.kernels.prompt_layers import PromptLayer, PromptPart
from model.network.attention import AttentionMixer
from model.network.branch import adds_directly
from model.network.built_layer import BuiltLayer
from model.network.step import StepInput
from model.network.weights import DenseWeights


class PromptRun:
    """Some layers, and from how many rows of prompts on the device takes them."""

    def __init__(self, device: WholeLayers, layers: Sequence[PromptLayer]) -> None:
        self._device, self._layers = device, layers
        self._fewest_rows: int | None = None

    def takes(self, step: StepInput) -> bool:
        """Whether the prompts of this step; the first time weights have been measured already."""
        if not step.prompts or step.has_adapters:
            return False
        if self._fewest_rows is None:
            self._fewest_rows = self._device.fewest_rows(self._layers)
        return len(step.token_ids) - step.prompts[0].first >= self._fewest_rows

    def run(self, step: StepInput, hidden: Tensor) -> None:
        """hidden: of the rows of prompts."""
        first = step.prompts[0].first
        parts = [PromptPart(prompt.first - first, prompt.last - first, prompt.num_keys,
                            [table[prompt.index] for table in step.block_tables]) for prompt in step.prompts]
        self._device.prompt_layers(hidden, self._layers, step.positions[first:],
                                   [slots[first:] for slots in step.slot_mappings], parts)


def prompt_runs(prompts: PromptOperations | None,
                layers: Sequence[BuiltLayer]) -> list[tuple[list[BuiltLayer], PromptRun | None]]:
    """All layers in order, those that the device takes together."""
    device = None if prompts is None else prompts.whole_layers
    own = {id(built): _prompt_layer(device, built) for built in layers}
    runs: list[tuple[list[BuiltLayer], PromptRun | None]] = []
    for is_taken, group in groupby(layers, key=lambda built: own[id(built)] is not None):
        members = list(group)
        taken = [layer for built in members if (layer := own[id(built)]) is not None]
        runs.append((members, PromptRun(device, taken) if is_taken and device is not None else None))
    return runs


def _prompt_layer(device: WholeLayers | None, built: BuiltLayer) -> PromptLayer | None:
    layer, mlp = built.layer, built.mlp
    if (device is None or not isinstance(mlp, DenseWeights) or not layer.mlp.is_fused
            or len(mlp.gate_up.parts) != 1 or len(mlp.down_proj.parts) != 1 or len(built.mixers) != 1
            or not isinstance(built.mixers[0], AttentionMixer) or built.streams is not None
            or built.input is not None or built.scale != 1
            or not all(adds_directly(layer, part) for part in (*layer.mixers, layer.mlp))):
        return None
    attention = built.mixers[0].of_prompts()
    norms = built.of_mixers.of_prompts(), built.branch.of_prompts()
    if attention is None or norms[0] is None or norms[1] is None:
        return None
    found = PromptLayer(attention, mlp.gate_up.parts[0].weight, mlp.down_proj.parts[0].weight,
                        (norms[0][0], norms[1][0]), (norms[0][1], norms[1][1]))
    return found if device.takes_layer(found) else None
