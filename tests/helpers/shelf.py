"""A folder with models, and the place for one of them, with a loader that tests hold and break."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from model import Catalogue, ModelSlot
from model.catalogue.places import Place
from model.config import EngineConfig
from tests.helpers.fake_model import FakeModel
from tests.helpers.tiny_models import write_model

ENGINE = EngineConfig(device="cpu", threads=1)


class NamedModel(FakeModel):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def info(self) -> dict[str, Any]:
        return super().info() | {"name": self.name}


class Shelf:
    """The folder has the models one and two, and broken.gguf. While `go_on` is clear loading stands at a
    half; `error` is raised at its end."""

    def __init__(self, folder: Path) -> None:
        for name in ("one", "two"):
            write_model(folder / name)
        (folder / "broken.gguf").write_bytes(b"GGUF\x09")
        self.go_on = threading.Event()
        self.go_on.set()
        self.error: BaseException | None = None
        self.models: list[NamedModel] = []
        self.slot = ModelSlot(self.load, Catalogue([Place("Models folder", folder)], ENGINE), ENGINE)
        self.ids = {entry.found.name: entry.found.id for entry in self.slot.catalogue.look()}

    def load(self, path: Path, config: EngineConfig, *, name: str, progress: Any, report: Any) -> NamedModel:
        progress(f"Loading {name}", 0.5)
        while not self.go_on.wait(0.005):
            progress(f"Loading {name}", 0.5)
        if self.error:
            raise self.error
        self.models.append(NamedModel(name))
        return self.models[-1]

    def close(self) -> None:
        self.go_on.set()
        self.slot.close()
