"""The compiled kernels: `ops = load_kernels()` builds the library if need be and returns its operations.

Light to import: torch and the library come with the first call. The interface is
operations.py, the meaning reference/, the C side kernels.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.kernels.cuda_kernels import CudaKernels
    from model.kernels.errors import Progress
    from model.kernels.operations import Operations


def load_kernels(device: str = "cpu", threads: int = 1, progress: Progress | None = None) -> Operations:
    """The operations of one device, cpu or cuda; the first call on a machine compiles them.

    threads   cpu: size of the thread team, which is one for the process
    progress  called with one line for each file that is compiled, and the share that is done

    Raises KernelBuildError (no compiler, ...), or ValueError for a device there are no kernels for, or that
    this machine does not have.
    """
    if device == "cuda":
        return _load_cuda_kernels(progress)
    from model.kernels.binding import load_library
    from model.kernels.build import cpu
    from model.kernels.cpu_kernels import CpuKernels

    if device != "cpu":
        raise ValueError(f"There are no kernels for the device {device!r}; supported: cpu, cuda.")
    kernels = CpuKernels(load_library(cpu.own_library(progress)))
    kernels.set_threads(threads)
    return kernels


def _load_cuda_kernels(progress: Progress | None) -> CudaKernels:
    import torch

    from model.kernels.binding import load_library
    from model.kernels.build.cuda import HEADERS, own_library
    from model.kernels.crossover import Crossovers, milliseconds
    from model.kernels.cuda_kernels import CudaKernels

    if not torch.cuda.is_available():
        raise ValueError(f"There is no GPU that torch {torch.__version__} can use; --device cuda needs an "
                         "NVIDIA GPU with its driver, and torch built for CUDA, which start.sh "
                         "and start.bat install where they find the driver. "
                         "Or use --device cpu.")
    major, minor = torch.cuda.get_device_capability()
    path = own_library(10 * major + minor, progress)
    device = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    crossovers = Crossovers(path.with_name("crossovers.json"), device, milliseconds)
    return CudaKernels(load_library(path, HEADERS), crossovers=crossovers)
