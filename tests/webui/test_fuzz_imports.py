"""A few random imports and all that can be done with them; tests/fuzz_imports.py takes any number."""

from __future__ import annotations

import pytest

from tests.fuzz_imports import fuzz


@pytest.mark.parametrize("seed", range(3))
def test_no_import_breaks_any_action(tmp_path, seed):
    counts = fuzz(tmp_path / "sessions", 25, seed)
    assert counts["imports"] == 25 and counts["taken"] > 3
    assert counts["bots taken"] > 0
    assert counts["answers 200"] > 100 and counts["answers 400"] > 3
