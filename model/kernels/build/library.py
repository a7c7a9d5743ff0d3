"""A shared library by a recipe, compiled once for a machine and a state of the sources.

`build_library()` returns the library's path at once when it has been built before; the folder's name is a
hash of sources, flags and compiler. Knows ninja, files and the cache; nothing of compilers or of what is
compiled.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model.kernels.build.lock import locked
from model.kernels.errors import KernelBuildError, Progress

REPOSITORY = Path(__file__).resolve().parents[3]
LIBRARY_NAME = "parlor_kernels.dll" if os.name == "nt" else "libparlor_kernels.so"
CONTENTS_NAME = "contents"
"""Beside a library: what it was made of, by Recipe.contents()."""
LOCK_TIMEOUT_S = 900.0
"""A builder that dies lets go of the lock, so this only ends the wait for one that hangs."""
KEPT_LIBRARIES = 4
"""Libraries of earlier sources that stay beside the newest, for going back and forth between versions."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]  # the program, and the arguments that make it this compiler
    version: str  # one line of --version


NO_COMPILER = Compiler((), "")
"""Of a recipe whose library is only looked for."""


class Recipe(Protocol):
    """Everything that decides what the library is."""

    @property
    def name(self) -> str:
        """What folders of its libraries begin with."""

    @property
    def objects(self) -> str:
        """The folder that it is compiled in."""

    def digest(self) -> str:
        """Twelve hex digits that change whenever the library would."""

    def contents(self) -> str:
        """The same of all but the compiler: libraries of equal contents can stand in for each other."""

    def ninja_text(self, folder: Path) -> str:
        """The text of build.ninja in `folder`, whose product is LIBRARY_NAME."""


def find_ninja() -> str:
    """The ninja of the Python package if it is installed, else the one on the PATH."""
    if spec := importlib.util.find_spec("ninja"):
        for folder in spec.submodule_search_locations or ():
            for candidate in (Path(folder) / "data" / "bin", Path(sys.executable).parent):
                if path := shutil.which("ninja", path=str(candidate)):
                    return path
    if path := shutil.which("ninja"):
        return path
    raise KernelBuildError("ninja is missing; install it with: pip install -r requirements-web.txt")


def ninja_value(text: str) -> str:
    """Text as it stands in a variable of the build file, where a path may hold any character."""
    return text.replace("$", "$$")


def ninja_words(words: Sequence[str]) -> str:
    """The words of a command in a variable, quoted for what takes them apart: a shell, or Windows itself."""
    return ninja_value(subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words))


def path_from(folder: Path, path: Path) -> str:
    """`path` as it is seen from `folder`: what is above both may have a name that compilers refuse."""
    try:
        return os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # on another drive of Windows
        return str(path)


def build_library(recipe: Recipe, progress: Progress | None = None, *, build_root: Path | None = None,
                  lock_timeout_s: float = LOCK_TIMEOUT_S) -> Path:
    """Path of the shared library, compiled now if there is none for this state of the sources.

    build_root  where libraries are kept; default: build/ in the repository, or the user's cache folder
                where that cannot be written
    Raises KernelBuildError: no ninja, a source does not compile, or another process has held
    the lock for longer than `lock_timeout_s`.
    """
    name = f"{recipe.name}-{recipe.digest()}"
    roots = (build_root,) if build_root else (REPOSITORY / "build", user_cache())
    for root in roots:
        if (library := root / name / LIBRARY_NAME).is_file():
            return library
    root = next((r for r in roots if _is_writable(r)), None)
    if root is None:
        tried = " or ".join(map(str, roots))
        raise KernelBuildError(f"No place to build the kernels: cannot write to {tried}.")
    library = root / name / LIBRARY_NAME
    progress = progress or (lambda line, share: None)
    with locked(root / "lock", lock_timeout_s, progress):
        if not library.is_file():  # else another process has built it meanwhile
            _compile(recipe, root / recipe.objects, library, progress)
            _remove_old_libraries(root, recipe.name)
    return library


def find_library(recipe: Recipe) -> Path | None:
    """A library of the recipe's contents, whichever compiler has made it: for a machine without one, to which
    it was brought with the sources."""
    for root in (REPOSITORY / "build", user_cache()):
        for contents in root.glob(f"{recipe.name}-*/{CONTENTS_NAME}"):
            library = contents.with_name(LIBRARY_NAME)
            if contents.read_text(encoding="utf-8") == recipe.contents() and library.is_file():
                return library
    return None


def _compile(recipe: Recipe, folder: Path, library: Path, progress: Progress) -> None:
    """Run ninja in `folder` (unchanged objects are kept there) and move its library into place at once."""
    ninja = find_ninja()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(recipe.ninja_text(folder), encoding="utf-8")
    _run_ninja([ninja, "-C", str(folder)], progress)
    library.parent.mkdir(parents=True, exist_ok=True)
    library.with_name(CONTENTS_NAME).write_text(recipe.contents(), encoding="utf-8")
    unfinished = library.with_name(f"{library.name}.{os.getpid()}.tmp")
    shutil.copy2(folder / LIBRARY_NAME, unfinished)
    os.replace(unfinished, library)  # noqa: PTH105 - the one call that is atomic everywhere


def _remove_old_libraries(root: Path, name: str) -> None:
    folders = sorted(root.glob(f"{name}-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in folders[1 + KEPT_LIBRARIES:]:
        shutil.rmtree(folder, ignore_errors=True)  # Windows keeps what another process has loaded


def _run_ninja(command: list[str], progress: Progress) -> None:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               encoding="utf-8", errors="replace",
                               env={**os.environ, "NINJA_STATUS": "[%f/%t] "})
    assert process.stdout is not None
    output: list[str] = []
    try:
        for line in process.stdout:
            if match := re.match(r"\[(\d+)/(\d+)\] (.*)", line):
                done, total, title = int(match[1]), int(match[2]), match[3]
                progress(f"Compiling kernels {done}/{total}: {title}", done / total)
            elif not line.startswith("ninja: Entering directory"):
                output.append(line)
    except BaseException:  # cancelled: what is compiled by then is kept
        process.terminate()
        process.wait()
        raise
    if process.wait() != 0:
        said = "".join(output)[-8000:]
        raise KernelBuildError(f"The kernels could not be compiled; the compiler said:\n{said}")


def user_cache() -> Path:
    """The folder for what can be made again, of this user."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "parlor"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parlor"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
