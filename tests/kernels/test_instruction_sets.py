"""Every instruction set in an engine, and the emulation of those that this machine lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import EngineConfig
from model.engine.loading import load_engine
from model.engine.request import TokenEvent
from model.kernels import load_kernels
from model.kernels.binding import load_library
from model.kernels.build import cpu
from model.kernels.build.cpu import X86_ISAS, CpuRecipe, find_compiler
from model.kernels.build.library import REPOSITORY, build_library
from model.kernels.cpu_kernels import CpuKernels
from model.network.place import Place
from tests.emulated_isa import FOLDER, be_a_machine_with, emulated_recipe, machine_isas
from tests.engine.test_network import REFERENCE_OPS
from tests.helpers.attention_batch import Batch
from tests.helpers.tiny_engine import NO_EOS, outcome, params, prompt, quantized_model
from tests.kernels.test_linear import ZEROS, multiply, quantized_parts
from tests.kernels.test_prompt_attention import attend

LENGTHS = (1, 31, 33, 100, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantized_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("changes", [{}, {"exact": True, "cache": "fp32"}, {"cache": "q4"}],
                         ids=["int8", "exact", "q4"])
def test_a_reply_is_the_same_alone_and_in_a_batch(folder: Path, ops: Any, changes: dict[str, Any]):
    settings = [params(seed=i, temperature=i % 3 * 0.5, max_new_tokens=12) for i in range(len(LENGTHS))]
    requests = [(prompt(length, seed=length), chosen, NO_EOS)
                for length, chosen in zip(LENGTHS, settings, strict=True)]
    places = [Place.on_host(ops, 1 << 30)]
    engine = load_engine(folder, EngineConfig(**changes, prefill_chunk=64), places=places)
    together = [outcome(request)[0] for request in [engine.submit(*each) for each in requests]]
    engine.close()
    engine = load_engine(folder, EngineConfig(**changes), places=places)
    alone = [outcome(engine.submit(*each))[0] for each in requests]
    engine.close()
    assert together == alone


@pytest.mark.parametrize("cache", ["fp16", "q8", "q4"])
def test_neither_chunks_nor_a_beginning_in_the_cache_change_a_bit(folder: Path, ops: Any, cache: str):
    """Of a prompt: all its rows are computed alike, with whatever a set has for them."""
    found: list[Any] = []
    for chunk in (32, 512):
        engine = load_engine(folder, EngineConfig(cache=cache, prefill_chunk=chunk),
                             places=[Place.on_host(ops, 1 << 30)])
        logits = engine.logits(prompt(150)).tolist()
        for cached in (0, 99):  # the second time the last token alone is computed
            request = engine.submit(prompt(100, seed=1), params(max_new_tokens=5), NO_EOS, logprobs=1)
            *events, finished = request.events()
            assert finished.stats.cached_tokens == cached
            found.append(([event for event in events if isinstance(event, TokenEvent)], logits))
        engine.close()
    assert all(each == found[0] for each in found)


def test_logits_are_those_of_plain_torch(folder: Path, ops: Any):
    logits = []
    for chosen in (ops, REFERENCE_OPS):
        engine = load_engine(folder, EngineConfig(exact=True, cache="fp32"),
                             places=[Place.on_host(chosen, 1 << 30)])
        logits.append(engine.logits(prompt(70)))
        engine.close()
    assert (logits[0] - logits[1]).abs().max() < 1e-5 * logits[1].abs().max()


# ---- the emulation -----------------------------------------------------------------------------------------


def test_two_libraries_in_a_process_share_no_state(tmp_path: Path):
    own = load_kernels(threads=2)
    best = own.supported_isas()[-1]
    other = CpuKernels(load_library(Path(shutil.copy2(own.library.path, tmp_path))))
    own.force_isa("plain")
    other.force_isa(best)
    other.set_threads(3)
    assert (own.isa, own.threads, other.isa, other.threads) == ("plain", 2, best, 3)
    table, token_ids = torch.randn(3, 50), torch.tensor([2, 0], dtype=torch.int32)
    for kernels in (own, other):
        out = torch.empty(2, 50)
        kernels.embed(table, token_ids, out)
        assert torch.equal(out, table[[2, 0]])
    own.force_isa(None)
    own.set_threads(2)


def products(kernels: CpuKernels, isa: str) -> list[torch.Tensor]:
    """Of weights of every kind with one instruction set: for any kernels the same numbers go in."""
    kernels.force_isa(isa)
    torch.manual_seed(1)
    outputs = []
    for bits, zeros, exact in [(b, z, e) for b in (4, 8) for z in ZEROS for e in (True, False)]:
        weight = kernels.pack_linear(**quantized_parts(50, 320, 64, bits, zeros, bias=True), exact=exact)
        outputs += [multiply(kernels, weight, torch.randn(m, 320), norm=torch.randn(320), eps=1e-5,
                             epilogue="silu_mul") for m in (1, 3, 7, 40)]
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        weight = kernels.pack_dense(torch.randn(50, 77).to(dtype))
        outputs.append(multiply(kernels, weight, torch.randn(9, 77)))
    for kind, head_dim, page_size in (("fp16", 80, 32), ("q8", 72, 24), ("q4", 128, 32)):
        batch = Batch([(1, 300), (3, 40)], heads=8, kv_heads=2, head_dim=head_dim, page_size=page_size,
                      kind=kind)
        outputs.append(batch.run(kernels))
    if isa == "amx":
        for bits, zeros in [(b, z) for b in (4, 8) for z in ZEROS]:
            weight = kernels.pack_linear(**quantized_parts(64, 1090, 100, bits, zeros, perm=True))
            outputs.append(torch.empty(45, 32))
            x, norm = torch.randn(45, 1090), torch.rand(1090)
            kernels.prompts.prompt_linear(x, weight, outputs[-1], norm, 1e-5, "silu_mul")
            if bits == 8:
                outputs.append(torch.empty(45, 64))
                kernels.prompts.prompt_linear(x, weight, outputs[-1], norm, 1e-5, precise=20)
        for kind, head_dim in (("fp16", 80), ("q8", 64), ("q4", 128)):
            batch = Batch([(37, 300)], heads=4, kv_heads=2, head_dim=head_dim, kind=kind)
            outputs.append(attend(kernels, batch, window=200, softcap=5.0, sinks=torch.randn(4)))
    kernels.force_isa(None)
    return outputs


@pytest.mark.parametrize("isa", X86_ISAS)
def test_a_process_can_be_a_machine_with_another_best_set(isa: str, monkeypatch: pytest.MonkeyPatch):
    """What pytest --isa does. The machine's own best stays as it is: AMD has AVX-512 without AVX-VNNI."""
    monkeypatch.setattr(cpu, "own_recipe", lambda compiler=None: CpuRecipe(find_compiler()))
    be_a_machine_with(isa)
    here = machine_isas()
    there = CpuKernels(load_library(cpu.own_library())).supported_isas()
    assert there == (here if isa == here[-1] else X86_ISAS[:X86_ISAS.index(isa) + 1])


RULES = r"""
#include <immintrin.h>

int main(int, char** arguments) {
    alignas(64) char memory[128] = {};
    alignas(64) uint8_t configuration[64] = {1};
    uint16_t* const row_bytes = reinterpret_cast<uint16_t*>(configuration + 16);
    uint8_t* const rows = configuration + 48;
    for (int tile = 0; tile < 4; ++tile) rows[tile] = 16, row_bytes[tile] = 64;
    row_bytes[3] = 32;
    switch (arguments[1][0]) {
        case 'a': _mm512_load_ps(memory + 4); break;
        case 'b': _tile_zero(0); break;
        case 'c': _tile_loadconfig(configuration); _tile_zero(4); break;
        case 'd': _tile_loadconfig(configuration); _tile_release(); _tile_zero(0); break;
        case 'e': rows[0] = 17; _tile_loadconfig(configuration); break;
        case 'f': row_bytes[0] = 65; _tile_loadconfig(configuration); break;
        case 'g': configuration[0] = 0; _tile_loadconfig(configuration); break;
        case 'h': _tile_loadconfig(configuration); _tile_dpbssd(0, 3, 1); break;
        case 'i': _tile_loadconfig(configuration); _tile_dpbssd(0, 1, 1); break;
        case 'j': _tile_loadconfig(configuration); _tile_dpbssd(0, 1, 2); _tile_release(); return 0;
    }
}
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("rules") / "rules.cpp"
    source.write_text(RULES)
    program = source.with_suffix("")
    options = ["-std=c++17", "-Wno-psabi", f"-I{FOLDER}"]
    subprocess.run([*find_compiler().command, *options, str(source), "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize(("case", "message"), [
    ("a", "no multiple of 64; bytes too far (4)"), ("b", "before the tiles are configured"),
    ("c", "that is not configured; tile (4)"), ("d", "before the tiles are configured"),
    ("e", "too many rows (17)"), ("f", "rows that are too long; bytes (65)"),
    ("g", "a palette other than 1 (0)"), ("h", "a row for 4 bytes of the left; tile (1)"),
    ("i", "three different tiles"), ("j", ""),
])
def test_what_the_processor_refuses_ends_the_program(rules: Path, case: str, message: str):
    result = subprocess.run([str(rules), case], capture_output=True, text=True, check=False)
    assert (result.returncode == 0) == (not message)
    assert message in result.stderr


@pytest.mark.slow  # compiles the kernels once more
def test_no_kernel_leaves_its_memory_and_an_emulated_one_equals_the_processors_to_the_bit():
    """Odd shapes on every set, under AddressSanitizer, whose library has to be loaded before Python; and the
    sets that are emulated beside the processor's own, where it has them."""
    command = [*find_compiler().command, "-print-file-name=libasan.so"]
    sanitizer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(sanitizer).is_absolute():
        pytest.skip("this compiler has no libasan.so")
    # A call for each access is compiled in half the time of code in its place.
    recipe = emulated_recipe("-fsanitize=address", "-fno-omit-frame-pointer",
                             "--param=asan-instrumentation-with-call-threshold=0")
    library = build_library(recipe, build_root=REPOSITORY / "build" / "sanitized")
    result = subprocess.run(
        [sys.executable, "-m", "tests.emulated_isa.odd_shapes", str(library)], cwd=REPOSITORY, check=False,
        capture_output=True, text=True,
        env={**os.environ, "LD_PRELOAD": sanitizer, "ASAN_OPTIONS": "detect_leaks=0"})
    assert result.returncode == 0, result.stderr[-5000:]
