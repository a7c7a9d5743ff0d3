"""Hidden states of the calibration text between two branches of the model, in a file.

In memory there is one batch at a time, so that neither the text's length nor the model's depth takes any. A
run that broke off finds them as they were.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.quantize.calibration import Batch


@dataclass(frozen=True)
class States:
    """float32 [count, length, size] for each batch, one after another."""

    path: Path
    batches: list[Batch]
    size: int

    def read(self, index: int) -> Tensor:
        """Raises OSError if the file does not hold them."""
        shape = (*self.batches[index].token_ids.shape, self.size)
        before = sum(batch.token_ids.numel() for batch in self.batches[:index]) * self.size
        count = int(np.prod(shape))
        numbers = np.fromfile(self.path, dtype=np.float32, count=count, offset=4 * before)
        if len(numbers) != count:
            raise OSError(f"{self.path} is cut off; delete {self.path.parent.parent} and begin anew")
        return torch.from_numpy(numbers).view(shape)

    def write(self, tensors: Iterable[Tensor]) -> None:
        """All of them, in order; the file is there once it is whole."""
        unfinished = self.path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            for tensor in tensors:
                tensor.contiguous().numpy().tofile(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)
