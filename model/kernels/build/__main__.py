"""`python -m model.kernels.build` compiles the CPU kernels from the command line."""

from __future__ import annotations

import argparse
import sys
import time

from model.kernels.build.cpu import own_recipe
from model.kernels.build.library import build_library
from model.kernels.errors import KernelBuildError


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the CPU kernels.")
    parser.add_argument("--compiler", help="C++ compiler; default: the first of g++, clang++, c++")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        path = build_library(own_recipe(arguments.compiler), lambda line, share: print(line, flush=True))
    except KernelBuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}  ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
