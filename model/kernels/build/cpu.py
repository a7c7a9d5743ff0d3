"""What the library of the CPU is made of: the C++ files of cpu/, and the flags of each instruction set.

Knows compilers and flags; nothing of what the kernels compute.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from model.kernels.build.library import (
    LIBRARY_NAME,
    NO_COMPILER,
    REPOSITORY,
    Compiler,
    build_library,
    find_library,
    ninja_value,
    ninja_words,
    path_from,
)
from model.kernels.errors import KernelBuildError, Progress

ISAS = ("plain", "avx2", "avx_vnni", "avx512", "amx", "dotprod", "i8mm")
"""As PARLOR_ISA_* in kernels.h."""
X86_ISAS, ARM_ISAS = ISAS[:5], ("plain", *ISAS[5:])
"""Those of a processor, ascending."""
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni",
           "-mprefer-vector-width=512")
_ISAS_OF_MACHINES = {"x86_64": X86_ISAS, "amd64": X86_ISAS[:-1], "aarch64": ARM_ISAS, "arm64": ARM_ISAS}
"""By platform.machine(), in lower case. On Windows (amd64) no tiles are asked for (isa_detect.cpp), and gcc's
loads of them do not assemble."""
_DOTPROD = "-march=armv8.2-a+dotprod"
_I8MM = f"{_DOTPROD}+i8mm"
_AS_ZIG_SAYS = {_DOTPROD: "-mcpu=generic+dotprod", _I8MM: "-mcpu=generic+dotprod+i8mm"}
ISA_FLAGS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "avx2": _AVX2,
    "avx_vnni": (*_AVX2, "-mavxvnni"),
    "avx512": _AVX512,
    "amx": (*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
    # Of a Mac all code has the compiler's own macro, so this one tells the set.
    "dotprod": (_DOTPROD, "-DPARLOR_DOTPROD=1"),
    "i8mm": (_I8MM, "-DPARLOR_DOTPROD=1", "-DPARLOR_I8MM=1"),
}
COMMON_FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra")
LINK_FLAGS = {"win32": ("-shared", "-static"), "darwin": ("-shared", "-pthread")}.get(
    sys.platform, ("-shared", "-pthread", "-Wl,-Bsymbolic", "-Wl,-z,defs"))
ZIG = (sys.executable, "-m", "ziglang", "c++", "-mcpu=baseline")
"""Clang with a C++ library, from PyPI. By itself it makes code for the processor that it runs on."""


@dataclass(frozen=True)
class Source:
    """One C++ file and the instruction sets it is compiled for, once each."""

    file: str  # in the recipe's folder, or an absolute path
    isas: tuple[str, ...] = ("plain",)

    @property
    def name(self) -> str:
        """The path in the recipe's folder; of an absolute path the last part."""
        path = Path(self.file)
        return path.name if path.is_absolute() else path.as_posix()


_VECTORISED = ("plain", "avx2", "avx512")
_AVX2_AND_VNNI = ("avx2", "avx_vnni")
SOURCES: tuple[Source, ...] = (
    Source("library.cpp"),
    Source("isa.cpp"),
    Source("isa_detect.cpp"),
    Source("thread_team.cpp"),
    Source("operations.cpp"),
    Source("sampling.cpp"),
    Source("sampling_weights.cpp", _VECTORISED),
    Source("rows.cpp", _VECTORISED),
    Source("rope.cpp", _VECTORISED),
    Source("lora.cpp", _VECTORISED),
    Source("routing.cpp"),
    Source("attention/attention.cpp", (*_VECTORISED, "dotprod")),
    Source("attention/prompt_amx.cpp", ("amx",)),
    Source("state/state.cpp"),
    Source("state/conv.cpp", _VECTORISED),
    Source("state/recurrence.cpp", _VECTORISED),
    Source("linear/linear.cpp"),
    Source("linear/experts.cpp"),
    Source("linear/pack.cpp"),
    Source("linear/plain.cpp"),
    Source("linear/stage.cpp", (*_VECTORISED, *ARM_ISAS[1:])),
    Source("linear/silu.cpp", _VECTORISED),
    Source("linear/lookup.cpp"),
    Source("linear/rounding.cpp", _VECTORISED),
    Source("linear/groups_exact.cpp", _VECTORISED),
    Source("linear/groups_plain.cpp"),
    Source("linear/groups_avx2.cpp", _AVX2_AND_VNNI),
    Source("linear/row_avx2.cpp", ("avx2",)),
    Source("linear/groups_avx512.cpp", ("avx512",)),
    Source("linear/avx2.cpp", _AVX2_AND_VNNI),
    Source("linear/avx2_many.cpp", _AVX2_AND_VNNI),
    Source("linear/panels.cpp", ("avx2", "avx_vnni", "avx512")),
    Source("linear/avx512.cpp", ("avx512",)),
    Source("linear/dotprod.cpp", ARM_ISAS[1:]),
    Source("linear/amx.cpp", ("amx",)),
    Source("linear/few_amx.cpp", ("amx",)),
    Source("linear/few_groups_amx.cpp", ("amx",)),
    Source("linear/prompt_amx.cpp", ("amx",)),
    Source("linear/limits.cpp", ISAS),
    Source("linear/measure.cpp"),
)


def find_compiler(wanted: str | None = None) -> Compiler:
    """The C++ compiler: `wanted`, or the first of g++, clang++ and c++ on the PATH, or ziglang's."""
    names = (wanted,) if wanted else ("g++", "clang++", "c++")
    commands = [(path,) for name in names if (path := shutil.which(name))]
    if not wanted and importlib.util.find_spec("ziglang"):
        commands.append(ZIG)
    for command in commands:
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout:
            return Compiler(command, result.stdout.splitlines()[0])
    looked_for = ", ".join(names if wanted else (*names, "ziglang"))
    raise KernelBuildError(f"No C++ compiler found (looked for {looked_for}); "
                           f"install one, for example with: {sys.executable} -m pip install ziglang")


@dataclass(frozen=True)
class CpuRecipe:
    """Everything that decides what the library is."""

    compiler: Compiler
    source_folder: Path = REPOSITORY / "cpu"
    header: Path = REPOSITORY / "model" / "kernels" / "kernels.h"
    sources: tuple[Source, ...] = SOURCES
    flags: tuple[str, ...] = COMMON_FLAGS
    isa_flags: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ISA_FLAGS)
    link_flags: tuple[str, ...] = LINK_FLAGS
    machine: str = platform.machine()

    name: ClassVar[str] = "kernels"
    """What folders of its libraries begin with."""
    objects: ClassVar[str] = "objects"
    """The folder that it is compiled in."""

    def digest(self) -> str:
        """Twelve hex digits that change whenever the library would."""
        return self._hash(repr(self.compiler))

    def contents(self) -> str:
        """The same of all but the compiler."""
        return self._hash()

    def _hash(self, *also: str) -> str:
        sha = hashlib.sha256()
        parts = [*also, self.machine, *self.flags, *self.link_flags, repr(self.sources),
                 repr(self.isa_flags)]
        for part in parts:
            sha.update(part.encode() + b"\0")
        folders = {self.source_folder, *((self.source_folder / s.file).parent for s in self.sources)}
        files = sorted(p for folder in folders for p in folder.iterdir() if p.suffix in (".h", ".cpp"))
        for path in [self.header, *files]:
            sha.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return sha.hexdigest()[:12]

    def ninja_text(self, folder: Path) -> str:
        return ninja_file(self, built_isas(self.compiler, self.isa_flags, self.machine), folder)


def own_recipe(compiler: str | None = None) -> CpuRecipe:
    """The library that Parlor runs, with the compiler that is wanted or found."""
    return CpuRecipe(find_compiler(compiler))


def own_library(progress: Progress | None = None) -> Path:
    """Where it lies, compiled now if need be. A machine without a compiler takes what was brought along.

    Raises KernelBuildError.
    """
    try:
        recipe = own_recipe()
    except KernelBuildError:
        if found := find_library(CpuRecipe(NO_COMPILER)):
            return found
        raise
    return build_library(recipe, progress)


def built_isas(compiler: Compiler, isa_flags: Mapping[str, tuple[str, ...]] = ISA_FLAGS,
               machine: str = platform.machine()) -> tuple[str, ...]:
    """The sets of a machine that the compiler can make code for, ascending; `plain` is always among them."""
    def is_known(isa: str) -> bool:
        command = [*compiler.command, *_as_named_by(compiler, isa_flags[isa]), "-x", "c++", "-E", "-"]
        return subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 0

    isas = _ISAS_OF_MACHINES.get(machine.lower(), ("plain",))
    return ("plain", *(isa for isa in isas[1:] if is_known(isa)))


def _as_named_by(compiler: Compiler, flags: tuple[str, ...]) -> tuple[str, ...]:
    """The flags of a set in a compiler's words: Zig's -march takes processors."""
    is_zig = compiler.command[:len(ZIG) - 1] == ZIG[:-1]
    return tuple(_AS_ZIG_SAYS.get(flag, flag) if is_zig else flag for flag in flags)


def isa_mask(isas: tuple[str, ...]) -> int:
    """PARLOR_BUILT_ISAS of cpu/isa.h."""
    return sum(1 << ISAS.index(isa) for isa in isas)


def ninja_file(recipe: CpuRecipe, isas: tuple[str, ...], folder: Path) -> str:
    """Text of build.ninja in `folder`. Objects are linked in ascending order of their ISA, see cpu/isa.h, and
    compiled in descending order: the last ones should be short, or one core would wait for another."""
    flags = [*recipe.flags, f"-DPARLOR_BUILT_ISAS={isa_mask(isas)}",
             *(f"-I{path_from(folder, path)}" for path in (recipe.header.parent, recipe.source_folder))]
    if os.name != "nt":
        flags += ["-fPIC", "-pthread"]
    lines = ["ninja_required_version = 1.8",
             f"cxx = {ninja_words(recipe.compiler.command)}",
             f"flags = {ninja_words(flags)}",
             "rule compile",
             "  command = $cxx $flags $isa_flags -DPARLOR_ISA_NS=$isa -MD -MF $out.d -c $in -o $out",
             "  description = $title",
             "  depfile = $out.d",
             "  deps = gcc",
             "rule link",
             f"  command = $cxx -o $out $in {ninja_words(recipe.link_flags)}",
             "  description = link"]
    objects: list[str] = []
    for isa in reversed(isas):
        of_isa = [source for source in recipe.sources if isa in source.isas]
        targets = [f"{source.name.removesuffix('.cpp').replace('/', '_')}.{isa}.o" for source in of_isa]
        objects = targets + objects
        for source, target in zip(of_isa, targets, strict=True):
            path = path_from(folder, recipe.source_folder / source.file)
            lines += [f"source = {ninja_value(path)}",
                      f"build {target}: compile $source",
                      f"  isa = {isa}",
                      f"  isa_flags = {ninja_words(_as_named_by(recipe.compiler, recipe.isa_flags[isa]))}",
                      f"  title = {source.name} ({isa})"]
    lines += [f"build {LIBRARY_NAME}: link {' '.join(objects)}", ""]
    return "\n".join(lines)
