"""Fixtures for all tests: a store in a temporary folder, the app around it with a scripted model, kernels."""

from __future__ import annotations

import functools
import os

import pytest
from hypothesis import settings

from tests.helpers.api import LIN, MARLOW, OTTO, Page
from tests.helpers.failing_disk import FastDisk
from tests.helpers.fake_model import FakeModel
from tests.helpers.fake_server import write_bots

settings.register_profile("parlor", deadline=None, max_examples=60)  # machines that test may be busy ones
settings.load_profile("parlor")


@pytest.fixture(scope="session", autouse=True)
def bundled_once():
    """The page's modules are bundled and compressed once a process: for each app of a test it would be most
    of what making one takes."""
    from webui.server import static_files

    @functools.cache
    def kept(sources, bundles=static_files.bundles):
        return bundles(dict(sources))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static_files, "bundles", lambda sources: dict(kept(tuple(sources.items()))))
        patch.setattr(static_files, "_both", functools.cache(static_files._both))
        yield


@pytest.fixture(scope="session")
def host_cuda_library(tmp_path_factory):
    """The CUDA kernels compiled for the CPU, once for all processes of a run."""
    from model.kernels.binding import Library
    from model.kernels.build.cuda import HEADERS
    from model.kernels.build.library import LOCK_TIMEOUT_S
    from model.kernels.build.lock import locked
    from tests.host_cuda.build import build_host_library

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    library = root / "host_cuda" / "libhost_cuda.so"
    with locked(root / "host_cuda.lock", LOCK_TIMEOUT_S, lambda line, share: None):
        if not library.exists():
            build_host_library(library.parent)
    return Library(library, HEADERS)


@pytest.fixture
def store(tmp_path):
    from webui.storage.store import Store

    write_bots(tmp_path / "sessions" / "bots")
    store = Store(tmp_path / "sessions", disk=FastDisk())
    yield store
    store.close()


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def app(model, store):
    from model import ModelSlot
    from webui import create_app
    from webui.routes.parlor import parlor

    app = create_app(ModelSlot.holding(model), store)
    yield app
    parlor(app).close("the test is over", 1.0)


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def page(client):
    return Page(client)


@pytest.fixture
def room(client):
    """Marlow, Otto and Lin, without Lin's greeting."""
    page = Page(client, MARLOW, OTTO)
    page.set(bots=[{"id": bot, "muted": False} for bot in (MARLOW, OTTO, LIN)])
    return page


@pytest.fixture(params=("plain", "avx2", "avx512", "amx"))
def ops(request):
    """The kernels with one instruction set forced, on two threads; a set this machine lacks is emulated."""
    from tests.helpers.kernel_libraries import opened

    with opened(request) as kernels:
        yield kernels
