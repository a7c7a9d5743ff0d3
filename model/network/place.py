"""Where layers live: a device, its operations, and how steps are repeated there.

Knows devices, not layers or files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from model.kernels.operations import Operations
from model.network.call_list import CallLists, Recorder


@dataclass(frozen=True)
class Place:
    """One device as the layers on it see it."""

    ops: Operations
    device: torch.device
    new_recorder: Callable[[], Recorder]  # one for each stage
    free_bytes: int                       # that weights, cache and buffers may take together

    @classmethod
    def on_host(cls, ops: Operations, free_bytes: int) -> Place:
        return cls(ops, torch.device("cpu"), lambda: CallLists(ops), free_bytes)

    def active(self) -> AbstractContextManager[Any]:
        """Within it kernels run on this device."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
