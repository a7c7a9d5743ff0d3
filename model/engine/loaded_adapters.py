"""The adapters beside a model by name, and when the number of one that was unloaded may be another's.

A number is a place in the tables of the kernels; a serial is never given twice, so that what the cache holds
of one is never another's. Knows names and numbers, no matrices. Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from model.config import MAX_ADAPTERS, check_adapter_name


@dataclass(frozen=True)
class AdapterKey:
    number: int
    serial: int


NO_ADAPTER = AdapterKey(-1, -1)


class LoadedAdapters:
    """`names` are there from the start, by their numbers."""

    def __init__(self, names: Sequence[str]) -> None:
        self._keys = {name: AdapterKey(index, index) for index, name in enumerate(names)}
        self._serials = {key.number: key.serial for key in self._keys.values()}  # numbers in use
        self._next = len(names)
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        with self._lock:
            return list(self._keys)

    def key(self, name: str, model: str) -> AdapterKey:
        """Raises ValueError if there is none of this name."""
        with self._lock:
            if name not in self._keys:
                raise self._missing(name, model)
            return self._keys[name]

    def is_there(self, key: AdapterKey) -> bool:
        """Whether its number is still its own."""
        with self._lock:
            return key == NO_ADAPTER or self._serials.get(key.number) == key.serial

    def reserve(self, name: str) -> AdapterKey:
        """A number for one that is being loaded: `admit` or `free` follows. Raises ValueError."""
        check_adapter_name(name)
        with self._lock:
            if name in self._keys:
                raise ValueError(f"an adapter {name} is loaded already; unload it first, or give this one "
                                 "another name")
            number = next((number for number in range(MAX_ADAPTERS) if number not in self._serials), None)
            if number is None:
                raise ValueError(f"{MAX_ADAPTERS} adapters are loaded, and more are not possible; unload one")
            key = AdapterKey(number, self._next)
            self._next += 1
            self._serials[number] = key.serial
            return key

    def admit(self, name: str, key: AdapterKey) -> None:
        """It is there now."""
        with self._lock:
            self._keys[name] = key

    def withdraw(self, name: str, model: str) -> AdapterKey:
        """Nobody may ask for it any more; its number stays its own until `free`. Raises ValueError."""
        with self._lock:
            if name not in self._keys:
                raise self._missing(name, model)
            return self._keys.pop(name)

    def free(self, key: AdapterKey) -> None:
        """Its number may be another's."""
        with self._lock:
            self._serials.pop(key.number, None)

    def _missing(self, name: str, model: str) -> ValueError:
        adapters = ", ".join(self._keys)
        there = f"loaded are {adapters}" if adapters else "none is loaded"
        return ValueError(f"There is no adapter {name!r} beside {model}; {there}. Start Parlor with --lora "
                          "NAME=PATH.")
