"""100,000 damaged folders: config.json, safetensors headers, GPTQ modules and tokenizers that lie.

Whatever stands in the files, the readers answer with a result or with ModelLoadError, and never allocate more
than the files themselves hold. `python -m tests.fuzz_models N` goes on with N others.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from model.formats import safetensors_reader
from model.kernels.build.library import REPOSITORY
from tests.fuzz_models import Cases, fuzz


@pytest.fixture
def no_giant_allocation(monkeypatch):
    """The readers' torch.empty refuses what the small files of these tests cannot hold."""
    original = torch.empty

    def empty(*size, **more):
        count = torch.Size(size[0] if size and not isinstance(size[0], int) else size).numel()
        assert count <= 1 << 20, f"allocates {count} elements"
        return original(*size, **more)

    monkeypatch.setattr(safetensors_reader.torch, "empty", empty)


@pytest.mark.parametrize(("kind", "count", "at_least_read"), [
    ("config", 80_000, 1000), ("config_bytes", 2_000, 10), ("safetensors", 15_000, 100),
    ("safetensors_bytes", 3_000, 10), ("settings", 150, 50), ("tokenizer", 1_500, 50),
    ("sentencepiece", 500, 20)])
def test_damaged_files_are_read_or_refused(tmp_path, no_giant_allocation, kind, count, at_least_read):
    """Some are read: else the damage would be too heavy to reach the later checks."""
    counts = fuzz(tmp_path, count, 1, {kind: 1})
    assert counts[f"{kind} read"] >= at_least_read
    assert sum(counts.values()) == count


def test_a_reader_that_fails_in_another_way_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Cases, "config", lambda self: {}["missing"])
    monkeypatch.setattr("tests.fuzz_models.CASE_SECONDS", 0.5)
    with pytest.raises(KeyError):
        fuzz(tmp_path, 5, 1, {"config": 1})
    time.sleep(1)  # a limit that is still armed would end the process


def test_a_case_that_takes_too_long_ends_the_process_with_its_stack():
    program = ("from tests.helpers.case_limit import case_limit\n"
               "with case_limit(0.2):\n"
               "    while True: pass")
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True,
                            check=False)
    assert result.returncode != 0 and 'File "<string>", line 3' in result.stderr
