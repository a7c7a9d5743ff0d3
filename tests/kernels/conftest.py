"""What tests of several kernels share."""

from __future__ import annotations

import pytest

from tests.emulated_isa import kernels_with


@pytest.fixture
def amx():
    """The kernels of prompts, on the processor or emulated."""
    kernels = kernels_with("amx")
    kernels.force_isa("amx")
    yield kernels
    kernels.force_isa(None)
