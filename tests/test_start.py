"""What ./start.sh does before app.py, by a .venv whose python notes how it is called. (POSIX shell only.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "make_venv.sh"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="start.bat does this on Windows")


@pytest.fixture
def folder(tmp_path):
    """A copy of Parlor, as far as the script knows it, with a space in its name."""
    folder = tmp_path / "my parlor"
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "make_venv.sh").write_bytes(SCRIPT.read_bytes())
    (folder / "requirements-web.txt").write_text("flask\n")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" != -m ] || {{ echo "$*" >> "{tmp_path}/calls"; exit; }}\n'
                      f'exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder


def make_venv(folder):
    """What python was asked to run by its name, and the exit code."""
    calls = folder.parent / "calls"
    calls.write_text("")
    ended = subprocess.run(["sh", "tools/make_venv.sh", "requirements-web.txt"], cwd=folder,
                           capture_output=True, check=False)
    return calls.read_text().splitlines(), ended.returncode


def test_a_second_start_runs_no_pip_and_changed_requirements_do(folder):
    (install,), code = make_venv(folder)
    assert code == 0 and install.startswith("-m pip install") and install.endswith("-r requirements-web.txt")
    assert make_venv(folder) == ([], 0)
    (folder / "requirements-web.txt").write_text("flask\nwaitress\n")
    assert len(make_venv(folder)[0]) == 1
    assert make_venv(folder) == ([], 0)
