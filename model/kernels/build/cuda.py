"""Compile the CUDA kernels of cuda/ into one shared library for one GPU architecture, with nvcc and ninja.

The library carries CUDA's runtime in itself, so it loads on a machine without a driver; its functions then
return PARLOR_ERROR_DRIVER. Cache, lock and progress are those of library.py. Knows no tensor and no GPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
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

ARCHITECTURES = (75, 80, 86, 89, 90, 120)
"""Compute capabilities that the sources are compiled for in the tests; others in between work as well."""
SOURCES = ("library.cu", "launch.cu", "rows.cu", "linear.cu", "linear_dense.cu", "linear_pack.cu",
           "experts.cu", "routing.cu", "rope.cu", "lora.cu", "state.cu", "attention.cu",
           "attention_groups.cu", "gather.cu", "sampling.cu", "prompts.cu", "prompt_heads.cu")
HEADERS = tuple(REPOSITORY / "model" / "kernels" / name for name in ("kernels.h", "cuda_kernels.h"))
WARNINGS = ("-Xcompiler", "-Wall,-Wextra")
FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-lineinfo", *WARNINGS)  # lines of the source, for profilers
HOW_TO_INSTALL = ("install NVIDIA's CUDA toolkit (12.8 or newer), or its compiler alone: "
                  "pip install nvidia-cuda-nvcc nvidia-cuda-cccl")


def find_nvcc() -> Compiler:
    """nvcc of the PATH, of /usr/local/cuda, or of the `nvidia-cuda-nvcc` package in this environment."""
    candidates = [shutil.which("nvcc"), shutil.which("nvcc", path="/usr/local/cuda/bin")]
    if spec := importlib.util.find_spec("nvidia"):
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        candidates += [shutil.which("nvcc", path=str(bin_folder))
                       for folder in folders for bin_folder in sorted(folder.glob("cu*/bin"), reverse=True)]
    for path in filter(None, candidates):
        result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout:
            return Compiler((path,), result.stdout.splitlines()[-1])
    raise KernelBuildError("No CUDA compiler found (looked for nvcc on the PATH, in /usr/local/cuda and in "
                           f"this Python environment); {HOW_TO_INSTALL}.")


def architecture_flags(architecture: int) -> tuple[str, str]:
    """Machine code for one compute capability, such as 90, and nothing for the driver to compile."""
    return "-gencode", f"arch=compute_{architecture},code=sm_{architecture}"


@dataclass(frozen=True)
class CudaRecipe:
    """Everything that decides what the library is; see library.Recipe."""

    compiler: Compiler
    architecture: int
    source_folder: Path = REPOSITORY / "cuda"
    headers: tuple[Path, ...] = HEADERS
    sources: tuple[str, ...] = SOURCES
    flags: tuple[str, ...] = FLAGS

    objects: ClassVar[str] = "objects-cuda"

    @property
    def name(self) -> str:
        return f"cuda-{self.architecture}"

    def digest(self) -> str:
        """Twelve hex digits that change whenever the library would."""
        return self._hash(repr(self.compiler))

    def contents(self) -> str:
        """The same of all but the compiler."""
        return self._hash()

    def _hash(self, *also: str) -> str:
        sha = hashlib.sha256()
        for part in (*also, str(self.architecture), *self.flags, *self.sources):
            sha.update(part.encode() + b"\0")
        files = sorted(p for p in self.source_folder.iterdir() if p.suffix in (".cu", ".cuh"))
        for path in [*self.headers, *files]:
            sha.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return sha.hexdigest()[:12]

    def ninja_text(self, folder: Path) -> str:
        flags = [*self.flags, *architecture_flags(self.architecture),
                 *dict.fromkeys(f"-I{path_from(folder, header.parent)}" for header in self.headers)]
        if os.name != "nt":
            flags += ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
        libraries = ninja_words(_library_folders(self.compiler, folder))
        lines = ["ninja_required_version = 1.8",
                 f"nvcc = {ninja_words(self.compiler.command)}",
                 f"flags = {ninja_words(flags)}",
                 "rule compile",
                 "  command = $nvcc $flags -MD -MF $out.d -c $in -o $out",
                 "  description = $title",
                 "  depfile = $out.d",
                 "  deps = gcc",
                 "rule link",
                 f"  command = $nvcc -shared -cudart static {libraries} -o $out $in",
                 "  description = link"]
        targets = [f"{Path(source).stem}.sm_{self.architecture}.o" for source in self.sources]
        for source, target in zip(self.sources, targets, strict=True):
            lines += [f"source = {ninja_value(path_from(folder, self.source_folder / source))}",
                      f"build {target}: compile $source",
                      f"  title = {source} (sm_{self.architecture})"]
        return "\n".join([*lines, f"build {LIBRARY_NAME}: link {' '.join(targets)}", ""])


def own_library(architecture: int, progress: Progress | None = None) -> Path:
    """Where the library for this compute capability lies, compiled now if need be. A machine without nvcc
    takes what was brought along, for this one or for the nearest below it of its generation, whose code runs
    there.

    Raises KernelBuildError.
    """
    try:
        recipe = CudaRecipe(find_nvcc(), architecture)
    except KernelBuildError:
        for older in range(architecture, architecture // 10 * 10 - 1, -1):
            if found := find_library(CudaRecipe(NO_COMPILER, older)):
                return found
        raise
    return build_library(recipe, progress)


def _library_folders(compiler: Compiler, folder: Path) -> list[str]:
    """Where the package from PyPI keeps CUDA's runtime; a toolkit's nvcc finds its own."""
    libraries = Path(compiler.command[0]).parent.parent / "lib"
    return [f"-L{path_from(folder, libraries)}"] if (libraries / "libcudart_static.a").is_file() else []
