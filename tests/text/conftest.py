"""What tests of templates share."""

from __future__ import annotations

import pytest

from model.text.template_process import TemplateLimits, TemplateProcess


@pytest.fixture(scope="module")
def process():
    """Where templates are rendered; it gives them time, for a busy machine is slow."""
    process = TemplateProcess(TemplateLimits(seconds=20))
    yield process
    process.close()
