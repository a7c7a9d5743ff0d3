"""The libraries that one set of tests runs on: the CPU's with each instruction set, the GPU's on the CPU, and
the GPU's on a GPU where pytest runs with --device cuda.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from model.devices import cuda_problem
from model.kernels import load_kernels
from model.kernels.build.cpu import X86_ISAS
from tests.emulated_isa import kernels_with
from tests.host_cuda.build import GPUS, cuda_on_host

ON_GPU = "on_gpu"
LIBRARIES = (*(isa for isa in X86_ISAS if isa != "avx_vnni"), *GPUS, ON_GPU)
"""AVX-VNNI has but some of AVX2's sources, compiled once more, and is held to AVX2's very bits."""


def need_gpu(request: pytest.FixtureRequest) -> None:
    """Skip the test unless pytest was told to run on a GPU, and fail it if there is none then."""
    if request.config.getoption("--device") != "cuda":
        pytest.skip("needs a GPU: pytest --device cuda")
    if problem := cuda_problem():
        pytest.fail(problem)


class OnGpu:
    """The GPU's operations on tensors of the CPU: taken there, and what they then hold is copied back."""

    def __init__(self, ops: Any) -> None:
        self.bare = ops

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.bare, name)
        return self._moving(value) if callable(value) and name != "call" else value

    @staticmethod
    def _moving(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            moved: list[tuple[Tensor, Tensor]] = []

            def there(value: Any) -> Any:
                if not isinstance(value, Tensor):
                    return value
                moved.append((value, value.to("cuda")))
                return moved[-1][1]

            result = operation(*map(there, arguments), **{key: there(value) for key, value in named.items()})
            for here, back in moved:
                here.copy_(back)
            if isinstance(result, tuple):
                return tuple(part.cpu() for part in result)
            return result.cpu() if isinstance(result, Tensor) else result

        return run


def is_gpu(ops: Any) -> bool:
    """A GPU played by the CPU: right but slow, so tests give it less to do."""
    return hasattr(ops, "device")


@contextmanager
def opened(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The operations that the fixture's parameter names; sets that this machine lacks are emulated."""
    torch.manual_seed(1)
    if request.param == ON_GPU:
        need_gpu(request)
        yield OnGpu(load_kernels("cuda"))
        return
    if request.param in GPUS:
        yield cuda_on_host(request.getfixturevalue("host_cuda_library"), GPUS[request.param])
        return
    ops = kernels_with(request.param)
    ops.force_isa(request.param)
    ops.set_threads(2)
    yield ops
    ops.force_isa(None)
    ops.set_threads(2)
