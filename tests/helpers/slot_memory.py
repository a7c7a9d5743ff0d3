"""A process of its own that loads, asks and unloads a model again and again, and says what memory that took.

python -m tests.helpers.slot_memory FOLDER_OF_MODELS TIMES -> a line of JSON: bytes more than after three
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path

from model import load_model
from model.catalogue.listing import Catalogue
from model.catalogue.places import Place
from model.config import EngineConfig
from model.engine.request import SamplingParams
from model.machine import resident_memory
from model.slot.model_slot import ModelSlot
from model.slot.state import EMPTY, READY
from tests.helpers.api import wait_until

ENGINE = EngineConfig(device="cpu", threads=1)


def main(folder: Path, times: int) -> None:
    slot = ModelSlot(load_model, Catalogue([Place("x", folder)], ENGINE), ENGINE)
    [entry] = slot.catalogue.look()

    def once() -> None:
        slot.load(entry.found.id)
        assert slot.wait().phase == READY, slot.state.problem
        lease = slot.lease()
        few = SamplingParams(max_new_tokens=4)
        for _event in lease.wait().start([{"role": "user", "content": "Hello"}], few).events():
            pass
        lease.release()
        slot.unload()
        assert slot.wait().phase == EMPTY

    for _ in range(3):
        once()
    threads, memory = threading.active_count(), resident_memory()
    for _ in range(times):
        once()
    gc.collect()
    wait_until(lambda: threading.active_count() <= threads)
    print(json.dumps({"more_bytes": resident_memory() - memory}))
    slot.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
