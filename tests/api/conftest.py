"""Real servers: one with the starter for the whole run, one with scripted replies that take their time."""

from __future__ import annotations

import pytest

from tests.helpers.server_process import Server
from tests.helpers.starter_server import StarterServer


@pytest.fixture(scope="session")
def starter(tmp_path_factory):
    with StarterServer(tmp_path_factory.mktemp("starter")) as server:
        yield server


@pytest.fixture(scope="session")
def slow(tmp_path_factory):
    """A tenth of a second a token: what is long takes 40 seconds."""
    with Server(tmp_path_factory.mktemp("slow"), "--delay", "0.1") as server:
        yield server
