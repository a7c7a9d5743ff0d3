"""Which kernels a token takes, with their times, in the replay of its recorded step.

    python -m tools.gpu_check.replay --out replay.json

By torch's profiler, whose times are the GPU's own. Kernels that start before the one in front has ended
overlap: so the sum may be more than what a token takes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from model.config import EngineConfig
from model.engine.loading import synthetic_engine
from model.options import path_option
from tools.benchmark.cases import Case, Runner

SHAPE, STEPS = "llama-2-7b", 32


def by_kernel(events: Iterable[Any], tokens: int) -> list[dict[str, Any]]:
    """A token's launches and microseconds of each kernel, the longest first; `events` are the GPU's."""
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        named = re.search(r"(\w+_kernel)\b", event.name)
        found[named[1] if named else event.name[:40]].append(event.time_range.end - event.time_range.start)
    rows = [{"kernel": name, "launches": len(times) / tokens, "microseconds": sum(times) / tokens}
            for name, times in found.items()]
    return sorted(rows, key=lambda row: -row["microseconds"])


def main(arguments: list[str] | None = None) -> int:
    """1 where the profiler saw nothing: it may not be allowed to."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check.replay")
    parser.add_argument("--out", type=path_option, required=True)
    options = parser.parse_args(arguments)
    case = Case(steps=STEPS)
    engine = synthetic_engine(SHAPE, EngineConfig(device="cuda", max_seq_len=case.length, speculation=False))
    try:
        runner = Runner(engine)
        runner.prepare(case)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            runner.run(case)
            torch.cuda.synchronize()
    finally:
        engine.close()
    events = [event for event in profiler.events() or ()
              if event.device_type == torch.autograd.DeviceType.CUDA]
    if not events:
        print("torch's profiler saw no kernels")
        return 1
    rows = by_kernel(events, STEPS)
    options.out.write_text(json.dumps({"shape": SHAPE, "kernels": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(row['microseconds'] for row in rows):,.0f} us a token in "
          f"{sum(row['launches'] for row in rows):,.0f} kernels")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
