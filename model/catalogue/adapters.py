"""LoRA adapters that lie in the models folder: PEFT's folders, and GGUF files that say they are one.

Only names and the first bytes are looked at; whether one fits a model that is loaded, the model tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.catalogue.places import OWN_FOLDER, Place, adapters_below
from model.files import readable
from model.model_path import adapter_name


@dataclass(frozen=True)
class FoundAdapter:
    """A folder or file that may be one. `where`: its path below the models folder, for people."""

    path: Path
    where: str
    size_bytes: int

    @property
    def id(self) -> str:
        """Sixteen hex digits, the same as long as it lies there."""
        return hashlib.sha256(str(self.path).encode(errors="surrogatepass")).hexdigest()[:16]

    @property
    def name(self) -> str:
        return readable(adapter_name(self.path))[:100]


def adapters_in(places: Sequence[Place]) -> list[FoundAdapter]:
    """Those of Parlor's own folder, by name. A place that cannot be read has none."""
    found = [FoundAdapter(path, readable(path.relative_to(place.path).as_posix()), _size(path))
             for place in places if place.label == OWN_FOLDER for path in adapters_below(place)]
    return sorted(found, key=lambda one: (one.name.casefold(), one.where))


def _size(path: Path) -> int:
    try:
        return (path / "adapter_model.safetensors" if path.is_dir() else path).stat().st_size
    except OSError:
        return 0
