"""The devices that a model runs on: the CPU, or one or several GPUs with their kernels.

What cannot be had is an error that says what to do; only `auto` may choose something else.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from model.config import EngineConfig
from model.files import ModelLoadError
from model.kernels import load_kernels
from model.kernels.errors import KernelBuildError, KernelCheckError, KernelError, Progress
from model.kernels.self_check import check_kernels
from model.machine import free_memory, physical_cores, resident_memory
from model.network.cuda_graph import CudaGraphs, capture_either_way, cuda_capture
from model.network.place import Place

log = logging.getLogger(__name__)

_LEAST_CAPABILITY = (7, 5)
_GIB = 1 << 30
_FIRST_STICKY_CODE = 1700
"""PARLOR_ERROR_CUDA + cudaErrorIllegalAddress: from there on a GPU refuses all that follows."""


class GpuError(ModelLoadError):
    """A GPU that is there cannot be used."""


def open_places(config: EngineConfig, progress: Progress | None = None) -> list[Place]:
    """Where the layers go, in order, with compiled kernels.

    Raises ModelLoadError if the device that was asked for cannot be used, KernelBuildError if the kernels
    cannot be compiled.
    """
    problem = "" if config.device == "cpu" else cuda_problem(len(config.gpu_split or (0,)))
    if config.device == "cuda" or (config.device == "auto" and config.gpu_split):
        if problem:
            raise ModelLoadError(f"{problem} Or use --device cpu.")
        try:
            return _open_gpus(config, progress)
        except KernelBuildError as error:
            raise KernelBuildError(f"{error}\nOr use --device cpu.") from None
    if config.device == "auto" and not problem:
        try:
            return _open_gpus(config, progress)
        except KernelBuildError as error:
            log.warning("The GPU is not used, the CPU is: %s (--device cuda tells all.)", _first_line(error))
        except GpuError as error:
            log.warning("The GPU is not used, the CPU is. %s", error)
    ops = load_kernels("cpu", threads=config.threads or physical_cores(), progress=progress)
    return [Place.on_host(ops, free_memory())]


def cuda_problem(num_gpus: int = 1) -> str:
    """Why `num_gpus` GPUs cannot be used here, and what to do, in sentences; empty if they can."""
    if torch.version.cuda is None:
        return (f"PyTorch {torch.__version__} in this Python environment was made without CUDA. Install one "
                "with it: pip install --upgrade torch --index-url https://download.pytorch.org/whl/cu130.")
    if not torch.cuda.is_available():
        return ("No NVIDIA GPU was found, or its driver is missing or too old for CUDA "
                f"{torch.version.cuda}. `nvidia-smi` says what the driver sees.")
    found = torch.cuda.device_count()
    if found < num_gpus:
        return f"--gpu-split names {num_gpus} GPUs; {found} can be seen. Name as many as there are."
    for index in range(num_gpus):
        try:
            capability = torch.cuda.get_device_capability(index)
        except RuntimeError as error:  # the first call that starts CUDA: a GPU that is taken, a broken driver
            return (f"GPU {index} does not answer: {_first_line(error)}. `nvidia-smi` says what the driver "
                    "sees; close other programs that use the GPU, or restart the machine.")
        if capability < _LEAST_CAPABILITY:
            return (f"{torch.cuda.get_device_name(index)} has compute capability {capability[0]}."
                    f"{capability[1]}; expected 7.5 (Turing) or newer.")
    return ""


def _open_gpus(config: EngineConfig, progress: Progress | None) -> list[Place]:
    split = config.gpu_split
    return [_open_gpu(torch.device("cuda", index), split[index] if split else None, progress)
            for index in range(len(split) if split else 1)]


def _open_gpu(device: torch.device, limit_gib: float | None, progress: Progress | None) -> Place:
    """Raises KernelBuildError, or GpuError: one sentence about this GPU, and what to do."""
    name = torch.cuda.get_device_name(device)
    try:
        with torch.cuda.device(device):
            ops = load_kernels("cuda", progress=progress)
            check_kernels(ops)
            free, _ = torch.cuda.mem_get_info()  # after kernels and cuBLAS took what they need
    except KernelBuildError:
        raise
    except KernelCheckError as error:
        raise GpuError(f"{name} computes wrong results: {error}. Update its driver and PyTorch; "
                       "tools/gpu_check.sh tells more. Or use --device cpu.") from error
    except (OSError, RuntimeError) as error:  # a library that does not load; whatever CUDA says
        raise GpuError(f"{name} cannot be used: {_first_line(error)}. Close other programs that use it, or "
                       "update its driver and PyTorch. Or use --device cpu.") from error
    if limit_gib is not None:
        free = min(free, int(limit_gib * _GIB))
    capture = functools.partial(cuda_capture, device)
    return Place(ops, device, lambda: CudaGraphs(capture_either_way(ops, capture)), free)


@contextmanager
def told_as_load_errors(places: list[Place]) -> Iterator[None]:
    """What GPUs raise while a model is loaded, as a ModelLoadError that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"The memory of {describe_devices(places)} is not enough: {_first_line(error)} "
                             "Close other programs that use it, use --cache q8 or a smaller --max-seq-len, "
                             "or --device cpu.") from error
    except (KernelError, torch.AcceleratorError) as error:
        if all(place.device.type == "cpu" for place in places):
            raise
        raise ModelLoadError(f"{describe_devices(places)} failed while the model was loaded: "
                             f"{_first_line(error)}. Start again; if that does not help, update the driver "
                             "and PyTorch, or use --device cpu.") from error


def failure_text(error: BaseException) -> str:
    """What a step's failure is called in the reply that it ended."""
    text = f"The engine failed: {type(error).__name__}: {str(error)[:500]}"
    is_dead = isinstance(error, KernelError) and error.code >= _FIRST_STICKY_CODE
    if is_dead or isinstance(error, torch.AcceleratorError):  # the rest of that is advice to programmers
        text = (f"The GPU failed: {_first_line(error)}. It cannot be used any more until Parlor is started "
                "again. If it fails again: --device cpu.")
    return text


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def memory_in_use(places: list[Place]) -> dict[str, int]:
    """memory_bytes: RAM of this process. Of GPUs also gpu_memory_bytes and gpu_memory_total_bytes: what is
    taken on them, by whomever, and what they have."""
    found = {"memory_bytes": resident_memory()}
    gpus = {place.device for place in places if place.device.type == "cuda"}
    try:
        free_and_total = [torch.cuda.mem_get_info(device) for device in gpus]
    except RuntimeError:  # a GPU that has failed does not answer
        return found
    if gpus:
        found["gpu_memory_bytes"] = sum(total - free for free, total in free_and_total)
        found["gpu_memory_total_bytes"] = sum(total for _, total in free_and_total)
    return found


def default_prefill_chunk(device: torch.device) -> int:
    """Prompt tokens a step: enough that reading the weights is a small part of it."""
    return 2048 if device.type == "cuda" else 512


def describe_devices(places: list[Place]) -> str:
    """'cpu', or the names of the GPUs."""
    return " + ".join(torch.cuda.get_device_name(place.device) if place.device.type == "cuda"
                      else place.device.type for place in places)


def let_go(places: list[Place]) -> None:
    """Give memory that no tensor uses any more back to the GPUs."""
    if any(place.device.type == "cuda" for place in places):
        torch.cuda.empty_cache()
