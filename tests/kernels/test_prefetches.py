"""The prefetches of the kernels are in their machine code: gcc takes a function that only prefetches for one
without effect, and once dropped every call of it, which made attention slower by a third and no result wrong.

Looked for is the word of a cache kind or of a kind of weights in the names of functions; exact numbers are
the compiler's business. A kernel that gets another name gets it here as well.
"""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from model.kernels.build.cpu import CpuRecipe, find_compiler
from model.kernels.build.library import build_library

FAMILIES = {
    "avx2": (r"NumberBlocks<unsigned short>", r"NumberBlocks<float>", r"CodeBlocks<8>", r"CodeBlocks<4>",
             r"\w*dense\w*.*linear_weight", r"\w*rounded\w*.*linear_weight", r"\w*exact\w*.*linear_weight",
             r"group_blocks.*linear_weight", r"four_bit_blocks.*linear_weight",
             r"unpack_units.*linear_weight", r"add_span<.*SpanRows"),
    "avx_vnni": (r"\w*rounded\w*.*linear_weight", r"unpack_units.*linear_weight", r"add_span<.*SpanRows"),
    "avx512": (r"NumberBlocks<unsigned short>", r"NumberBlocks<float>", r"CodeBlocks<8>", r"CodeBlocks<4>",
               r"\w*dense\w*.*linear_weight", r"\w*rounded\w*.*linear_weight", r"\w*exact\w*.*linear_weight",
               r"unpack_units.*linear_weight", r"add_span<.*SpanRows"),
    "amx": (r"\w+.*linear_weight",),
}


@functools.cache
def prefetches() -> Counter[str]:
    """How many instructions that prefetch each function has; the names of all functions are keys."""
    tool = shutil.which("objdump")
    if tool is None:
        pytest.skip("objdump is missing; it comes with g++'s binutils")
    said = subprocess.run([tool, "--disassemble", "--demangle", "--no-show-raw-insn",
                           str(build_library(CpuRecipe(find_compiler())))],
                          capture_output=True, text=True, check=True).stdout
    found: Counter[str] = Counter()
    function = ""
    for line in said.splitlines():
        if head := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            function = head[1]
            found[function] += 0
        elif "\tprefetch" in line:
            found[function] += 1
    return found


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64",
                    reason="reads the x86-64 code of a Linux library")
@pytest.mark.parametrize(("isa", "family"), [(isa, each) for isa, all_ in FAMILIES.items() for each in all_])
def test_the_compiler_keeps_the_prefetches_of_each_kind_of_kernel(isa: str, family: str):
    wanted = re.compile(f"parlor::{isa}::.*{family}")
    counts = [count for name, count in prefetches().items() if wanted.search(name)]
    assert counts, "no function is named so any more: give its new name here"
    assert sum(counts) > 0, f"no prefetch is left in any of {len(counts)} functions"
