"""A process of its own that loads a model, fills its cache and says what memory that took.

python -m tests.helpers.memory_process SMALL_FOLDER FOLDER KIND -> a line of JSON: planned and measured bytes

The small model comes and goes first, so that what any model takes (code, threads, torch's own memory) is not
counted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.request import SamplingParams
from model.machine import resident_memory


def peak_memory() -> int:
    """Bytes of the largest resident size since the last `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell the peak")


def forget_peak() -> None:
    """Documentation/filesystems/proc.rst: 5 resets the peak resident size."""
    Path("/proc/self/clear_refs").write_text("5")


def fill_cache(engine: Engine, prompt_length: int = 128) -> None:
    """Use every page once."""
    vocab = engine.model_config.spec.vocab_size
    requests = [engine.submit([(i * 131 + j * 7) % vocab for j in range(prompt_length)],
                              SamplingParams(temperature=0.0, max_new_tokens=1), frozenset())
                for i in range(engine.plan.cache_tokens // prompt_length)]
    for request in requests:
        for _ in request.events():
            pass


def main(small_folder: Path, folder: Path, kind: str) -> None:
    config = EngineConfig(device="cpu", cache=kind, threads=1, speculation=False)
    small = load_engine(small_folder, config)
    fill_cache(small)
    small.close()
    del small
    before = resident_memory()
    forget_peak()
    engine = load_engine(folder, config)
    loaded = peak_memory() - before
    fill_cache(engine)
    plan = engine.plan
    cache = engine._runner._transformer.stages[0].cache
    held = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
    print(json.dumps({"planned": plan.total_bytes, "cache": plan.cache_bytes, "held_cache": held,
                      "loaded": loaded, "weights": plan.weight_bytes, "scratch": plan.scratch_bytes,
                      "measured": peak_memory() - before}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
