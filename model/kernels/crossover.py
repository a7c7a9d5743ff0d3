"""From how many rows of a prompt on a weight is better dequantized for torch's product than read as it is.

That depends on the GPU, on torch and on the weight's shape, so it is measured when a model is loaded and
kept in a file beside the library, whose folder is named by the kernels' hash. Nothing changes it later: a
running engine always takes the same way for the same rows. Knows no kernel; what it compares, it is given.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from model.kernels.linear import LinearWeight

log = logging.getLogger(__name__)

ROWS = (16, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of rows that are tried."""
UNMEASURED = 64
"""Where nothing was measured weights are dequantized from here on."""
NEVER = 1 << 62
_REPEATS = 5

Milliseconds = Callable[[Callable[[], Any]], float]
"""How long some work takes."""


def milliseconds(work: Callable[[], Any]) -> float:
    """The median by the device's clock."""
    work()
    times = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def find_crossover(direct: Sequence[float], dequantized: Sequence[float]) -> int | None:
    """The smallest of ROWS at which `dequantized` takes less time, and at the next one too; None: never.

    Two in a row, so that one disturbed measurement does not decide; at the last one alone it counts.
    """
    wins = [theirs < ours for ours, theirs in zip(direct, dequantized, strict=True)]
    return next((rows for rows, now, then in zip(ROWS, wins, [*wins[1:], True], strict=True) if now and then),
                None)


def shape_name(weight: LinearWeight, is_kept: bool = False) -> str:
    """What decides a weight's speed: its sizes, how it is packed, and whether it is kept in float16, too."""
    struct = weight.struct
    permuted = " permuted" if struct.blocks else ""
    kept = " in float16" if is_kept else ""
    return (f"{weight.n} x {weight.k} {weight.kind} g{struct.group_size} zeros {struct.zero_kind}{permuted}"
            f"{kept}")


class Crossovers:
    """What is known for one GPU. Without a way to measure time nothing new is found out.

    file    where it is kept; None: nowhere
    device  the GPU and torch, by name
    """

    def __init__(self, file: Path | None = None, device: str = "",
                 clock: Milliseconds | None = None) -> None:
        self._file, self._device, self.clock = file, device, clock
        self._known: dict[str, int | None] = self._read().get(device, {})

    def rows(self, weight: LinearWeight, is_kept: bool = False) -> int:
        """The fewest rows with which this weight is dequantized."""
        if weight.kind == "f32" or weight.struct.exact:
            return NEVER
        found = self._known.get(shape_name(weight, is_kept), UNMEASURED)
        return NEVER if found is None else found

    def unknown(self, weights: Sequence[LinearWeight],
                is_kept: Callable[[LinearWeight], bool]) -> dict[str, list[LinearWeight]]:
        """By shape, those weights that could be measured and have not been."""
        found: dict[str, list[LinearWeight]] = {}
        for weight in weights if self.clock else ():
            name = shape_name(weight, is_kept(weight))
            if name not in self._known and weight.kind != "f32" and not weight.struct.exact:
                found.setdefault(name, []).append(weight)
        return found

    def keep(self, found: dict[str, int | None]) -> None:
        """Add what was measured, for this process and for later ones."""
        self._known |= found
        if self._file is None or not found:
            return
        everything = self._read()  # another GPU's, and what another process has found meanwhile
        everything[self._device] = {**everything.get(self._device, {}), **self._known}
        unfinished = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
            unfinished.replace(self._file)
        except OSError as error:
            log.warning("%s cannot be written (%s): the GPU's ways with prompts are measured again at the "
                        "next start.", self._file, error.strerror)

    def _read(self) -> dict[str, dict[str, int | None]]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            if all(rows is None or rows in ROWS for of_gpu in found.values() for rows in of_gpu.values()):
                return found
            reason = "it holds other numbers than those that are tried"
        except (OSError, ValueError, AttributeError, TypeError) as error:
            reason = str(error)
        log.warning("%s is left out: %s. What it held is measured again.", self._file, reason)
        return {}
