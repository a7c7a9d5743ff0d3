"""Building the kernel library: cache, lock, messages, and what the compiled objects may not contain."""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from model.kernels import load_kernels
from model.kernels.build import cpu, library, lock
from model.kernels.build.cpu import ISAS, X86_ISAS, CpuRecipe, Source, find_compiler
from model.kernels.build.library import build_library
from model.kernels.errors import KernelBuildError

HEADER = "int answer(void);\n"
ONE = """#include "tiny.h"
extern "C" __attribute__((visibility("default"))) int answer(void) { return ANSWER; }
"""
TWO = """namespace { int unused() { return 1; } }
int two() { return unused(); }
"""


@pytest.fixture
def recipe(tmp_path):
    """Two tiny sources, one in a folder below; every folder has a space in its name."""
    folder = tmp_path / "some sources"
    (folder / "below").mkdir(parents=True)
    (folder / "tiny.h").write_text("#define ANSWER 41\n")
    (folder / "one.cpp").write_text(ONE)
    (folder / "below" / "two.cpp").write_text(TWO)
    header = tmp_path / "its header" / "kernels.h"
    header.parent.mkdir()
    header.write_text(HEADER)
    return CpuRecipe(find_compiler(), folder, header, (Source("one.cpp"), Source("below/two.cpp")))


NOT_ON_WINDOWS = ('"quoted"', "a|b", "a*b?[c]", "a:b", "back\\slash", "<a>", "a\tb")


@pytest.mark.parametrize("name", [
    "with  space", "it's", "$HOME ${x} $$", "a#b", "50%", "a&b;c", "(x86)", "模型 ä", "back`tick`", "~tilde",
    "{a},=b!@^+", *(() if os.name == "nt" else NOT_ON_WINDOWS)])
def test_it_builds_in_any_folder_and_with_a_compiler_in_any(recipe, tmp_path, lines, name):
    """The sources, the header, the compiler and what is built: each below a folder of this name."""
    odd = tmp_path / name
    for folder in (recipe.source_folder, recipe.header.parent):
        shutil.copytree(folder, odd / folder.name)
    (compiler,) = recipe.compiler.command
    if os.name != "nt":
        (odd / "c++").write_text(f'#!/bin/sh\nexec "{compiler}" "$@"\n')
        (odd / "c++").chmod(0o755)
        compiler = str(odd / "c++")
    odd_recipe = replace(recipe, compiler=replace(recipe.compiler, command=(compiler,)),
                         source_folder=odd / recipe.source_folder.name,
                         header=odd / recipe.header.relative_to(tmp_path))
    assert answer(built(odd_recipe, odd)) == 41
    (odd_recipe.source_folder / "tiny.h").write_text("#define ANSWER 42\n")
    assert answer(built(odd_recipe, odd, lines)) == 42
    assert len(lines) == 2, "one.cpp, which alone includes tiny.h, and the link"
    assert answer(built(odd_recipe, tmp_path)) == 42, "from a folder that sees the name"


@pytest.fixture
def lines():
    return []


def built(recipe, tmp_path, lines=None, **options):
    def progress(line, share):
        if lines is not None:
            lines.append((line, share))
    return build_library(recipe, progress, build_root=tmp_path / "built here", **options)


def answer(path):
    return ctypes.CDLL(os.fspath(path)).answer()


def test_a_build_reports_each_file_and_gives_a_library(recipe, tmp_path, lines):
    path = built(recipe, tmp_path, lines)
    assert answer(path) == 41
    assert [share for _, share in lines] == pytest.approx([1 / 3, 2 / 3, 1])
    assert {line.split(": ")[1] for line, _ in lines} == {"one.cpp (plain)", "below/two.cpp (plain)", "link"}


def test_the_second_time_nothing_is_compiled(recipe, tmp_path, lines, monkeypatch):
    path = built(recipe, tmp_path)
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("compiled again"))
    assert built(recipe, tmp_path, lines) == path
    assert lines == []


def test_a_changed_header_makes_another_library_and_recompiles_what_includes_it(recipe, tmp_path, lines):
    first = built(recipe, tmp_path)
    (recipe.source_folder / "tiny.h").write_text("#define ANSWER 42\n")
    second = built(recipe, tmp_path, lines)
    assert first != second
    assert (answer(first), answer(second)) == (41, 42)
    assert [line for line, _ in lines] == ["Compiling kernels 1/2: one.cpp (plain)",
                                           "Compiling kernels 2/2: link"]


def test_sources_flags_and_compiler_change_the_hash(recipe):
    digests = {recipe.digest(), replace(recipe, flags=(*recipe.flags, "-g")).digest(),
               replace(recipe, sources=recipe.sources[:1]).digest(),
               replace(recipe, compiler=replace(recipe.compiler, version="other 1.0")).digest()}
    assert len(digests) == 4
    assert recipe.digest() == replace(recipe).digest()


def test_old_libraries_are_removed_and_some_stay(recipe, tmp_path):
    paths = []
    for value in range(library.KEPT_LIBRARIES + 3):
        (recipe.source_folder / "tiny.h").write_text(f"#define ANSWER {value}\n")
        paths.append(built(recipe, tmp_path))
        os.utime(paths[-1].parent, (value, value))
    assert [p.exists() for p in paths] == [False] * 2 + [True] * (library.KEPT_LIBRARIES + 1)


def test_an_error_in_a_source_is_shown_in_the_compilers_words(recipe, tmp_path):
    (recipe.source_folder / "below" / "two.cpp").write_text("int two() { return missing_name; }\n")
    with pytest.raises(KernelBuildError, match="could not be compiled; the compiler said:") as caught:
        built(recipe, tmp_path)
    assert "missing_name" in str(caught.value)
    assert not list((tmp_path / "built here").glob("kernels-*/*"))


def test_a_missing_compiler_is_one_clear_sentence(monkeypatch, tmp_path):
    with pytest.raises(KernelBuildError, match=r"^No C\+\+ compiler found \(looked for no-such-compiler\); "):
        find_compiler("no-such-compiler")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cpu.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(cpu, "find_library", lambda recipe: None)  # the tests' own would do
    with pytest.raises(KernelBuildError, match=r"looked for g\+\+, clang\+\+, c\+\+, ziglang\)") as caught:
        load_kernels()
    assert "\n" not in str(caught.value)


def test_without_a_compiler_a_library_of_the_same_sources_is_taken(recipe, tmp_path, monkeypatch):
    """As in an image of which another stage has compiled them."""
    monkeypatch.setattr(library, "REPOSITORY", tmp_path)
    path = build_library(recipe)
    bare = replace(recipe, compiler=library.NO_COMPILER)
    monkeypatch.setattr(cpu, "CpuRecipe", lambda compiler: replace(recipe, compiler=compiler))
    monkeypatch.setattr(cpu, "find_compiler", lambda wanted: find_compiler("no-such-compiler"))
    assert library.find_library(bare) == path == cpu.own_library()
    (recipe.source_folder / "tiny.h").write_text("#define ANSWER 42\n")
    assert library.find_library(bare) is None, "other sources"
    with pytest.raises(KernelBuildError, match="No C"):
        cpu.own_library()


def test_the_command_line_says_it_too():
    result = subprocess.run([sys.executable, "-m", "model.kernels.build", "--compiler", "no-such-compiler"],
                            capture_output=True, text=True, cwd=library.REPOSITORY, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("No C++ compiler found")
    assert result.stderr.count("\n") == 1


def test_a_missing_ninja_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelBuildError, match="ninja is missing; install it with: pip install"):
        library.find_ninja()


def test_waiting_for_the_lock_ends_with_a_sentence(recipe, tmp_path):
    root = tmp_path / "built here"
    root.mkdir()
    sentence = "Another process has been building the kernels for over 0 s"
    with lock.locked(root / "lock", 1.0, print), pytest.raises(KernelBuildError, match=sentence):
        built(recipe, tmp_path, lock_timeout_s=0.1)
    assert answer(built(recipe, tmp_path)) == 41


def test_who_waits_for_the_lock_takes_what_the_other_has_built(recipe, tmp_path, lines):
    root = tmp_path / "built here"
    root.mkdir()
    results = []
    with lock.locked(root / "lock", 1.0, print):
        waiting = threading.Thread(target=lambda: results.append(built(recipe, tmp_path, lines)))
        waiting.start()
        path = root / f"kernels-{recipe.digest()}" / library.LIBRARY_NAME
        library._compile(recipe, root / "objects", path, lambda line, share: None)
    waiting.join(240)
    assert results == [path]
    assert lines == [("Waiting for another process that is compiling the kernels", 0.0)]


def test_two_processes_building_at_once_both_get_the_library(recipe, tmp_path):
    program = (
        "import sys, pathlib, ctypes\n"
        "from model.kernels.build.cpu import *\n"
        "from model.kernels.build.library import build_library\n"
        "folder, header, root = map(pathlib.Path, sys.argv[1:])\n"
        "recipe = CpuRecipe(find_compiler(), folder, header, (Source('one.cpp'), Source('below/two.cpp')))\n"
        "path = build_library(recipe, lambda line, share: print(line.split()[0]), build_root=root)\n"
        "print(ctypes.CDLL(str(path)).answer())\n")
    folders = map(str, (recipe.source_folder, recipe.header, tmp_path / "both"))
    command = [sys.executable, "-c", program, *folders]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=library.REPOSITORY)
                 for _ in range(2)]
    outputs = [p.communicate(timeout=240)[0].split() for p in processes]
    assert [o[-1] for o in outputs] == ["41", "41"]
    assert sum(o.count("Compiling") for o in outputs) == 3


def test_an_unwritable_repository_builds_in_the_users_cache(recipe, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(library, "REPOSITORY", tmp_path / "a file")
    monkeypatch.setattr(library, "user_cache", lambda: tmp_path / "cache")
    path = build_library(recipe)
    assert (tmp_path / "cache") in path.parents
    monkeypatch.setattr(library, "user_cache", lambda: tmp_path / "a file" / "too")
    with pytest.raises(KernelBuildError, match="No place to build the kernels: cannot write to"):
        build_library(recipe)


# ---- the real sources --------------------------------------------------------------------------------------


def test_every_source_file_is_listed():
    """Neither a forgotten file nor a listed one that is not there."""
    folder = library.REPOSITORY / "cpu"
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*.cpp")}
    assert on_disk == {source.file for source in cpu.SOURCES}


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="sets of x86-64")
def test_objects_are_linked_from_the_lowest_instruction_set_up(tmp_path):
    """The linker takes the first of equal inline functions; it must be one that any machine can run."""
    compiler = find_compiler()
    text = cpu.ninja_file(CpuRecipe(compiler), cpu.built_isas(compiler), tmp_path)
    line = next(line for line in text.splitlines() if line.startswith(f"build {library.LIBRARY_NAME}"))
    order = [ISAS.index(name.split(".")[-2]) for name in line.split() if name.endswith(".o")]
    assert order == sorted(order)
    assert len(order) == sum(isa in X86_ISAS for source in cpu.SOURCES for isa in source.isas)


INCLUDES = [f"-I{library.REPOSITORY / folder}" for folder in ("model/kernels", "cpu")]


def assert_quiet(commands):
    """Run the commands, two at a time: none may fail or say anything."""
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(functools.partial(subprocess.run, capture_output=True, text=True), commands))
    said = [result.stderr for result in results if result.stderr or result.returncode]
    assert not said, "\n".join(said)


def test_the_sources_compile_without_a_warning():
    compiler = find_compiler()
    built = cpu.built_isas(compiler)
    commands = [[*compiler.command, *cpu.COMMON_FLAGS, "-Werror", "-O1", "-fsyntax-only", *cpu.ISA_FLAGS[isa],
                 f"-DPARLOR_ISA_NS={isa}", f"-DPARLOR_BUILT_ISAS={cpu.isa_mask(built)}",
                 *INCLUDES, str(library.REPOSITORY / "cpu" / source.file)]
                for source in cpu.SOURCES for isa in source.isas if isa in built]
    assert_quiet(commands)


def test_the_plain_set_alone_compiles_too():
    """What a processor other than x86-64 gets: no file of another set, no reference to one."""
    compiler = find_compiler()
    assert_quiet([[*compiler.command, *cpu.COMMON_FLAGS, "-Werror", "-fsyntax-only", "-DPARLOR_ISA_NS=plain",
                   "-DPARLOR_BUILT_ISAS=1", *INCLUDES, str(library.REPOSITORY / "cpu" / source.file)]
                  for source in cpu.SOURCES if "plain" in source.isas])


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) is not installed")
def test_no_object_of_a_higher_set_has_a_static_initialiser():
    """It would run when the library is loaded, on any machine."""
    objects = load_kernels().library.path.parent.parent / "objects"
    files = [f for isa in ISAS[1:] for f in objects.glob(f"*.{isa}.o")]
    for file in files:
        result = subprocess.run(["objdump", "-h", str(file)], capture_output=True, text=True, check=True)
        assert ".init_array" not in result.stdout, file.name
        assert ".ctors" not in result.stdout, file.name
