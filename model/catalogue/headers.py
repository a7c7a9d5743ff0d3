"""What a model's headers say: family, size, context, and the memory it takes here. Imports torch.

Reads no weights. A file may be anybody's: whatever is wrong with it is a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from model.config import EngineConfig
from model.devices import cuda_problem, default_prefill_chunk
from model.files import ModelLoadError
from model.formats.weights import WeightReader
from model.machine import free_memory
from model.memory.plan import MemoryPlan, plan_memory
from model.memory.spread import scratch_bytes
from model.model_config import ModelConfig
from model.model_path import find_model
from model.network.opening import open_for
from model.network.place import Place
from model.network.weights import weight_infos


@dataclass(frozen=True)
class Headers:
    """Of a model that can be loaded here if there is memory for it."""

    config: ModelConfig
    quantization: str
    weight_bytes: int
    scratch_bytes: int
    quantize: int | None  # bits that its float weights would be rounded to, if that is asked for
    has_disk: bool        # it would run on the CPU: weights that do not fit may stay on disk

    def plan(self, engine: EngineConfig, free_bytes: int) -> MemoryPlan:
        """Raises ModelLoadError if it does not fit into so much, with what would."""
        return plan_memory(self.config, engine, weight_bytes=self.weight_bytes,
                           scratch_bytes=self.scratch_bytes, free_bytes=free_bytes, has_disk=self.has_disk)


class Machine:
    """Where a model would go, by what `engine` asks for: the memory of GPUs together, or the host's."""

    def __init__(self, engine: EngineConfig) -> None:
        self._engine = engine
        wanted = range(len(engine.gpu_split or (0,)))
        on_gpu = engine.device != "cpu" and not cuda_problem(len(wanted))
        self._gpus = [torch.device("cuda", index) for index in wanted] if on_gpu else []
        self._place = Place(cast(Any, None), self._gpus[0], cast(Any, None), 0) if self._gpus else \
            Place.on_host(cast(Any, None), 0)

    def free_bytes(self) -> int:
        """What could be taken now."""
        if not self._gpus:
            return free_memory()
        limits = self._engine.gpu_split or (float("inf"),)
        free = [torch.cuda.mem_get_info(device)[0] for device in self._gpus]
        return sum(int(min(bytes_, gib * (1 << 30))) for bytes_, gib in zip(free, limits, strict=True))

    def headers(self, path: Path) -> Headers:
        """Read them. Raises ModelLoadError with a sentence."""
        engine = self._engine
        path = find_model(path)
        try:
            config, reader, quantize = _opened(path, engine)
            infos = weight_infos(reader, config, engine.exact, keeps_groups=not self._gpus)
        except ModelLoadError:
            raise
        except (OSError, MemoryError, RecursionError, ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{path.name} cannot be read: {error or type(error).__name__}") from error
        chunk = engine.prefill_chunk or default_prefill_chunk(self._place.device)
        scratch = scratch_bytes(config, engine, self._place, config.spec.num_layers, chunk)
        return Headers(config, reader.describe(), sum(info.nbytes for info in infos), scratch, quantize,
                       has_disk=not self._gpus)


def _opened(path: Path, engine: EngineConfig) -> tuple[ModelConfig, WeightReader, int | None]:
    """Rounding is asked for of float weights: a model that is quantized already is taken as it is."""
    try:
        return (*open_for(path, engine), engine.quantize)
    except ModelLoadError:
        if engine.quantize is None:
            raise
        return (*open_for(path, replace(engine, quantize=None)), None)
