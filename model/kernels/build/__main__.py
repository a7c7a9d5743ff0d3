"""`python -m model.kernels.build` compiles the kernels from the command line."""

from __future__ import annotations

import argparse
import sys
import time

from model.kernels.build.cpu import own_recipe
from model.kernels.build.cuda import ARCHITECTURES, CudaRecipe, find_nvcc
from model.kernels.build.library import build_library
from model.kernels.errors import KernelBuildError


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the CPU kernels, for every CPU of this kind.")
    parser.add_argument("--compiler", help="C++ compiler; default: the first of g++, clang++, c++")
    parser.add_argument("--cuda", type=_architectures, default=(), metavar="N,N,...",
                        help="instead those of GPUs of these compute capabilities, such as 90 for 9.0; all: "
                             f"{','.join(map(str, ARCHITECTURES))}, which suit the ones between, too")
    arguments = parser.parse_args()
    try:
        recipes = [CudaRecipe(find_nvcc(), number) for number in arguments.cuda] if arguments.cuda else \
            [own_recipe(arguments.compiler)]
        for recipe in recipes:
            started = time.monotonic()
            path = build_library(recipe, lambda line, share: print(line, flush=True))
            print(f"{path}  ({time.monotonic() - started:.1f} s)")
    except KernelBuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _architectures(text: str) -> tuple[int, ...]:
    if text == "all":
        return ARCHITECTURES
    if not all(part.isascii() and part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is neither all nor numbers such as 80,90")
    return tuple(map(int, text.split(",")))


if __name__ == "__main__":
    raise SystemExit(main())
