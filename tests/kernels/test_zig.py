"""Without g++ and clang++ the kernels are compiled by Zig's clang, from PyPI: the same numbers come out."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from model.kernels import load_kernels
from model.kernels.binding import load_library
from model.kernels.build.cpu import ZIG, CpuRecipe, built_isas, find_compiler
from model.kernels.build.library import REPOSITORY, Compiler, build_library
from model.kernels.cpu_kernels import CpuKernels
from model.kernels.errors import KernelBuildError
from tests.kernels.test_instruction_sets import products


@pytest.fixture
def own() -> CpuKernels:
    """Those of the machine's compiler, which has to be found still."""
    return load_kernels(threads=2)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """A PATH without one."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_another_compiler_zigs_is_found_and_one_that_was_asked_for_is_not_replaced(no_compiler):
    assert find_compiler().command[:4] == (sys.executable, "-m", "ziglang", "c++")
    assert "clang" in find_compiler().version
    with pytest.raises(KernelBuildError, match="looked for g"):
        find_compiler("g++")


def test_zig_knows_the_dot_products_of_arm():
    arm = Compiler((*ZIG, "-target", "aarch64-linux-musl"), "clang")
    assert built_isas(arm, machine="arm64") == ("plain", "dotprod", "i8mm")


@pytest.mark.slow  # compiles the kernels once more
def test_a_library_of_zigs_has_every_instruction_set_and_the_same_results(own, no_compiler):
    recipe = CpuRecipe(find_compiler())
    # Compiled in a quarter of the time; without optimization Zig would also add checks of its own.
    recipe = replace(recipe, flags=(*recipe.flags, "-O0", "-fno-sanitize=undefined"))
    zig = CpuKernels(load_library(build_library(recipe, build_root=REPOSITORY / "build" / "zig")))
    zig.set_threads(2)
    assert zig.supported_isas() == own.supported_isas()
    for isa in own.supported_isas():
        assert all(map(torch.equal, products(own, isa), products(zig, isa))), isa

