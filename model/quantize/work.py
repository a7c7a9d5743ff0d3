"""What a run has done so far: a folder beside the target, from which the same command goes on.

    TARGET.partial/settings.json      what was asked for, and of which files
    TARGET.partial/PASS/00003.json    what is known of layer 3; it is there once the layer is done
    TARGET.partial/PASS/00003.safetensors
    TARGET.partial/PASS/states/       hidden states of the calibration text before the next layer
Knows nothing of what the records mean.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from model.files import read_json

SETTINGS = "settings.json"


class Work:
    """The folder of one run."""

    def __init__(self, target: Path, settings: dict[str, Any]) -> None:
        """Begin, or go on where a run with the same settings broke off. Raises FileExistsError if there are
        results of other settings, or anything else under that name."""
        self.folder = target.with_name(target.name + ".partial")
        self.settings = json.loads(json.dumps(settings))
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            _write_json(self.folder / SETTINGS, self.settings)
        elif not (self.folder / SETTINGS).is_file():
            raise FileExistsError(f"{self.folder} is there and is no run of this program; move it away")
        elif (found := read_json(self.folder / SETTINGS)) != self.settings:
            other = [f"{name} {_shown(found.get(name))} (now {_shown(value)})"
                     for name, value in self.settings.items() if found.get(name) != value]
            raise FileExistsError(f"{self.folder} holds an unfinished run with other settings: "
                                  f"{', '.join(other)}. Give the same ones to go on, or delete it to begin "
                                  "anew.")

    def walk(self, name: str) -> Records:
        return Records(self.folder / name)

    @property
    def is_empty(self) -> bool:
        """There is nothing yet to go on from."""
        return not any(self.folder.glob("*/*.json"))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Records:
    """One pass through the layers of a model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.states = folder, folder / "states"
        self.states.mkdir(parents=True, exist_ok=True)

    def read(self) -> list[dict[str, Any]]:
        """Of the layers that are done, from the first on."""
        found: list[dict[str, Any]] = []
        while (path := self.folder / f"{len(found):05d}.json").is_file():
            found.append(read_json(path))
        return found

    def tensors_of(self, index: int) -> Path:
        return self.folder / f"{index:05d}.safetensors"

    def add(self, index: int, record: dict[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keep what came out for a layer: from now on it is done."""
        if tensors:
            unfinished = self.tensors_of(index).with_suffix(".unfinished")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished)
            unfinished.replace(self.tensors_of(index))
        _write_json(self.folder / f"{index:05d}.json", record)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]
