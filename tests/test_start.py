"""What ./start.sh does before app.py: which Python and which PyTorch it takes, and that it is done only once.

tools/install.py runs here with a pip and an index that only note what they are asked; make_venv.sh with
Pythons that are scripts. start.bat runs the same install.py; its own lines are run by nothing here.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tools import install

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = "requirements-web.txt"


class Machine:
    """What install.py finds, and what it does. Each call of pip is its arguments behind "install"."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.system = "Linux"
        self.cuda_version: int | None = None
        self.torch: str | None = None
        self.index: dict[str, str] = dict.fromkeys(("cpu", "cu126", "cu130"), "torch-2.13.0")
        self.has_compiler = True
        self.refused: set[str] = set()
        self.calls: list[list[str]] = []

    def run(self, command: list[str], **options) -> subprocess.CompletedProcess[bytes]:
        if command[1:3] == ["-m", "pip"]:
            arguments = [a for a in command[4:] if a not in ("--quiet", "--disable-pip-version-check")]
            self.calls.append(arguments)
            return subprocess.CompletedProcess(command, int(bool(self.refused & set(arguments))))
        return subprocess.CompletedProcess(command, 0 if self.has_compiler else 1)

    def urlopen(self, url: str, timeout: float) -> io.BytesIO:
        assert timeout <= 10, "whoever has no way there must not wait for it"
        build = url.removeprefix(install.TORCH_INDEX).strip("/").split("/")[0]
        if build not in self.index:
            raise OSError("unreachable")
        return io.BytesIO(self.index[build].encode())

    def version(self, name: str) -> str:
        if self.torch is None:
            raise install.PackageNotFoundError(name)
        return self.torch

    def install(self) -> list[list[str]]:
        self.calls = []
        assert install.main([REQUIREMENTS]) == install.DONE
        return self.calls


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Linux without a GPU, with a compiler, and nothing installed."""
    machine = Machine(tmp_path)
    for name in (REQUIREMENTS, "requirements-compiler.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(install.subprocess, "run", machine.run)
    monkeypatch.setattr(install.urllib.request, "urlopen", machine.urlopen)
    monkeypatch.setattr(install.platform, "system", lambda: machine.system)
    monkeypatch.setattr(install, "driver_cuda_version", lambda: machine.cuda_version)
    monkeypatch.setattr(install, "installed_version", machine.version)
    return machine


def torch_from(build: str) -> list[str]:
    index = f"{install.TORCH_INDEX}/{build}"
    return ["--force-reinstall", "--no-deps", "--index-url", index, "torch==2.13.0"]


ALL = ["-r", REQUIREMENTS]


@pytest.mark.parametrize(("system", "cuda_version", "build"), [
    ("Linux", None, "cpu"), ("Windows", None, "cpu"),
    ("Linux", 13_010, "cu130"), ("Windows", 13_000, "cu130"),
    ("Linux", 12_080, "cu126"), ("Windows", 11_080, "cu126")])
def test_the_driver_decides_which_pytorch_is_downloaded(machine, capsys, system, cuda_version, build):
    machine.system, machine.cuda_version = system, cuda_version
    assert machine.install() == [torch_from(build), ALL]
    assert ("about 200 MB" if build == "cpu" else "about 3 GB") in capsys.readouterr().out


def test_macos_has_one_pytorch(machine):
    machine.system = "Darwin"
    assert machine.install() == [ALL]


@pytest.mark.parametrize("index", [{}, {"cpu": "torch-2.12.0"}], ids=["unreachable", "without this version"])
def test_without_pytorchs_index_pip_takes_it_from_its_own(machine, capsys, index):
    machine.index = index
    assert machine.install() == [ALL]
    assert "pip's own index, with CUDA, up to 3 GB." in capsys.readouterr().out


def test_an_index_that_breaks_off_is_replaced_too(machine):
    machine.refused = {"--index-url"}
    assert machine.install() == [torch_from("cpu"), ALL]


def test_a_second_start_runs_no_pip_and_changed_requirements_do(machine):
    machine.install()
    machine.torch = "2.13.0+cpu"
    assert machine.install() == []
    (machine.root / REQUIREMENTS).write_text("torch==2.13.0\nwaitress\n")
    assert machine.install() == [ALL]
    assert machine.install() == []


def test_a_driver_that_comes_later_brings_its_pytorch(machine):
    machine.install()
    machine.torch, machine.cuda_version = "2.13.0+cpu", 13_000
    assert machine.install() == [torch_from("cu130"), ALL]


def test_zigs_compiler_comes_only_where_there_is_none(machine, capsys):
    machine.has_compiler = False
    assert machine.install()[1:] == [ALL, ["-r", "requirements-compiler.txt"]]
    assert "no C++ compiler here" in capsys.readouterr().out


@pytest.mark.parametrize(("refused", "sentence"), [
    (REQUIREMENTS, "Installing requirements-web.txt failed"),
    ("requirements-compiler.txt", "No C++ compiler could be installed")])
def test_what_cannot_be_installed_is_said_and_tried_again(machine, capsys, refused, sentence):
    machine.has_compiler, machine.refused = False, {refused}
    assert install.main([REQUIREMENTS]) == install.FAILED
    assert capsys.readouterr().err.startswith(sentence)
    machine.refused = set()
    assert machine.install()


def test_a_disk_without_room_is_told_before_the_download(machine, capsys, monkeypatch):
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1.5e9}))
    assert install.main([REQUIREMENTS]) == install.FAILED
    assert "PyTorch for CPUs takes 2 GB, and 1.5 GB are free" in capsys.readouterr().err
    assert machine.calls == []


def test_the_pythons_are_those_of_pytorch_and_the_readme_names_them():
    """PyTorch says which it was made for, though PyPI may still lack its wheels for the newest."""
    made_for = [tuple(map(int, found.groups())) for line in metadata("torch").get_all("Classifier", [])
                if (found := re.fullmatch(r"Programming Language :: Python :: (\d+)\.(\d+)", line))]
    assert min(made_for) == install.OLDEST_PYTHON and install.NEWEST_PYTHON in made_for
    oldest, newest = (".".join(map(str, v)) for v in (install.OLDEST_PYTHON, install.NEWEST_PYTHON))
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"Python {oldest} to {newest}" in readme
    versions = ((3, 9, 9), (3, 10, 0), (3, 14, 2), (3, 15, 0), (4, 0, 0))
    assert [install.python_fits(version) for version in versions] == [False, True, True, False, False]


def test_another_python_or_an_environment_without_pip_is_not_taken(machine, monkeypatch):
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    assert install.main([REQUIREMENTS]) == install.OTHER_PYTHON
    assert install.main([]) == install.DONE
    monkeypatch.setattr(install, "python_fits", lambda: False)
    assert install.main([]) == install.OTHER_PYTHON


# ---- make_venv.sh ------------------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name == "nt", reason="start.bat does this on Windows")


@pytest.fixture
def folder(tmp_path):
    """A copy of Parlor, as far as make_venv.sh knows it, in an oddly named folder; no Python on the PATH."""
    folder = tmp_path / "my $parlor's"
    (folder / "tools").mkdir(parents=True)
    for name in ("make_venv.sh", "install.py"):
        (folder / "tools" / name).write_bytes((ROOT / "tools" / name).read_bytes())
    (tmp_path / "bin").mkdir()
    for name in ("sh", "sed", "dirname", "cat", "mkdir", "cp", "chmod"):
        (tmp_path / "bin" / name).symlink_to(next(path for folder in ("/bin", "/usr/bin")
                                                 if (path := Path(folder, name)).exists()))
    return folder


def write_python(path: Path, code: int) -> None:
    """A Python for which install.py ends with `code`; its venv module copies it. It notes its arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"""#!/bin/sh
echo "$*" >> "$CALLS"
case $1 in
    --version) echo "Python 3.9.9" ;;
    -m) [ "$BROKEN" = "" ] || {{ echo "no ensurepip"; exit 1; }}
        mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *) exit {code} ;;
esac
""")
    path.chmod(0o755)


def make_venv(folder: Path, **variables: str) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """What the Pythons were asked, and how it ended."""
    calls = folder.parent / "calls"
    calls.write_text("")
    variables = {"PATH": str(folder.parent / "bin"), "CALLS": str(calls), "BROKEN": "", **variables}
    ended = subprocess.run(["sh", "tools/make_venv.sh", REQUIREMENTS], cwd=folder, capture_output=True,
                           text=True, check=False, env=variables)
    return calls.read_text().splitlines(), ended


MAKE = "-m venv --clear .venv"
INSTALL = f"tools/install.py {REQUIREMENTS}"
LOOK = "tools/install.py"


@posix
def test_the_first_start_makes_an_environment_and_the_second_asks_it_only_once(folder):
    write_python(folder.parent / "bin" / "python3", 0)
    assert make_venv(folder)[0] == [LOOK, MAKE, INSTALL]
    calls, ended = make_venv(folder)
    assert (calls, ended.returncode, ended.stdout) == ([INSTALL], 0, "")


@posix
def test_a_python_that_will_do_is_found_beside_one_that_will_not(folder):
    write_python(folder.parent / "bin" / "python3", 2)
    write_python(folder.parent / "bin" / "python3.12", 0)
    calls, ended = make_venv(folder)
    assert ended.returncode == 0 and calls == [LOOK, LOOK, MAKE, INSTALL]


@posix
def test_an_environment_that_will_not_do_is_made_anew(folder):
    write_python(folder / ".venv" / "bin" / "python", 2)
    write_python(folder.parent / "bin" / "python3", 0)
    assert make_venv(folder)[0] == [INSTALL, LOOK, MAKE, INSTALL]


@posix
def test_what_is_missing_is_said(folder):
    calls, ended = make_venv(folder)
    assert ended.returncode == 1 and calls == []
    assert re.match(r"Parlor needs Python 3\.\d+ to 3\.\d+, and none was found\.", ended.stderr)
    write_python(folder.parent / "bin" / "python3", 0)
    ended = make_venv(folder, BROKEN="yes")[1]
    assert ended.returncode == 1
    assert ended.stderr.startswith("Python 3.9.9 cannot make a virtual environment: no ensurepip\n")
    write_python(folder / ".venv" / "bin" / "python", 1)
    assert make_venv(folder)[1].returncode == 1


@posix
def test_folders_are_given_from_where_the_start_script_is_called(folder, tmp_path):
    (folder / "start.sh").write_bytes((ROOT / "start.sh").read_bytes())
    write_python(folder / ".venv" / "bin" / "python", 0)
    (folder / ".venv" / "bin" / "python").write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    ended = subprocess.run(["sh", folder / "start.sh", "-d", "my model"], cwd=tmp_path, text=True,
                           capture_output=True, check=True)
    assert ended.stdout.splitlines()[-1] == f"{tmp_path} {folder / 'app.py'} -d my model"
