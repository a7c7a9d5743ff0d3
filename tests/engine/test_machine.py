"""model/machine.py: cores, memory, and sizes that people can read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model import machine


def test_cores_are_at_least_one_and_no_more_than_there_are():
    assert 1 <= machine.physical_cores() <= (os.cpu_count() or 1)


def test_memory_in_use_grows_with_what_is_held():
    before = machine.resident_memory()
    held = bytearray(os.urandom(1)) * (64 << 20)
    assert machine.resident_memory() - before > 48 << 20
    assert len(held) < machine.free_memory() < 1 << 50


def test_without_proc_and_sys_there_are_still_answers(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, *_: object, **__: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.physical_cores() == (os.cpu_count() or 1)
    assert machine.free_memory() > 1 << 20
    assert machine.resident_memory() > 1 << 20


@pytest.mark.parametrize(("size", "text"), [
    (3.1 * 2**30, "3.1 GiB"), (512 << 20, "512 MiB"), (12 << 10, "12 kiB"), (1234 << 30, "1,234 GiB"),
])
def test_sizes_by_hand(size: float, text: str):
    assert machine.readable_size(size) == text
