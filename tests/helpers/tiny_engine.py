"""An engine on a small random model, and requests for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.page_pool import PagePool
from model.engine.request import FailedEvent, FinishedEvent, Request, SamplingParams, TokenEvent
from tests.helpers.tiny_models import TINY, gptq_tensors, linear_sizes, random_tensors, write_model

NO_EOS: frozenset[int] = frozenset()


def quantized_model(folder: Path) -> Path:
    """TINY with 4-bit weights, so that tests run the kernels that chats run."""
    config = {**TINY, "max_position_embeddings": 512, "quantization_config": {
        "quant_method": "gptq", "bits": 4, "group_size": 32}}
    tensors = random_tensors(config)
    for layer in range(config["num_hidden_layers"]):
        for index, (name, shape) in enumerate(linear_sizes(config, layer).items()):
            del tensors[name + ".weight"]
            parts, _ = gptq_tensors(shape, bits=4, group_size=32, seed=10 * layer + index)
            tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    return write_model(folder, config, tensors)


def load(folder: Path, max_running: int | None = None, **changes: Any) -> Engine:
    engine = load_engine(folder, EngineConfig(**{"threads": 1, **changes}))
    if max_running is not None:
        engine._scheduler.max_running = max_running
    return engine


def shrink(engine: Engine, num_pages: int, num_windows: int | None = None) -> None:
    """Leave an idle engine so many pages for each kind of layer, and those of windows, if it has more."""
    wanted = num_pages if num_windows is None else num_windows
    pools = [PagePool(min(pool.num_pages, num_pages)) if pool.reach is None else
             PagePool(min(pool.num_pages, wanted) + 1, pool.reach) for pool in engine._cache.pools]
    engine._cache.__init__(pools)


def prompt(length: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(96) for _ in range(length)]


def params(**changes: Any) -> SamplingParams:
    return SamplingParams(**{"seed": 5, "max_new_tokens": 20, **changes})


def outcome(request: Request) -> tuple[list[int], FinishedEvent | FailedEvent]:
    events = list(request.events())
    last = events[-1]
    assert isinstance(last, FinishedEvent | FailedEvent)
    return [event.token_id for event in events if isinstance(event, TokenEvent)], last


def tokens(engine: Engine, token_ids: list[int], settings: SamplingParams | None = None) -> list[int]:
    return outcome(engine.submit(token_ids, settings or params(), NO_EOS))[0]
