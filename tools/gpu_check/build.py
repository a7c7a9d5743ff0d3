"""Compile the kernels of the GPU, and those of the CPU that the tests compare with.

    python -m tools.gpu_check.build
"""

from __future__ import annotations

import time

from model.kernels import load_kernels


def main() -> int:
    for device in ("cuda", "cpu"):
        started = time.monotonic()
        load_kernels(device, progress=lambda line, share: print(f"{share:4.0%} {line}"))
        print(f"{device}: {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
