"""How a model's layers and its cache are laid out over the places it runs at, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from model.config import EngineConfig
from model.families.spec import own_caches
from model.files import ModelLoadError
from model.formats.weights import MatrixInfo
from model.memory.gpu_scratch import gpu_scratch
from model.memory.layer_split import layers_by_share
from model.memory.plan import MemoryPlan, Share, plan_shares
from model.model_config import ModelConfig
from model.network.modules import layer_modules
from model.network.place import Place
from model.network.stage import buffer_bytes
from model.network.weights import bytes_by_layer, copies_by_layer
from model.sizes import LOGIT_ROWS, step_tokens


def spread(config: ModelConfig, engine: EngineConfig, infos: list[MatrixInfo], places: Sequence[Place],
           prefill_chunk: int, further_bytes: int, has_disk: bool = False) -> tuple[MemoryPlan, list[int]]:
    """The plan, and how many layers each place gets.

    further_bytes  of a draft model and of adapters; they count at the last place
    has_disk       weights that do not fit on the CPU may stay on disk

    Raises ModelLoadError if it cannot fit.
    """
    spec = config.spec
    reads_others = spec.layer_inputs is not None or len(own_caches(spec.layers)) < len(spec.attentions)
    if len(places) > 1 and reads_others:
        raise ModelLoadError(f"{config.name}: its layers read what others of them keep, so that they cannot "
                             "be spread over several GPUs. Leave --gpu-split out.")
    first, layers, last = bytes_by_layer(infos, config)
    counts = layers_by_share([place.free_bytes for place in places], config.spec.num_layers, first,
                             max(1, sum(layers) // len(layers)), last + further_bytes)
    shares, start = [], 0
    for index, (place, count) in enumerate(zip(places, counts, strict=True)):
        weights = sum(layers[start:start + count])
        scratch = scratch_bytes(config, engine, place, count, prefill_chunk)
        if index == 0:
            weights += first
        if index == len(places) - 1:
            weights, scratch = weights + last, scratch + further_bytes
        copies = 0
        if place.device.type == "cuda" and not engine.exact:
            copies = sum(copies_by_layer(infos, config)[start:start + count])
        shares.append(Share(str(place.device), count, weights, scratch, place.free_bytes, copies))
        start += count
    has_disk = has_disk and len(places) == 1 and places[0].device.type == "cpu"
    return plan_shares(config, engine, shares, has_disk), counts


def scratch_bytes(config: ModelConfig, engine: EngineConfig, place: Place, num_layers: int,
                   prefill_chunk: int) -> int:
    """Buffers on one place that do not grow with the context, for `num_layers` of the layers."""
    max_tokens = step_tokens(prefill_chunk)
    scratch = buffer_bytes(config.spec, max_tokens, LOGIT_ROWS, bool(engine.adapters))
    if place.device.type == "cuda":
        length = engine.max_seq_len or config.spec.max_positions
        return scratch + gpu_scratch(config, num_layers, max_tokens, length, bool(engine.adapters)).total
    longest = max(group.k for index in range(config.spec.num_layers)
                  for group in layer_modules(config.spec, config.names, index))
    return scratch + 4 * max_tokens * longest  # rows as the linear kernels stage them: 4 bytes a number
