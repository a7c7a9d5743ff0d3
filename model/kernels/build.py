"""Compile the C++ kernels of cpu/ into one shared library, once for a machine and a state of the sources.

`build_kernels()` returns the library's path at once when it has been built before; the folder's name is a
hash of sources, flags and compiler. Knows compilers, ninja and files; nothing of what the kernels compute.
`python -m model.kernels.build` builds from the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from model.kernels import KernelBuildError, Progress

if TYPE_CHECKING:
    from model.kernels.build_cuda import CudaRecipe

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY_NAME = "parlor_kernels.dll" if os.name == "nt" else "libparlor_kernels.so"
LOCK_TIMEOUT_S = 900.0
"""A builder that dies lets go of the lock, so this only ends the wait for one that hangs."""
KEPT_LIBRARIES = 4
"""Libraries of earlier sources that stay beside the newest, for going back and forth between versions."""

ISAS = ("plain", "avx2", "avx512", "amx")
"""Ascending, as PARLOR_ISA_* in kernels.h; each set's flags include those of the sets before it."""
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni",
           "-mprefer-vector-width=512")
_BUILDABLE = ISAS[:-1] if os.name == "nt" else ISAS
"""On Windows no tiles are asked for (isa_detect.cpp), and gcc's loads of them do not assemble."""
ISA_FLAGS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "avx2": _AVX2,
    "avx512": _AVX512,
    "amx": (*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
}
COMMON_FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra")
LINK_FLAGS = (("-shared", "-static") if os.name == "nt"
              else ("-shared", "-pthread", "-Wl,-Bsymbolic", "-Wl,-z,defs"))


@dataclass(frozen=True)
class Source:
    """One C++ file and the instruction sets it is compiled for, once each."""

    file: str  # in the recipe's folder, or an absolute path
    isas: tuple[str, ...] = ("plain",)


_VECTORISED = ("plain", "avx2", "avx512")
SOURCES: tuple[Source, ...] = (
    Source("library.cpp"),
    Source("isa.cpp"),
    Source("isa_detect.cpp"),
    Source("thread_team.cpp"),
    Source("operations.cpp"),
    Source("sampling.cpp"),
    Source("sampling_weights.cpp", _VECTORISED),
    Source("rows.cpp", _VECTORISED),
    Source("rope.cpp", _VECTORISED),
    Source("attention.cpp", _VECTORISED),
    # linear: begin
    Source("linear.cpp"),
    Source("linear_pack.cpp"),
    Source("linear_plain.cpp"),
    Source("linear_stage.cpp", _VECTORISED),
    Source("linear_silu.cpp", _VECTORISED),
    Source("linear_avx2.cpp", ("avx2",)),
    Source("linear_avx2_many.cpp", ("avx2",)),
    Source("linear_avx512.cpp", ("avx512",)),
    Source("linear_amx.cpp", ("amx",)),
    Source("linear_limits.cpp", ISAS),
    Source("linear_measure.cpp"),
    # linear: end
)


@dataclass(frozen=True)
class Compiler:
    path: str
    version: str  # the first line of --version


def find_compiler(wanted: str | None = None) -> Compiler:
    """The C++ compiler: `wanted`, or the first of g++, clang++ and c++ on the PATH."""
    names = (wanted,) if wanted else ("g++", "clang++", "c++")
    for name in names:
        if path := shutil.which(name):
            result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            if result.returncode == 0 and result.stdout:
                return Compiler(path, result.stdout.splitlines()[0])
    how = {"nt": "install MinGW-w64 or LLVM and put its bin folder on the PATH"}.get(
        os.name, "install one, for example with: sudo apt install g++")
    raise KernelBuildError(f"No C++ compiler found (looked for {', '.join(names)}); {how}.")


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


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the library is."""

    compiler: Compiler
    source_folder: Path = REPOSITORY / "cpu"
    header: Path = REPOSITORY / "model" / "kernels" / "kernels.h"
    sources: tuple[Source, ...] = SOURCES
    flags: tuple[str, ...] = COMMON_FLAGS
    isa_flags: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ISA_FLAGS)
    link_flags: tuple[str, ...] = LINK_FLAGS

    name: ClassVar[str] = "kernels"
    """What folders of its libraries begin with."""
    objects: ClassVar[str] = "objects"
    """The folder that it is compiled in."""

    def digest(self) -> str:
        """Twelve hex digits that change whenever the library would."""
        sha = hashlib.sha256()
        parts = [self.compiler.path, self.compiler.version, platform.machine(), *self.flags, *self.link_flags,
                 repr(self.sources), repr(self.isa_flags)]
        for part in parts:
            sha.update(part.encode() + b"\0")
        folders = {self.source_folder, *((self.source_folder / s.file).parent for s in self.sources)}
        files = sorted(p for folder in folders for p in folder.iterdir() if p.suffix in (".h", ".cpp"))
        for path in [self.header, *files]:
            sha.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return sha.hexdigest()[:12]

    def ninja_text(self) -> str:
        return ninja_file(self, highest_isa(self.compiler, self.isa_flags))


def highest_isa(compiler: Compiler, isa_flags: Mapping[str, tuple[str, ...]] = ISA_FLAGS) -> int:
    """Index in ISAS of the highest set that the compiler can make code for."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return 0
    for index in range(len(_BUILDABLE) - 1, 0, -1):
        command = [compiler.path, *isa_flags[ISAS[index]], "-x", "c++", "-fsyntax-only", os.devnull]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return index
    return 0


def ninja_file(recipe: Recipe, built_isa: int) -> str:
    """The text of build.ninja. Objects are linked in ascending order of their ISA, see cpu/isa.h."""
    flags = [*recipe.flags, f"-DPARLOR_BUILT_ISA={built_isa}", f"-I{ninja_path(recipe.header.parent)}"]
    if os.name != "nt":
        flags += ["-fPIC", "-pthread"]
    lines = ["ninja_required_version = 1.8",
             f"cxx = {ninja_path(Path(recipe.compiler.path))}",
             f"flags = {ninja_words(flags)}",
             "rule compile",
             "  command = $cxx $flags $isa_flags -DPARLOR_ISA_NS=$isa -MD -MF $out.d -c $in -o $out",
             "  description = $title",
             "  depfile = $out.d",
             "  deps = gcc",
             "rule link",
             f"  command = $cxx -o $out $in {ninja_words(recipe.link_flags)}",
             "  description = link"]
    objects = []
    for isa in ISAS[:built_isa + 1]:
        for source in recipe.sources:
            if isa not in source.isas:
                continue
            target = f"{Path(source.file).stem}.{isa}.o"
            objects.append(target)
            lines += [f"build {target}: compile {ninja_path(recipe.source_folder / source.file)}",
                      f"  isa = {isa}",
                      f"  isa_flags = {ninja_words(recipe.isa_flags[isa])}",
                      f"  title = {Path(source.file).name} ({isa})"]
    lines += [f"build {LIBRARY_NAME}: link {' '.join(objects)}", ""]
    return "\n".join(lines)


def ninja_path(path: Path) -> str:
    """A path as ninja wants it in a build file."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def ninja_words(words: list[str] | tuple[str, ...]) -> str:
    """The words of a command; those with a space in quotes."""
    return " ".join(f'"{w}"' if " " in w.replace("$ ", "") else w for w in words)


def build_kernels(progress: Progress | None = None, *, compiler: str | None = None,
                  build_root: Path | None = None, lock_timeout_s: float = LOCK_TIMEOUT_S,
                  recipe: Recipe | CudaRecipe | None = None) -> Path:
    """Path of the shared library, compiled now if there is none for this state of the sources.

    build_root  where libraries are kept; default: build/ in the repository, or the user's cache folder
                where that cannot be written
    Raises KernelBuildError: no compiler, no ninja, a source does not compile, or another process has held
    the lock for longer than `lock_timeout_s`.
    """
    recipe = recipe or Recipe(find_compiler(compiler))
    name = f"{recipe.name}-{recipe.digest()}"
    roots = (build_root,) if build_root else (REPOSITORY / "build", _user_cache())
    for root in roots:
        if (library := root / name / LIBRARY_NAME).is_file():
            return library
    root = next((r for r in roots if _is_writable(r)), None)
    if root is None:
        tried = " or ".join(map(str, roots))
        raise KernelBuildError(f"No place to build the kernels: cannot write to {tried}.")
    library = root / name / LIBRARY_NAME
    progress = progress or (lambda line, share: None)
    with _lock(root / "lock", lock_timeout_s, progress):
        if not library.is_file():  # else another process has built it meanwhile
            _compile(recipe, root / recipe.objects, library, progress)
            _remove_old_libraries(root, recipe.name)
    return library


def _compile(recipe: Recipe | CudaRecipe, folder: Path, library: Path, progress: Progress) -> None:
    """Run ninja in `folder` (unchanged objects are kept there) and move its library into place at once."""
    ninja = find_ninja()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(recipe.ninja_text(), encoding="utf-8")
    _run_ninja([ninja, "-C", str(folder)], progress)
    library.parent.mkdir(parents=True, exist_ok=True)
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
    for line in process.stdout:
        if match := re.match(r"\[(\d+)/(\d+)\] (.*)", line):
            done, total, title = int(match[1]), int(match[2]), match[3]
            progress(f"Compiling kernels {done}/{total}: {title}", done / total)
        elif not line.startswith("ninja: Entering directory"):
            output.append(line)
    if process.wait() != 0:
        said = "".join(output)[-8000:]
        raise KernelBuildError(f"The kernels could not be compiled; the compiler said:\n{said}")


def _user_cache() -> Path:
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


@contextlib.contextmanager
def _lock(path: Path, timeout_s: float, progress: Progress) -> Iterator[None]:
    """Hold the lock file; the operating system lets go of it when the process ends, however it ends."""
    deadline = time.monotonic() + timeout_s
    is_waiting = False
    with path.open("a+b") as file:
        while not _try_lock(file.fileno()):
            if not is_waiting:
                progress("Waiting for another process that is compiling the kernels", 0.0)
            is_waiting = True
            if time.monotonic() >= deadline:
                raise KernelBuildError(
                    f"Another process has been building the kernels for over {timeout_s:.0f} s "
                    f"(lock file {path}); end it or wait for it, then start again.")
            time.sleep(0.05)
        try:
            yield
        finally:
            _unlock(file.fileno())


if os.name == "nt":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the CPU kernels.")
    parser.add_argument("--compiler", help="C++ compiler; default: the first of g++, clang++, c++")
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        path = build_kernels(lambda line, share: print(line, flush=True), compiler=arguments.compiler)
    except KernelBuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}  ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
