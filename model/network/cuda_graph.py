"""Steps captured once as CUDA graphs, by their number of rows, and replayed.

A step of few rows is hundreds of launches of some microseconds each; replayed it is one. It is computed with
as many rows as the next size has, so that a few graphs serve every batch. Larger steps keep the GPU busy
anyway and run as they are, with shapes of their own. Knows nothing of what a step computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch

log = logging.getLogger(__name__)

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Rows of the steps that are captured."""

Step = Callable[[], None]
Capture = Callable[[Step], Step]


class CudaGraphs:
    """A Recorder. What runs before `seal` is captured; later what was captured is replayed.

    capture  turns a step that has run before into one that repeats it, on the same memory
    """

    sizes = SIZES

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._replays: dict[Any, Step] = {}
        self._is_sealed = False

    def run(self, key: Any, step: Step) -> None:
        replay = self._replays.get(key)
        if replay is not None:
            replay()
            return
        step()
        if not self._is_sealed:
            self._replays[key] = self._capture(step)

    def seal(self) -> None:
        self._is_sealed = True

    def forget(self, is_old: Callable[[Any], bool]) -> None:
        """They run as they are from now on."""
        self._replays = {key: replay for key, replay in self._replays.items() if not is_old(key)}


class Launching(Protocol):
    """What launches kernels, see CudaKernels."""

    is_dependent: bool


def cuda_capture(device: torch.device) -> Capture:
    """For CudaGraphs on a GPU. All graphs share one pool of memory, since they run one after the other."""
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream(device)  # torch's own for this is one of the GPU that first captured anything

    def capture(step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        # The streams before it are set again outside of torch.cuda.graph, which does not after an error.
        # thread_local: what other threads do with CUDA meanwhile (a page of another program) is no error
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)), \
                torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            step()
        return graph.replay

    return capture


def capture_either_way(ops: Launching, new_capture: Callable[[], Capture]) -> Capture:
    """Captures by `new_capture()`. If one fails, and kernels may start before the one in front has ended,
    they wait from now on, and it is tried again with another: some drivers refuse to capture such launches,
    and pool and stream are of no use after an error."""
    capture = new_capture()

    def run(step: Step) -> Step:
        nonlocal capture
        try:
            return capture(step)
        except RuntimeError as error:
            if not ops.is_dependent:
                raise
            log.warning("A step could not be captured with kernels that start before the one in front has "
                        "ended (%s); from now on they wait for it.", error)
            ops.is_dependent = False
            capture = new_capture()
            return capture(step)

    return run
