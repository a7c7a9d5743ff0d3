"""A model of this machine's catalogue, as a choice: its headers are read and its memory planned first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from model.catalogue.listing import Catalogue, Entry
from model.catalogue.places import Found
from model.chat_model import ChatModel
from model.config import EngineConfig
from model.files import ModelLoadError
from model.slot.choice import Progress, Report
from model.slot.heap import nothing_is_garbage


class Loader(Protocol):
    """load_model, or what tests put in its place."""

    def __call__(self, path: Path, config: EngineConfig, *, name: str, progress: Progress,
                 report: Report) -> ChatModel: ...


class LocalModels:
    """How models of this machine are loaded."""

    def __init__(self, load: Loader, catalogue: Catalogue, engine: EngineConfig) -> None:
        self.catalogue, self._engine, self._load = catalogue, engine, load
        self._first: Found | None = None  # the model that the engine's options were given for

    def choice(self, model_id: str, max_seq_len: int | None = None) -> LocalChoice | None:
        """None if there is no such model. `max_seq_len`: its context, in place of what the options say."""
        entry = self.catalogue.entry(model_id)
        return None if entry is None else LocalChoice(entry.found, self, max_seq_len)

    def config_for(self, entry: Entry) -> EngineConfig:
        """How a model would run: as was asked for at the start. But the draft model and the adapters are the
        first one's, no other is asked for a longer context than it was made for, and what is quantized is not
        rounded."""
        engine = self._engine
        if self._first is not None and entry.found.id == self._first.id:
            return engine
        if entry.headers is not None:
            engine = replace(engine, quantize=entry.headers.quantize)
        if engine.max_seq_len is not None and entry.headers is not None:
            most = entry.headers.config.spec.max_positions
            engine = replace(engine, max_seq_len=min(engine.max_seq_len, most))
        return replace(engine, draft=None, adapters=())

    def load_first(self, found: Found, progress: Progress, report: Report) -> ChatModel:
        """The model that the engine's options were given for. Raises what the loader raises."""
        self._first = found
        return self.load(found, self._engine, progress, report)

    def load(self, found: Found, config: EngineConfig, progress: Progress, report: Report) -> ChatModel:
        with nothing_is_garbage():
            return self._load(found.path, config, name=found.name, progress=progress, report=report)


@dataclass(frozen=True)
class LocalChoice:
    """See Choice."""

    found: Found
    models: LocalModels
    max_seq_len: int | None = None
    takes_memory: bool = True

    @property
    def id(self) -> str:
        return self.found.id

    @property
    def name(self) -> str:
        return self.found.name

    def prepare(self, held_bytes: int, progress: Progress) -> Callable[[Progress, Report], ChatModel]:
        models = self.models
        entry = models.catalogue.read(self.found.id)
        if entry is None:
            raise ModelLoadError("it is not there any more")
        config = models.config_for(entry)
        if self.max_seq_len is not None:
            config = replace(config, max_seq_len=self.max_seq_len)
        entry.plan(config, models.catalogue.free_bytes() + held_bytes)
        return lambda told, report: models.load(self.found, config, told, report)
