"""A square matrix in a file, read some rows at a time: it takes no memory while another of its size does."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Rows(Protocol):
    """float32 [n, n], a Tensor or a StoredMatrix."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """float32 [rows, n]"""

    def diagonal(self) -> Tensor:
        """float32 [n]"""


class StoredMatrix:
    """What `matrix` held when this was made."""

    def __init__(self, path: Path, matrix: Tensor) -> None:
        """matrix  float32 [n, n]. Raises OSError if it cannot be written."""
        self._path, self._diagonal = path, matrix.diagonal().clone()
        matrix.contiguous().numpy().tofile(path)

    def __len__(self) -> int:
        return len(self._diagonal)

    def __getitem__(self, rows: slice) -> Tensor:
        """Raises OSError if the file does not hold them."""
        first, last, _ = rows.indices(len(self))
        size = len(self)
        numbers = np.fromfile(self._path, np.float32, (last - first) * size, offset=4 * first * size)
        if len(numbers) != (last - first) * size:
            raise OSError(f"{self._path} is cut off; begin the run anew")
        return torch.from_numpy(numbers).view(last - first, size)

    def diagonal(self) -> Tensor:
        return self._diagonal
