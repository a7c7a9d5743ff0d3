"""The libraries that one set of tests runs on: the CPU's with each instruction set, the GPU's on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from model.kernels import load_kernels
from model.kernels.build import ISAS
from tests.host_cuda.build import GPUS, cuda_on_host

LIBRARIES = (*ISAS, *GPUS)


def is_gpu(ops: Any) -> bool:
    """A GPU played by the CPU: right but slow, so tests give it less to do."""
    return hasattr(ops, "device")


@contextmanager
def opened(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The operations that the fixture's parameter names; skips the test if this machine has no such set."""
    torch.manual_seed(1)
    if request.param in GPUS:
        yield cuda_on_host(request.getfixturevalue("host_cuda_library"), GPUS[request.param])
        return
    ops = load_kernels(threads=2)
    if request.param not in ops.supported_isas():
        pytest.skip(f"this machine has no {request.param}")
    ops.force_isa(request.param)
    yield ops
    ops.force_isa(None)
    ops.set_threads(2)
