"""A few random imports and all that can be done with them; tests/fuzz_imports.py takes any number."""

from __future__ import annotations

from collections import Counter

from tests.fuzz_imports import fuzz

SEEDS = 3


def test_no_import_breaks_any_action(tmp_path):
    counts = sum((fuzz(tmp_path / str(seed), 25, seed) for seed in range(SEEDS)), Counter())
    assert counts["imports"] == 25 * SEEDS and counts["taken"] > 10
    assert counts["bots taken"] > 0
    assert counts["answers 200"] > 300 and counts["answers 400"] > 10
