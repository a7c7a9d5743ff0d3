"""Is there a GPU that Parlor can use? Prints it, or one sentence and ends with 2."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from model.devices import cuda_problem


def description() -> dict[str, Any]:
    """What the results were measured on."""
    properties = torch.cuda.get_device_properties(0)
    return {"gpu": properties.name, "capability": [properties.major, properties.minor],
            "multiprocessors": properties.multi_processor_count, "memory_bytes": properties.total_memory,
            "torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(),
            "system": platform.platform()}


def main(arguments: list[str]) -> int:
    """Arguments: the file to write the description to."""
    problem = cuda_problem()
    if problem:
        print(f"tools/gpu_check.sh needs a GPU. {problem}", file=sys.stderr)
        return 2
    Path(arguments[0]).write_text(json.dumps(description(), indent=1) + "\n", encoding="utf-8")
    print(description()["gpu"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
