"""Install what a requirements file lists, unless that is done: python tools/install.py requirements-web.txt

start.sh, start.bat and test.sh run this with the Python of .venv before anything else is there, so it needs
Python's own modules alone. Without a file it only looks at the Python that runs it. Ends with 0 (all is
there), 1 (it said why not) or 2 (another Python, or another environment, is needed).

PyTorch comes from its own index, which tells the build for CPUs (200 MB) from those for CUDA (3 GB), and
from pip's where that cannot be reached.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import urllib.request
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 14)
"""PyPI has wheels of the torch in requirements-web.txt for these and those between."""
ROOT = Path(__file__).resolve().parent.parent
TORCH_INDEX = "https://download.pytorch.org/whl"
TORCH_INDEX_TIMEOUT_S = 5.0
CUDA_BUILDS = ((13_000, "cu130"), (0, "cu126"))
"""The least CUDA version of a driver, as cuDriverGetVersion counts, and the build of torch for it."""
DONE, FAILED, OTHER_PYTHON = 0, 1, 2


class InstallError(Exception):
    """The message is one sentence for the user."""


def python_fits(version: tuple[int, ...] = tuple(sys.version_info)) -> bool:
    return OLDEST_PYTHON <= version[:2] <= NEWEST_PYTHON


def driver_cuda_version() -> int | None:
    """The newest CUDA that the NVIDIA driver knows, such as 13000; None without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int(0)
        return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None


def torch_build(system: str, cuda_version: int | None) -> str | None:
    """The name of torch's build for a `platform.system()` and a driver; None on macOS, which has one only."""
    if system not in ("Linux", "Windows"):
        return None
    if cuda_version is None:
        return "cpu"
    return next(build for least, build in CUDA_BUILDS if cuda_version >= least)


def is_there(wanted: str, build: str, system: str) -> bool:
    """Whether this version and build of torch is installed. PyPI's has no build in its name."""
    try:
        version, _, label = installed_version("torch").partition("+")
    except PackageNotFoundError:
        return False
    if not label:
        label = "cpu" if system == "Windows" else build  # for CUDA on Linux, which runs on CPUs as well
    return (version, label) == (wanted, build)


def index_offers(build: str, version: str) -> bool:
    """Whether torch's index can be reached within seconds and has this version."""
    try:
        with urllib.request.urlopen(f"{TORCH_INDEX}/{build}/torch/", timeout=TORCH_INDEX_TIMEOUT_S) as page:
            return f"torch-{version}" in page.read().decode("utf-8", "replace")
    except (OSError, ValueError):
        return False


def pip_install(*arguments: str) -> bool:
    """Whether pip ended well; its progress is shown on a terminal."""
    how = ["--disable-pip-version-check", *([] if sys.stdout.isatty() else ["--quiet"])]
    command = [sys.executable, "-m", "pip", "install", *how, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def install_torch(build: str, system: str) -> None:
    """The build that pip would not choose by itself. Raises InstallError."""
    lines = (ROOT / "requirements-web.txt").read_text(encoding="utf-8").split()
    requirement = next(line for line in lines if line.startswith("torch=="))
    version = requirement.removeprefix("torch==")
    if is_there(version, build, system):
        return
    name, size, room_gb = ("CPUs", "200 MB", 2) if build == "cpu" else ("CUDA", "3 GB", 9)
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < room_gb:
        raise InstallError(f"PyTorch for {name} takes {room_gb} GB, and {free_gb:.1f} GB are free in {ROOT}. "
                           "Make room and start again.")
    if index_offers(build, version):
        index = f"{TORCH_INDEX}/{build}"
        print(f"Downloading PyTorch for {name} from {index}, about {size} ...", flush=True)
        if pip_install("--force-reinstall", "--no-deps", "--index-url", index, requirement):
            return  # what it depends on comes with the other requirements, from where pip takes those
    print(f"{TORCH_INDEX} cannot be reached: PyTorch comes from pip's own index, "
          + ("with CUDA, up to 3 GB." if system == "Linux" else "for CPUs."), flush=True)


def has_compiler() -> bool:
    command = [sys.executable, "-c", "from model.kernels.build.cpu import find_compiler; find_compiler()"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def install(requirements: str) -> None:
    """Install what `requirements` lists, and a compiler where there is none. Raises InstallError."""
    system = platform.system()
    build = torch_build(system, driver_cuda_version())
    sha = hashlib.sha256(str(build).encode())
    for path in sorted(ROOT.glob("requirements-*.txt")):
        sha.update(path.read_bytes())
    stamp = Path(sys.prefix) / f"installed-{Path(requirements).stem}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == sha.hexdigest():
        return
    if build:
        install_torch(build, system)
    print(f"Installing {requirements}, the first time takes a few minutes ...", flush=True)
    if not pip_install("-r", requirements):
        raise InstallError(f"Installing {requirements} failed; the lines above say why. "
                           "Without internet it cannot work the first time.")
    if not has_compiler():
        print("There is no C++ compiler here. Downloading Zig's, about 100 MB ...", flush=True)
        if not pip_install("-r", "requirements-compiler.txt"):
            raise InstallError("No C++ compiler could be installed; the lines above say why. "
                               "Install g++ or clang++ and start again.")
    stamp.write_text(sha.hexdigest(), encoding="utf-8")


def main(arguments: list[str]) -> int:
    if not python_fits() or (arguments and not find_spec("pip")):
        return OTHER_PYTHON
    try:
        for requirements in arguments:
            install(requirements)
    except InstallError as error:
        print(error, file=sys.stderr)
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
