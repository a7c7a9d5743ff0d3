"""The kernels for AVX-512 and AMX on machines that have neither: their sources, compiled for an emulation.

`kernels_with(isa)` is what tests of every instruction set take. immintrin.h and tiles.h beside this file are
the emulation, in plain C++; isa_detect.cpp makes the library offer the emulated sets.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from model.kernels import load_kernels
from model.kernels.binding import load_library
from model.kernels.build.cpu import ISA_FLAGS, CpuRecipe, Source, find_compiler
from model.kernels.build.library import REPOSITORY, build_library
from model.kernels.cpu_kernels import CpuKernels

FOLDER = Path(__file__).resolve().parent
EMULATED = ("avx512", "amx")
_LEFT_OUT = "-mavx512vnni"
"""Only a loop of cpu/linear/limits.cpp asks for its macro; it keeps sums in registers by an asm statement."""


@functools.cache
def machine_isas() -> tuple[str, ...]:
    """The sets of this machine. (load_kernels would tell too, but it resizes the process's thread team.)"""
    return CpuKernels(load_library(build_library(CpuRecipe(find_compiler())))).supported_isas()


def emulated_recipe(*flags: str) -> CpuRecipe:
    """The library with emulated code for AVX-512 and AMX; it may use AVX2 inside where the machine has it.

    flags   more flags for the compiler and the linker
    """
    inside = ISA_FLAGS["avx2"] if "avx2" in machine_isas() else ("-D__AVX2__",)
    isa_flags = dict(ISA_FLAGS)
    for isa in EMULATED:
        macros = [f"-D__{flag[2:].upper().replace('-', '_')}__" for flag in ISA_FLAGS[isa]
                  if flag.startswith(("-mavx512", "-mamx")) and flag != _LEFT_OUT]
        isa_flags[isa] = (*inside, *macros, f"-I{FOLDER}", "-Wno-psabi", "-Og")
    recipe = CpuRecipe(find_compiler(), isa_flags=isa_flags)
    sources = tuple(Source(str(FOLDER / s.file)) if s.file == "isa_detect.cpp" else s for s in recipe.sources)
    return replace(recipe, sources=sources, flags=(*recipe.flags, "-O1", *flags),
                   link_flags=(*recipe.link_flags, *flags))


@functools.cache
def emulated_kernels() -> CpuKernels:
    """The library of emulated_recipe(), built once and loaded beside the machine's own."""
    library = build_library(emulated_recipe(), build_root=REPOSITORY / "build" / "emulated")
    return CpuKernels(load_library(library))


def kernels_with(isa: str) -> CpuKernels:
    """Kernels that can be forced to `isa`: the machine's own, or the emulated ones where it lacks the set.

    AVX2 is not emulated: without it those tests are skipped.
    """
    kernels = load_kernels(threads=2)
    if isa in kernels.supported_isas():
        return kernels
    if isa not in EMULATED:
        pytest.skip(f"this machine has no {isa}")
    return emulated_kernels()
