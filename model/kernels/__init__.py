"""The compiled kernels: `ops = load_kernels()` builds the library if need be and returns its operations.

Light to import: torch and the library come with the first call. What each operation means is written in
reference.py, whose functions have the same names and arguments; the C side is kernels.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.kernels.cpu_kernels import CpuKernels

Progress = Callable[[str, float], None]
"""Called with one line and the share that is done, 0 to 1."""


class KernelBuildError(RuntimeError):
    """The kernels could not be built; the message is one sentence for the user, then the compiler's words."""


def load_kernels(device: str = "cpu", threads: int | None = None,
                 progress: Progress | None = None) -> CpuKernels:
    """The operations of one device; the first call on a machine compiles them.

    threads   size of the thread team, which is one for the process; None: one thread a physical core
    progress  called with one line for each file that is compiled, and the share that is done

    Raises KernelBuildError (no compiler, ...), or ValueError for a device there are no kernels for.
    """
    from model.kernels.binding import load_library, physical_cores
    from model.kernels.build import build_kernels
    from model.kernels.cpu_kernels import CpuKernels

    if device != "cpu":
        raise ValueError(f"There are no kernels for the device {device!r}; supported: cpu.")
    kernels = CpuKernels(load_library(build_kernels(progress)))
    kernels.set_threads(threads or physical_cores())
    return kernels
