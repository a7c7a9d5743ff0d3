"""What tests of engines share: a small random model, and an engine from which no page may leak."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.engine.engine import Engine
from tests.helpers.tiny_engine import load, quantized_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    engine = load(folder)
    yield engine
    status = engine.status()
    engine.close()
    assert (status["running"], status["waiting"], status["pages_used"]) == (0, 0, 0), "a page leaked"
