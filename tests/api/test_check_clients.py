"""tools.check_clients, as far as its libraries are light."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tools.check_clients import CHECKS, run

LIGHT = ("openai", "anthropic", "ollama")


@pytest.mark.parametrize("library", LIGHT)
def test_every_check_of_a_light_library_passes(starter, library):
    assert len(CHECKS[library]) >= 3
    assert set(run(CHECKS[library], starter.url).values()) == {"ok"}


def test_where_nobody_answers_every_check_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=lambda _: None, flush=lambda: None))
    for library in LIGHT:
        assert "ok" not in run(CHECKS[library], "http://127.0.0.1:9").values()
