"""Where layers live: a device, its operations, and how steps are repeated there.

Knows devices, not layers or files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from model.kernels.operations import Operations
from model.network.call_list import CallLists, Recorder


class WeightStore(Protocol):
    """Where packed weights lie instead of memory of their own: see memory/packed_copy.py."""

    def weights(self, name: str, pack: Callable[[], list[Any]]) -> list[Any]:
        """Those called so; `pack` makes them if they are not there."""

    def table(self, name: str, read: Callable[[], Tensor]) -> Tensor:
        """What rows are looked up in, likewise."""


@dataclass(frozen=True)
class Place:
    """One device as the layers on it see it."""

    ops: Operations
    device: torch.device
    new_recorder: Callable[[], Recorder]  # one for each stage
    free_bytes: int                       # that weights, cache and buffers may take together
    store: WeightStore | None = None      # None: weights lie in memory

    @classmethod
    def on_host(cls, ops: Operations, free_bytes: int) -> Place:
        return cls(ops, torch.device("cpu"), lambda: CallLists(ops), free_bytes)

    def weights(self, name: str, pack: Callable[[], list[Any]]) -> list[Any]:
        """What `pack` returns, from the store if there is one."""
        return pack() if self.store is None else self.store.weights(name, pack)

    def table(self, name: str, read: Callable[[], Tensor]) -> Tensor:
        """What `read` returns, likewise."""
        return read() if self.store is None else self.store.table(name, read)

    def buffer(self, count: int) -> Tensor:
        """float32 [count], not initialized. On the host on huge pages: rows of prompts are written and read
        across more pages of the usual size than a processor has translations for."""
        memory = torch.empty(count, device=self.device)
        if self.device.type == "cpu" and self.ops.library is not None:
            self.ops.call("advise_huge_pages", memory, memory.nbytes)
        return memory

    def active(self) -> AbstractContextManager[Any]:
        """Within it kernels run on this device."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
