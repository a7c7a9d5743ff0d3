"""The one option of the test suite: where a full set of other tools' checkpoints lies."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--checkpoints", metavar="DIR", default=None,
                     help="also check the logits of every checkpoint below DIR that has a "
                          "X.dequant_fp32_reference.safetensors beside it")
