"""Compile the unmodified sources of cuda/ with g++ against the stand-in headers beside this file.

What a test may change is the device that the launchers see, and the order in which threads and blocks run.
"""

from __future__ import annotations

import ctypes
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model.kernels.binding import Library
from model.kernels.build.cpu import find_compiler
from model.kernels.build.cuda import HEADERS, SOURCES, CudaRecipe
from model.kernels.cuda_kernels import CudaKernels

HERE = Path(__file__).parent
CUDA = CudaRecipe.source_folder
STAND_IN = HERE / "host_cuda.cpp"
FLAGS = ("-std=c++17", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
         "-Wno-unknown-pragmas", "-fno-omit-frame-pointer")
SANITIZER = ("-fsanitize=address", "-O0", "--param=asan-instrumentation-with-call-threshold=0")
"""A call for each access, nothing optimized: compiled in a quarter of the time, and little slower to run."""


@dataclass(frozen=True)
class HostDevice:
    """The GPU that is played."""

    is_reversed: bool = False
    """Threads, warps and blocks run from the last to the first."""
    multiprocessors: int = 4
    compute_capability: int = 90
    max_dynamic_bytes: int = 227 * 1024


GPUS = {
    "cuda": HostDevice(),
    "cuda-reversed": HostDevice(is_reversed=True, multiprocessors=13, compute_capability=75,
                                max_dynamic_bytes=64 * 1024),
}
"""For fixtures that run a test on both: a Hopper GPU of four multiprocessors, and a Turing GPU backwards."""


def build_host_library(target: Path, folder: Path = CUDA, sources: tuple[str, ...] = SOURCES,
                       flags: tuple[str, ...] = (), objects: tuple[Path, ...] = ()) -> Path:
    """A shared library with the C functions of `sources`; `target` is a folder of its own.

    objects  what is compiled already, the stand-in for CUDA among it (see host_objects)
    """
    files = [folder / source for source in sources] + ([] if objects else [STAND_IN])
    objects += _compiled(target, files, flags)
    library = target / "libhost_cuda.so"
    run([*find_compiler().command, "-shared", *flags, *map(str, objects), "-o", str(library)])
    return library


def host_objects(target: Path, sources: tuple[str, ...], flags: tuple[str, ...]) -> tuple[Path, ...]:
    """The stand-in for CUDA and some sources, compiled once for several libraries."""
    return _compiled(target, [STAND_IN, *(CUDA / source for source in sources)], flags)


def _compiled(target: Path, files: list[Path], flags: tuple[str, ...]) -> tuple[Path, ...]:
    compiler = find_compiler().command
    include = [f"-I{path}" for path in (HERE / "include", CUDA, *dict.fromkeys(h.parent for h in HEADERS))]
    objects = tuple(target / f"{file.stem}.o" for file in files)
    target.mkdir(parents=True, exist_ok=True)

    def compile_one(file: Path, out: Path) -> None:
        run([*compiler, *FLAGS, *flags, *include, "-x", "c++", "-c", str(file), "-o", str(out)])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, files, objects))
    return objects


def run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def cuda_on_host(library: Library, device: HostDevice) -> CudaKernels:
    """The GPU's operations on CPU tensors; the launchers of the library see `device` from now on."""
    configure(library.path, device)
    return CudaKernels(library, device="cpu")


def configure(library: Path, device: HostDevice) -> None:
    """The device that the launchers of this library see from now on."""
    ctypes.CDLL(str(library)).host_cuda_configure(int(device.is_reversed), device.multiprocessors,
                                                  device.compute_capability, device.max_dynamic_bytes)
