"""An engine that a test scripts, and its one model as Parlor talks to it."""

from __future__ import annotations

import pytest

from model.remote.address import EngineAddress
from model.remote.engines import Engines
from tests.helpers.stand_in_engine import StandInEngine


@pytest.fixture
def engine():
    with StandInEngine("small").running() as engine:
        yield engine


@pytest.fixture
def engines(engine):
    engines = Engines([EngineAddress(engine.url, "Box")])
    yield engines
    engines.close()


@pytest.fixture
def opened(engine, engines):
    """A function: the model, once the engine has been asked what it can do."""
    def open_(model="small", progress=lambda what, share: None, anew=False):
        return engines.open(engines.offer_of(engines.known()[0].address.id, model), progress, anew=anew)

    return open_
