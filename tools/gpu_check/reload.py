"""Load, use and unload the starter several times: afterwards as much memory must be free as after the first.

    python -m tools.gpu_check.reload --device cuda --out reload.json

What the first time leaves behind is CUDA's own: its context, the kernels' code, cuBLAS.
"""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path

import torch

from model import load_model
from model.machine import resident_memory
from model.options import path_option

ROOT = Path(__file__).resolve().parents[2]
TIMES = 4
ALLOWED = {"cuda": 8 << 20, "cpu": 64 << 20}
"""Bytes more than after the first time; on the CPU the process's own heap moves."""


def used_bytes(device: str) -> int:
    gc.collect()
    if device == "cpu":
        return resident_memory()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


def use_once(device: str) -> int:
    """Bytes in use while the model is loaded."""
    llm = load_model(ROOT / "starter", device=device)
    try:
        llm.generate(["One, two,", "Red, green, blue,"], max_new_tokens=20, temperature=0.0)
        return used_bytes(device)
    finally:
        llm.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check.reload")
    parser.add_argument("--device", default="cuda", choices=tuple(ALLOWED))
    parser.add_argument("--out", type=path_option, required=True)
    options = parser.parse_args(arguments)
    loaded, after = [], []
    for _ in range(TIMES):
        loaded.append(use_once(options.device))
        after.append(used_bytes(options.device))
    growth = max(after[1:]) - after[0]
    report = {"loaded_bytes": loaded, "unloaded_bytes": after, "growth": growth,
              "allowed": ALLOWED[options.device]}
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"in use after each unloading: {', '.join(f'{value / (1 << 20):,.1f} MiB' for value in after)}")
    return 0 if growth <= ALLOWED[options.device] else 1


if __name__ == "__main__":
    raise SystemExit(main())
