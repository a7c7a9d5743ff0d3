"""The kernels as on another machine: for AVX-512 and AMX where there are none, and without what there is.

`kernels_with(isa)` is what tests of every instruction set take; pytest --isa SET is be_a_machine_with().
immintrin.h and tiles.h beside this file are the emulation, in plain C++, avx_vnni.h that of AVX-VNNI on AVX2;
detects_SET.cpp makes a library offer SET and those below it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from model.kernels import load_kernels
from model.kernels.binding import load_library
from model.kernels.build import cpu
from model.kernels.build.cpu import ISA_FLAGS, CpuRecipe, Source, find_compiler
from model.kernels.build.library import build_library
from model.kernels.cpu_kernels import CpuKernels

FOLDER = Path(__file__).resolve().parent
EMULATED = ("avx_vnni", "avx512", "amx")
_LEFT_OUT = "-mavx512vnni"
"""Only a loop of cpu/linear/limits.cpp asks for its macro; it keeps sums in registers by an asm statement."""


@functools.cache
def machine_isas() -> tuple[str, ...]:
    """The sets of this machine. (load_kernels would tell too, but it resizes the process's thread team.)"""
    return CpuKernels(load_library(build_library(CpuRecipe(find_compiler())))).supported_isas()


def can_run(isa: str) -> bool:
    """Whether this machine has the set, or what its emulation is made of."""
    return isa in machine_isas() or (isa in EMULATED and "avx2" in machine_isas())


def detecting(isa: str, recipe: CpuRecipe) -> CpuRecipe:
    """The same library for a machine whose best set is `isa`."""
    detects = Source(str(FOLDER / f"detects_{isa}.cpp"))
    sources = tuple(detects if source.file == "isa_detect.cpp" else source for source in recipe.sources)
    return replace(recipe, sources=sources)


@dataclass(frozen=True)
class EmulatedRecipe(CpuRecipe):
    """Objects of sets that are emulated lie beside the processor's, and those of other sets are shared."""

    def ninja_text(self, folder: Path) -> str:
        sets = "|".join(isa for isa in EMULATED if self.isa_flags[isa] != ISA_FLAGS[isa])
        return re.sub(rf"\.({sets})\.o\b", r".\1-emulated.o", super().ninja_text(folder))


def be_a_machine_with(isa: str) -> None:
    """From now on this process loads the kernels of a machine whose best set is `isa`."""
    has_it = isa in machine_isas()
    if not can_run(isa):
        raise pytest.UsageError(f"--isa {isa}: this machine has no {isa}, and it is not emulated.")
    if isa != machine_isas()[-1]:
        recipe = detecting(isa, CpuRecipe(find_compiler()) if has_it else _emulating(_lacking()))
        cpu.own_recipe = lambda compiler=None: recipe


def _lacking() -> tuple[str, ...]:
    return tuple(isa for isa in EMULATED if isa not in machine_isas())


def emulated_recipe(*flags: str) -> CpuRecipe:
    """The library with emulated code for AVX-VNNI, AVX-512 and AMX, also where the processor has them; it may
    use AVX2 inside where the machine has it.

    flags   more flags for the compiler and the linker
    """
    recipe = detecting("amx", _emulating(EMULATED))
    return replace(recipe, flags=(*recipe.flags, "-O1", *flags), link_flags=(*recipe.link_flags, *flags))


def _emulating(sets: tuple[str, ...]) -> CpuRecipe:
    """With emulated code for these sets; it still detects what the machine has."""
    inside = ISA_FLAGS["avx2"] if "avx2" in machine_isas() else ("-D__AVX2__",)
    isa_flags = dict(ISA_FLAGS)
    for isa in sets:
        macros = [f"-D__{flag[2:].upper().replace('-', '_')}__" for flag in ISA_FLAGS[isa]
                  if flag.startswith(("-mavx512", "-mamx")) and flag != _LEFT_OUT]
        isa_flags[isa] = (*ISA_FLAGS["avx2"], "-include", str(FOLDER / "avx_vnni.h"), "-O1") \
            if isa == "avx_vnni" else (*inside, *macros, f"-I{FOLDER}", "-Wno-psabi", "-Og")
    return EmulatedRecipe(find_compiler(), isa_flags=isa_flags)


@functools.cache
def emulated_kernels() -> CpuKernels:
    """A library with all that this machine lacks, built once and loaded beside the machine's own."""
    return CpuKernels(load_library(build_library(detecting("amx", _emulating(_lacking())))))


def kernels_with(isa: str) -> CpuKernels:
    """Kernels that can be forced to `isa`: the machine's own, or the emulated ones where it lacks the set.

    AVX2 is not emulated: without it its tests are skipped, and those of the sets above, which use it.
    """
    kernels = load_kernels(threads=2)
    if isa in kernels.supported_isas():
        return kernels
    if not can_run(isa):
        pytest.skip(f"this machine has no {isa}")
    return emulated_kernels()
