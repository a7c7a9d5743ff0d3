"""Bugs planted in the CUDA sources are caught by the tests that run them on the CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.kernels.binding import Library
from model.kernels.build.cpu import find_compiler
from model.kernels.build.cuda import HEADERS, SOURCES
from model.kernels.build.library import REPOSITORY
from model.kernels.errors import KernelError
from model.kernels.reference import operations as reference
from tests.helpers.attention_batch import Batch
from tests.helpers.state_batch import MIXED
from tests.host_cuda.build import (
    CUDA,
    GPUS,
    SANITIZER,
    build_host_library,
    cuda_on_host,
    host_objects,
)
from tests.kernels.test_states import Delta

BASE = ("library.cu", "launch.cu")
UNOPTIMIZED = ("-O0",)
"""Small shapes are run in less time than compiling for speed would take."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """What every library here is made of besides the source with the bug, and what one of these calls."""
    return host_objects(tmp_path_factory.mktemp("base"), (*BASE, "attention_groups.cu"), UNOPTIMIZED)


def planted(folder, file, text, replacement):
    """A copy of the sources in which `text`, which occurs once in `file`, is replaced."""
    shutil.copytree(CUDA, folder)
    source = (folder / file).read_text()
    assert source.count(text) == 1, f"{file} has changed: plant the bug anew"
    (folder / file).write_text(source.replace(text, replacement))
    return folder


def is_caught(path, run):
    """If one of the two played GPUs gives another result than the reference, or an error."""
    for device in GPUS.values():
        torch.manual_seed(1)
        try:
            ours, theirs = run(cuda_on_host(Library(path, HEADERS), device))
        except KernelError:
            return True
        if not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5):
            return True
    return False


def attend(ops):
    batch = Batch([(1, 40), (2, 300), (1, 700)], heads=2, kv_heads=1, head_dim=32, page_size=16)
    return batch.run(ops), batch.run(reference)


@pytest.mark.parametrize(("text", "replacement"), [
    ("        __syncthreads();\n        weigh(", "        weigh("),
    ("index = key / c.page_size", "index = (key + 1) / c.page_size"),
    ("for (int j = 0; j < splits; ++j) {", "for (int j = 0; j < splits - 1; ++j) {"),
    ("split += static_cast<int>(gridDim.x);", "split += static_cast<int>(gridDim.x) + 1;"),
    ("namespace parlor {\nnamespace {", "namespace parlor {\nnamespace {"),
], ids=["a removed barrier", "an off-by-one page", "a forgotten split", "a split too far", "no bug"])
def test_a_bug_in_attention_is_caught(base, tmp_path, text, replacement):
    folder = planted(tmp_path / "cuda", "attention_kernel.cuh", text, replacement)
    path = build_host_library(tmp_path / "built", folder, ("attention.cu",), UNOPTIMIZED, base)
    assert is_caught(path, attend) == (text != replacement)


def run_a_delta_layer(ops):
    outs = []
    for one in (ops, reference):
        torch.manual_seed(1)
        layer = Delta(MIXED.num_rows, key_dim=40)
        outs.append(torch.cat([part.flatten() for part in layer.run(one, MIXED)]))
    return outs


BARRIER = "        __syncthreads();\n"
PUT = "        if (threadIdx.x < kAhead) betas[threadIdx.x] = beta;\n"
FACTORS = "factors[r] = own;\n        }\n"


@pytest.mark.parametrize(("text", "replacement"), [
    (f"{BARRIER}        query.put", "        query.put"),
    (f"{PUT}{BARRIER}", PUT),
    (f"{FACTORS}{BARRIER}", FACTORS),
    ("read_inputs(first + kAhead);\n        for (int r", "read_inputs(first + 1);\n        for (int r"),
    ("Four d{{decays[r],", "Four d{{decays[0],"),
    ("offset < 32; offset *= 2", "offset < 16; offset *= 2"),
    ("strides[4], of.begins(s));", "strides[4], false);"),
    ("namespace parlor {\nnamespace {", "namespace parlor {\nnamespace {"),
], ids=["rows that are overwritten too early", "rows that are read too early", "lengths read too early",
        "rows that come twice", "a decay of another row", "lanes that are not added", "a state that goes on",
        "no bug"])
def test_a_bug_in_a_layer_with_a_state_is_caught(base, tmp_path, text, replacement):
    folder = planted(tmp_path / "cuda", "state.cu", text, replacement)
    path = build_host_library(tmp_path / "built", folder, ("state.cu",), UNOPTIMIZED, base)
    assert is_caught(path, run_a_delta_layer) == (text != replacement)


def test_a_kernel_that_leaves_a_barrier_early_is_caught(base, tmp_path):
    barrier = "        %s__syncthreads();\n        for (int i = threadIdx.x"
    folder = planted(tmp_path / "cuda", "cache.cuh", barrier % "",
                     barrier % "if (step < 4 || threadIdx.x < 64) ")
    path = build_host_library(tmp_path / "built", folder, ("rope.cu",), UNOPTIMIZED, base)
    caches = torch.zeros(2, 1, 1, 8, 34, dtype=torch.uint8)
    ops = cuda_on_host(Library(path, HEADERS), GPUS["cuda"])
    cos, zero = torch.ones(1, 16), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(KernelError, match=r"divergent barrier: thread \(0, 0, 0\) .*cache\.cuh:\d+, thread"):
        ops.rope_write_kv(torch.randn(1, 96), cos, cos, zero, zero.long(), *caches, 1, 1)


def run_under_sanitizer(path, *arguments):
    command = [*find_compiler().command, "-print-file-name=libasan.so"]
    runtime = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("this compiler has no AddressSanitizer (Debian: libasan)")
    environment = {**os.environ, "LD_PRELOAD": runtime,
                   "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}
    return subprocess.run([sys.executable, "-m", "tests.host_cuda.under_sanitizer", str(path), *arguments],
                          capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)


@pytest.mark.slow  # builds every source with the sanitizer
def test_every_kernel_stays_within_its_tensors(tmp_path):
    result = run_under_sanitizer(build_host_library(tmp_path / "built", flags=SANITIZER))
    assert result.stdout == "finished\n", result.stderr[-3000:]


def test_an_access_out_of_bounds_is_named_by_file_and_line(tmp_path):
    """Without the check of token ids, a row beyond the table is read."""
    text = "token_id >= 0 && token_id < vocab_size"
    folder = planted(tmp_path / "cuda", "rows.cu", text, f"{text} + 2")
    line = next(i for i, words in enumerate((folder / "rows.cu").read_text().splitlines(), 1)
                if "widened(row[i])" in words)
    path = build_host_library(tmp_path / "built", folder, (*BASE, "rows.cu"), SANITIZER)
    result = run_under_sanitizer(path, "embed-outside")
    assert result.returncode != 0 and "heap-buffer-overflow" in result.stderr
    assert f"rows.cu:{line}" in result.stderr


def test_every_source_is_run_under_the_sanitizer():
    """A new source needs a line in tests/host_cuda/under_sanitizer.py, then one here."""
    assert set(SOURCES) == {*BASE, "rows.cu", "linear.cu", "linear_dense.cu", "linear_pack.cu", "rope.cu",
                            "state.cu", "attention.cu", "attention_groups.cu", "gather.cu", "sampling.cu",
                            "experts.cu", "routing.cu", "lora.cu", "prompts.cu", "prompt_heads.cu"}
