"""Steps captured once as CUDA graphs, by their number of rows, and replayed.

A step of few rows is hundreds of launches of some microseconds each; replayed it is one. It is computed with
as many rows as the next size has, so that a few graphs serve every batch. Larger steps keep the GPU busy
anyway and run as they are, with shapes of their own. Knows nothing of what a step computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Rows of the steps that are captured."""

Step = Callable[[], None]


class CudaGraphs:
    """A Recorder. What runs before `seal` is captured; later what was captured is replayed.

    capture  turns a step that has run before into one that repeats it, on the same memory
    """

    sizes = SIZES

    def __init__(self, capture: Callable[[Step], Step]) -> None:
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


def cuda_capture(device: torch.device) -> Callable[[Step], Step]:
    """For CudaGraphs on a GPU. All graphs share one pool of memory, since they run one after the other."""
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream(device)  # torch's own for this is one of the GPU that first captured anything

    def capture(step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads do with CUDA meanwhile (a page of another program) is no error
        with torch.cuda.device(device), \
                torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            step()
        return graph.replay

    return capture
