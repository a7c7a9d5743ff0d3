"""LoRA adapters that come and go beside a model that is at work.

Whoever loads one reads its matrices in a thread of his own and waits until the engine's thread has put them
into the layers, between two steps. One that is unloaded leaves them when the last request with it is over.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.devices import failure_text
from model.engine.loaded_adapters import AdapterKey, LoadedAdapters
from model.engine.origin import Origin, adapter_fingerprint
from model.engine.request import EngineClosed
from model.engine.runner import Runner
from model.engine.sequences import TokenSequence
from model.files import ModelLoadError
from model.kernels.lora import LoraSegment
from model.machine import free_memory, readable_size
from model.network.adapters import Adapters

log = logging.getLogger(__name__)


@dataclass(eq=False)
class AdapterChange:
    """One that comes, or, without what it adds, one that goes; the engine's thread sees to it. Of one that
    comes it tells what went wrong, or ""."""

    key: AdapterKey
    added: dict[str, list[LoraSegment]] | None = None
    answers: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)


Put = Callable[[AdapterChange], None]
"""Hands a change to the engine's thread; raises EngineClosed. Not kept: it is the engine's, which is to go
with its last user."""


class AdapterChanges:
    def __init__(self, adapters: LoadedAdapters, network: Adapters | None, origin: Origin) -> None:
        self._adapters, self._network, self._origin = adapters, network, origin
        self._leaving: list[AdapterKey] = []  # unloaded, and perhaps still in use

    # -- called by any thread

    def check(self, path: Path) -> None:
        """Raise ModelLoadError unless it fits the model, or EngineClosed. Reads headers only."""
        self._layers().check(path)

    def load(self, name: str, path: Path, put: Put) -> None:
        """Raises ModelLoadError, ValueError or EngineClosed; then nothing is changed."""
        layers = self._layers()
        key = self._adapters.reserve(name)
        try:
            added = layers.read(path)
            needed = sum(part.nbytes for segments in added.values() for segment in segments
                         for part in (segment.down, segment.up))
            free = free_memory()
            if needed > free:
                raise ModelLoadError(f"{path}: the adapter takes {readable_size(needed)} of memory; "
                                     f"{readable_size(free)} are free. Unload another one, or close "
                                     "other programs.")
            change = AdapterChange(key, added)
            put(change)
            if problem := change.answers.get():
                raise ModelLoadError(f"{path}: {problem}")
        except BaseException:
            self._adapters.free(key)
            raise
        self._origin.adapters[name] = adapter_fingerprint(path)
        self._adapters.admit(name, key)

    def unload(self, name: str, model: str, put: Put) -> None:
        """Raises ValueError if there is none of this name beside `model`; EngineClosed."""
        put(AdapterChange(self._adapters.withdraw(name, model)))

    def _layers(self) -> Adapters:
        if (layers := self._network) is None:
            raise EngineClosed("the engine is closed")
        return layers

    # -- the engine's thread

    def close(self) -> None:
        """Hold the model's weights no longer."""
        self._network = None

    def make(self, change: AdapterChange, runner: Runner) -> None:
        if change.added is None:
            self._leaving.append(change.key)
            return
        try:
            runner.put_adapter(change.key.number, change.added)
            change.answers.put("")
        except BaseException as error:
            log.exception("an adapter could not be loaded")
            runner.put_adapter(change.key.number, {})
            change.answers.put(failure_text(error))

    def let_go(self, requests: Iterable[TokenSequence[Any]], runner: Runner) -> None:
        """Of those that were unloaded, the ones that none of `requests` has."""
        if not self._leaving:
            return
        used = {sequence.adapter for sequence in requests}
        for key in [key for key in self._leaving if key not in used]:
            runner.put_adapter(key.number, {})
            self._leaving.remove(key)
            self._adapters.free(key)
