"""The stand-in for CUDA finds what it is there to find: tiny kernels with one mistake each."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace

import pytest
import torch

from tests.helpers.attention_batch import Batch
from tests.host_cuda.build import CUDA, HostDevice, build_host_library, configure, cuda_on_host
from tests.kernels.test_linear import quantized_parts

KERNELS = {
    "exchange": """
        SHARED_ARRAY(float, values, 64);
        values[threadIdx.x] = threadIdx.x;
        __syncthreads();
        float v = values[63 - threadIdx.x] + 100 * warp_sum(1.0f) + 10000 * blockIdx.x;
        v = __shfl_xor_sync(0xffffffffu, v, 1);
        const bool is_even = threadIdx.x % 2 == 0;
        if (__ballot_sync(0xffffffffu, is_even) == 0x55555555u) out[blockIdx.x * 64 + threadIdx.x] = v;""",
    "missing_barrier": """
        SHARED_ARRAY(float, values, 64);
        values[threadIdx.x] = threadIdx.x;
        out[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x];""",
    "two_barriers": """
        if (threadIdx.x < 40) __syncthreads();  // here
        else __syncthreads();  // there""",
    "early_return": "if (threadIdx.x == 7) return; __syncthreads();",
    "missing_lane": "if (threadIdx.x != 3) out[0] = __shfl_sync(0xffffffffu, 1.0f, 0);",
    "copy": """
        SHARED_ARRAY(float, values, 4);
        if (threadIdx.x == 0) copy_async_16(values, out + 8), commit_copies(), wait_for_copies<0>();
        __syncthreads();
        if (threadIdx.x < 4) out[threadIdx.x] = values[threadIdx.x] + 1;""",
    "copy_read_early": """
        SHARED_ARRAY(float, values, 4);
        if (threadIdx.x > 0) return;
        copy_async_16(values, out + 8), commit_copies();
        out[0] = values[0] + 1;
        wait_for_copies<0>();""",
    "copy_left_behind": "SHARED_ARRAY(float, values, 4); copy_async_16(values, out + 8);",
    "dependent": "if (threadIdx.x < 60) wait_for_previous_kernel();",
    "turned": """
        SHARED_ARRAY(unsigned short, rows, 256);
        for (int i = 0; i < 8; ++i) rows[8 * threadIdx.x + i] = 8 * threadIdx.x + i;
        __syncthreads();
        uint32_t matrices[4];
        load_matrices_turned(matrices, rows + 8 * threadIdx.x);
        out[blockIdx.x * 32 + threadIdx.x] = blockIdx.x == 0 ? matrices[1] & 0xffff : matrices[2] >> 16;""",
    "dynamic": "DYNAMIC_SHARED(float, values); values[threadIdx.x] = 1; out[0] = values[0];",
}
SOURCE = """#include "launch.cuh"
using namespace parlor;
extern "C" PARLOR_API const char* said() { return cudaGetErrorString(cudaErrorLaunchFailure); }
""" + "".join(f"""
__global__ void kernel_{name}([[maybe_unused]] float* out) {{ {body}
}}
extern "C" PARLOR_API int {name}(float* out, int threads, int shared_bytes, int is_dependent) {{
    Device device;
    if (int error = device.read()) return error;
    cuda_queue queue{{nullptr, nullptr, 0, is_dependent}};
    return launch(device, kernel_{name}, dim3(2), dim3(threads), shared_bytes, &queue, out);
}}
""" for name, body in KERNELS.items())
AMPERE, REVERSED = HostDevice(compute_capability=80), HostDevice(is_reversed=True, compute_capability=80)
LAUNCH_FAILURE, TOO_LITTLE_MEMORY = 1719, 6
TICKETS = 65536


class Machine:
    def __init__(self, folder):
        folder.mkdir()
        (folder / "one.cu").write_text(SOURCE)
        (folder / "launch.cu").write_bytes((CUDA / "launch.cu").read_bytes())
        self.path = build_host_library(folder / "built", folder, ("one.cu", "launch.cu"))
        self.library = ctypes.CDLL(str(self.path))
        self.library.said.restype = ctypes.c_char_p

    def run(self, name, threads=64, *, shared_bytes=0, device=AMPERE, is_dependent=True):
        """(error, message, what two blocks of the kernel wrote)"""
        configure(self.path, device)
        out = (ctypes.c_float * (2 * threads))()
        error = getattr(self.library, name)(out, threads, shared_bytes, int(is_dependent))
        return error, self.library.said().decode(), list(out)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("tiny") / "kernels")


@pytest.mark.parametrize("device", [AMPERE, REVERSED], ids=["forward", "reversed"])
def test_threads_exchange_values_through_shared_memory_and_shuffles(machine, device):
    error, _, out = machine.run("exchange", device=device)
    assert error == 0
    assert out == [63 - (t ^ 1) + 3200 + 10000 * b for b in (0, 1) for t in range(64)]


@pytest.mark.parametrize("device", [AMPERE, REVERSED], ids=["forward", "reversed"])
def test_behind_a_missing_barrier_there_is_poison(machine, device):
    """Half of the threads read what others have not written yet: NaN, not the last block's values."""
    _, _, out = machine.run("missing_barrier", device=device)
    assert sum(math.isnan(value) for value in out) == 64


@pytest.mark.parametrize("device", [AMPERE, REVERSED], ids=["forward", "reversed"])
def test_matrices_come_turned_from_shared_memory(machine, device):
    """Lane 4 g + t has of each the rows 2 t and 2 t + 1 of column g; the lanes 8 i and following point at the
    rows of matrix i."""
    _, _, out = machine.run("turned", 32, device=device)
    lanes = [(g, t) for g in range(8) for t in range(4)]
    assert out == [8 * (8 + 2 * t) + g for g, t in lanes] + [8 * (16 + 2 * t + 1) + g for g, t in lanes]


def test_threads_at_different_barriers_are_named(machine):
    error, said, _ = machine.run("two_barriers")
    lines = SOURCE.splitlines()
    here, there = (next(i for i, line in enumerate(lines, 1) if mark in line)
                   for mark in ("// here", "// there"))
    assert error == LAUNCH_FAILURE
    assert "divergent barrier: thread (0, 0, 0) of block (0, 0, 0) waits at" in said
    assert f"one.cu:{here}, thread (63, 0, 0) of block (0, 0, 0) waits at" in said
    assert said.endswith(f"one.cu:{there}")


@pytest.mark.parametrize(("name", "thread"), [("early_return", 7), ("missing_lane", 3)])
def test_a_barrier_that_a_thread_never_reaches_is_found(machine, name, thread):
    error, said, _ = machine.run(name, 32)
    assert error == LAUNCH_FAILURE
    assert said.endswith(f"thread ({thread}, 0, 0) of block (0, 0, 0) has ended")


def test_copies_happen_when_they_are_waited_for(machine):
    assert machine.run("copy")[2][:4] == [1, 1, 1, 1]
    assert math.isnan(machine.run("copy_read_early", 8)[2][0])
    assert "ended before its asynchronous copies" in machine.run("copy_left_behind", 8)[1]


def test_a_dependent_kernel_must_wait(machine):
    error, said, _ = machine.run("dependent", device=HostDevice(compute_capability=90))
    assert error == LAUNCH_FAILURE
    assert said == ("thread (60, 0, 0) of block (0, 0, 0) of a dependent launch never waited for the "
                    "previous kernel")
    assert machine.run("dependent")[0] == 0
    assert machine.run("dependent", device=HostDevice(compute_capability=90), is_dependent=False)[0] == 0


def test_limits_of_the_device_are_kept(machine):
    assert machine.run("dynamic", 32, shared_bytes=60_000)[0] == 0
    small = HostDevice(compute_capability=75, max_dynamic_bytes=64 * 1024)
    assert machine.run("dynamic", 32, shared_bytes=70_000, device=small)[0] == TOO_LITTLE_MEMORY
    assert machine.run("dynamic", 2048)[0] == 1009


def test_the_driver_is_asked_once_for_a_kernel_and_a_gpu(machine):
    asked = machine.library.host_cuda_questions
    device = HostDevice(compute_capability=80, multiprocessors=5)
    before = asked()
    for _ in range(3):
        assert machine.run("dynamic", 32, shared_bytes=50_000, device=device)[0] == 0
    assert asked() == before + 1
    machine.run("dynamic", 32, shared_bytes=50_000, device=replace(device, multiprocessors=6))
    assert asked() == before + 2


def test_engines_on_one_gpu_leave_each_other_s_workspace_alone(host_cuda_library):
    """What one has staged and left to its last blocks, while the other computes; tickets are zero again."""
    one, other = (cuda_on_host(host_cuda_library, HostDevice()) for _ in range(2))
    other.workspace.fill_(77)
    weight = one.pack_linear(**quantized_parts(48, 256, 64, 4, "bytes"))
    out = torch.empty(9, 48)
    one.linear(torch.randn(9, 256), weight, out)
    Batch([(1, 300)], heads=2, kv_heads=1, head_dim=32, page_size=16).run(one)
    assert one.workspace.any() and not one.workspace[:4 * TICKETS].any()
    assert out.isfinite().all() and (other.workspace == 77).all()
