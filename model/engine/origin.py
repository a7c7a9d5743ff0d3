"""What decides, to the last bit, which numbers come of the same tokens: the model's files, and how they are
computed. Kept with a reply, it tells later why the same tokens came, or others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.config import EngineConfig
from model.fingerprint import fingerprint
from model.formats.checkpoint import files_of
from model.network.place import Place


@dataclass(frozen=True)
class Origin:
    """fingerprint of the model's files ("": there are none), those of its adapters by name, and numerics: the
    instruction set, the kernels' build, the kind of the cache, what else changes the last bits."""

    fingerprint: str = ""
    adapters: dict[str, str] = field(default_factory=dict)
    numerics: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path | None, config: EngineConfig, places: Sequence[Place]) -> Origin:
        """path: where the model lies, None if its weights are random. The number of threads is not in it: a
        sum is taken in the same order by however many."""
        ops = places[0].ops
        numerics = {"isa": ops.isa, "cache": config.cache or ""}
        if ops.library is not None:
            numerics["kernels"] = ops.library.path.parent.name
        if config.exact:
            numerics["exact"] = "yes"
        return cls("" if path is None else fingerprint(files_of(path), f"quantize {config.quantize}"),
                   {name: adapter_fingerprint(where) for name, where in config.adapters}, numerics)


def adapter_fingerprint(path: Path) -> str:
    return fingerprint([path] if path.is_file() else files_of(path))
