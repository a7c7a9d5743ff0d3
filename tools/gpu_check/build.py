"""Compile the kernels of devices, and try those of the GPU; the tests need those of the CPU to compare with.

    python -m tools.gpu_check.build cuda cpu
"""

from __future__ import annotations

import sys
import time

from model.kernels import load_kernels
from model.kernels.self_check import check_kernels


def main(devices: list[str]) -> int:
    for device in devices:
        started = time.monotonic()
        ops = load_kernels(device, progress=lambda line, share: print(f"{share:4.0%} {line}"))
        if device == "cuda":
            check_kernels(ops)
        print(f"{device}: {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
