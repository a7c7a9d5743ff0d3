"""The GPU's library: finding nvcc, what it says of every source, and a machine without a GPU."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from model.kernels.binding import Library
from model.kernels.build import cuda, library
from model.kernels.build.cuda import (
    ARCHITECTURES,
    HEADERS,
    SOURCES,
    CudaRecipe,
    architecture_flags,
    find_nvcc,
)
from model.kernels.cuda_kernels import CudaKernels
from model.kernels.errors import KernelBuildError, KernelError
from tools.kernel_counts import machine_code, product_loops, stretches

_MEMORY = r"\b(?:ld|st|atom|red)\.(?:volatile\.)?global\S*|\bcp\.async\.c[ag]\S*"


@pytest.fixture(scope="module")
def nvcc():
    try:
        return find_nvcc()
    except KernelBuildError as error:
        pytest.skip(str(error))


def test_every_cuda_source_is_listed():
    assert {path.name for path in (library.REPOSITORY / "cuda").glob("*.cu")} == set(SOURCES)


def test_a_missing_nvcc_is_one_clear_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda.shutil, "which", lambda name, path=None: None)
    with pytest.raises(KernelBuildError, match=r"^No CUDA compiler found .* pip install nvidia") as caught:
        find_nvcc()
    assert "\n" not in str(caught.value)


def test_sources_flags_compiler_and_architecture_change_the_hash(tmp_path):
    recipe = CudaRecipe(library.Compiler(("nvcc",), "13.0"), 90)
    other = tmp_path / "cuda"
    other.mkdir()
    (other / "library.cu").write_text("")
    digests = {recipe.digest(), replace(recipe, architecture=89).digest(), replace(recipe, flags=()).digest(),
               replace(recipe, compiler=library.Compiler(("nvcc",), "12.9")).digest(),
               replace(recipe, source_folder=other).digest()}
    assert len(digests) == 5
    assert recipe.digest() == replace(recipe).digest()


def test_without_nvcc_a_gpu_takes_what_was_compiled_for_it_or_for_one_below_it(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "REPOSITORY", tmp_path)
    monkeypatch.setattr(cuda.shutil, "which", lambda name, path=None: None)
    paths = {}
    for architecture in (75, 80, 86, 90):
        recipe = CudaRecipe(library.Compiler(("nvcc",), "13.0"), architecture)
        paths[architecture] = tmp_path / "build" / f"{recipe.name}-{recipe.digest()}" / library.LIBRARY_NAME
        paths[architecture].parent.mkdir(parents=True)
        paths[architecture].with_name(library.CONTENTS_NAME).write_text(recipe.contents())
        paths[architecture].touch()
    for architecture, taken in ((90, 90), (86, 86), (87, 86), (89, 86), (80, 80), (75, 75)):
        assert cuda.own_library(architecture) == paths[taken]
    for architecture in (70, 120, 100):  # another generation, or an older GPU
        with pytest.raises(KernelBuildError, match="No CUDA compiler found"):
            cuda.own_library(architecture)


@dataclass
class Compiled:
    said: str  # by nvcc, of all sources
    ptx: dict[str, str]  # of each source for compute capability 9.0
    objects: dict[str, Path]


@pytest.fixture(scope="module")
def compiled(nvcc, tmp_path_factory):
    """Every source for every architecture. One call a source: what runs on the host is compiled once."""
    folder = tmp_path_factory.mktemp("compiled")
    flags = [*cuda.FLAGS, *dict.fromkeys(f"-I{header.parent}" for header in cuda.HEADERS), "-Werror",
             "all-warnings", "--resource-usage"]
    # Nothing in the sources tells 8.0 from 8.6 and 8.9: the three are made of the same PTX.
    flags += [flag.replace("compute_86", "compute_80").replace("compute_89", "compute_80")
              for architecture in ARCHITECTURES for flag in architecture_flags(architecture)]
    command = [*nvcc.command, *flags, "--keep", "--keep-dir", "$out.kept", "-c", "$in", "-o", "$out",
               "> $out.log 2>&1 || (cat $out.log; false)"]
    ninja = ["ninja_required_version = 1.8", "rule compile", "  command = " + " ".join(command)]
    for source in SOURCES:
        (folder / f"{source}.o.kept").mkdir()
        ninja.append(f"build {source}.o: compile {library.REPOSITORY / 'cuda' / source}")
    (folder / "build.ninja").write_text("\n".join([*ninja, ""]))
    result = subprocess.run([library.find_ninja(), "-C", str(folder)], stdout=subprocess.PIPE, text=True,
                            check=False)
    assert result.returncode == 0, result.stdout
    ptx = {source: folder / f"{source}.o.kept" / f"{Path(source).stem}.compute_90.ptx" for source in SOURCES}
    return Compiled("".join((folder / f"{source}.o.log").read_text() for source in SOURCES),
                    {source: path.read_text() for source, path in ptx.items()},
                    {source: folder / f"{source}.o" for source in SOURCES})


@pytest.mark.slow  # nvcc takes a few seconds a source and architecture
def test_every_source_compiles_without_a_warning_and_no_kernel_spills(compiled):
    """On any architecture; each kernel's report names it, then the functions it calls, such as pow()."""
    kernels = re.split(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", compiled.said)[1:]
    used = {architecture: {} for architecture in ARCHITECTURES}
    for name, architecture, report in zip(kernels[::3], kernels[1::3], kernels[2::3], strict=True):
        used[int(architecture)][name] = re.findall(r"(\d+) bytes spill (?:stores|loads)", report)
        assert "Used" in report
    assert all(used.values()) and len({len(of_one) for of_one in used.values()}) == 1
    spilled = [(architecture, name, report) for architecture, of_one in used.items()
               for name, report in of_one.items() if set(report) != {"0"}]
    assert not spilled
    assert "warning" not in compiled.said


@pytest.mark.slow  # if it is the first of the two
def test_kernels_wait_for_the_one_before_them_before_they_touch_memory(compiled):
    """With dependent launches they may start earlier. Products then read weights, which nothing changes."""
    early = {}
    for text in compiled.ptx.values():
        for name, body in re.findall(r"\.entry (\w+)\((.*?)\n}", text, re.DOTALL):
            before, wait, _ = body.partition("griddepcontrol.wait")
            assert wait, name
            if accesses := re.findall(_MEMORY, before):
                early[name] = set(accesses)
    assert len(early) == 22 and all("multiply_kernel" in name for name in early), early
    assert set.union(*early.values()) == {"cp.async.cg.shared.global"}


@pytest.mark.slow  # if it is the first of them
@pytest.mark.parametrize("architecture", (75, 90))
def test_the_inner_loop_of_a_product_stays_as_short_as_it_was_counted(compiled, architecture):
    """As nvcc 13.0 makes it; a tenth more is allowed, as another nvcc may schedule otherwise."""
    try:
        loops = list(product_loops(machine_code(compiled.objects["linear.cu"], architecture)))
    except KernelBuildError as error:
        pytest.skip(str(error))
    assert len(loops) == 22
    for loop in loops:
        reads = "LDGSTS" if architecture >= 80 else "LDG"  # into shared memory, from Ampere on
        wide = [count for load, count in loop.loads.items() if load.startswith(reads) and ".128" in load]
        # Codes of both tiles, then scales with zero points: 16 bytes a lane, and nothing in smaller pieces.
        assert sum(wide) == 2 * loop.bits / 4 + 1
        assert not any(load.startswith("LDG") and ".128" not in load and load != "LDGDEPBAR"
                       for load in loop.loads)
        assert not any(load.startswith(("LDL", "STL")) for load in loop.loads)
    one_row = {(loop.bits, loop.zeros, loop.shares_scale): loop for loop in loops if loop.rows == 8}
    counted = {(4, "one zero point", True): (199, 84), (4, "one zero point", False): (213, 84),
               (4, "zero points of a byte", False): (230, 96),
               (8, "one zero point", True): (211, 92), (8, "one zero point", False): (225, 94)}
    for key, (instructions, alu) in counted.items():
        assert one_row[key].instructions <= 1.1 * instructions and one_row[key].alu <= 1.1 * alu, one_row[key]
    # 32 rows cost a third more than 8: the codes are made float16 once.
    many = {(loop.bits, loop.zeros, loop.shares_scale): loop for loop in loops if loop.rows == 32}
    for key, loop in many.items():
        assert loop.products == 4 * one_row[key].products, loop
        assert loop.instructions < 2 * one_row[key].instructions, loop


@pytest.mark.slow  # if it is the first of them
def test_keys_and_values_of_several_places_are_read_at_once(compiled):
    """A branch between two loads makes the second wait for the first."""
    try:
        code, in_groups = (machine_code(compiled.objects[source], 90)
                           for source in ("attention.cu", "attention_groups.cu"))
    except KernelBuildError as error:
        pytest.skip(str(error))
    of_one_query = stretches(code, "attention_kernelILi1ELi1ELi0ELb0E")  # float16, heads of any size
    counts = [stretch.count("LDG.E.U16") for stretch in of_one_query]
    assert sum(count == 16 for count in counts) == 2, counts
    # Heads of 64 and 128: by 16 bytes; for one query keys and values before the softmax.
    for name, wide in (("ILi1ELi1ELi128E", [32]), ("ILi1ELi1ELi64E", [16]), ("ILi1ELi4ELi128E", [16, 16]),
                       ("ILi1ELi4ELi64E", [8, 8])):
        found = [stretch.count("LDG.E.128") for stretch in stretches(code, f"attention_kernel{name}")]
        assert [count for count in found if count] == wide, (name, found)
    # More than four queries: a run's keys and values on their way at once, and products of the tensor cores,
    # two of each, in two stretches of at most so many instructions.
    for head_dim, most in ((64, 364), (128, 569)):
        found = [stretch for stretch in stretches(in_groups, f"attention_kernelILi1ELi8ELi{head_dim}E")
                 if any(name.startswith(("HMMA", "LDGSTS")) for name in stretch)]
        counts = [[sum(name.startswith(kind) for name in stretch) for kind in ("LDGSTS", "LDSM", "HMMA")]
                  for stretch in found]
        assert counts == [[head_dim // 4, head_dim // 8, head_dim // 4], [0, head_dim // 8, head_dim // 4]]
        assert sum(map(len, found)) <= 1.1 * most, (head_dim, [len(stretch) for stretch in found])


@pytest.mark.slow  # if it is the first of them
def test_the_vocabulary_is_read_several_tokens_at_a_time(compiled):
    """A multiprocessor reads it alone: one load after the other would take most of the time of sampling."""
    try:
        code = machine_code(compiled.objects["sampling.cu"], 90)
    except KernelBuildError as error:
        pytest.skip(str(error))
    counts = [sum(name in ("LDG.E", "LDG.E.64") for name in stretch)
              for stretch in stretches(code, "sampling_kernel")]
    assert sum(count >= 8 for count in counts) >= 8, counts


@pytest.mark.slow  # if it is the first of them
def test_prompts_are_prepared_by_wide_stores_and_several_loads_at_once(compiled):
    """Dequantized weights by 16 bytes; gathered float16 eight at a time, of global memory and no other."""
    try:
        dequantizing, gathering, staging, rotating = (
            machine_code(compiled.objects[source], 90)
            for source in ("linear_pack.cu", "gather.cu", "prompts.cu", "prompt_heads.cu"))
    except KernelBuildError as error:
        pytest.skip(str(error))
    stores = [name for stretch in stretches(dequantizing, "dequantize_kernel") for name in stretch
              if name.startswith("STG")]
    assert stores and all(".128" in name for name in stores)
    loads = [stretch.count("LDG.E.U16") for stretch in stretches(gathering, "gather_kernelILi1E")]
    assert loads.count(8) == 2, loads
    whole_pages = stretches(gathering, "gather_runs_kernel")
    for names in ((of for of in stretch if of.startswith(("LDG", "STG"))) for stretch in whole_pages):
        assert set(names) <= {"LDG.E", "LDG.E.128", "STG.E.128"}  # the first looks its page up
    assert [stretch.count("LDG.E.128") for stretch in whole_pages].count(4) == 2
    # What a thread keeps of a row is on its way before anything is stored.
    counts = [stretch.count("LDG.E.128") for stretch in stretches(staging, "add_stage_kernel")]
    assert 4 in counts and max(counts) == 4, counts
    counts = [stretch.count("LDG.E.128") for stretch in stretches(staging, "SiluRows")]
    assert 8 in counts, counts
    rotated = [stretch.count("LDG.E.128") for stretch in stretches(rotating, "rope_keep_kernel")]
    assert 2 in rotated and not any("STL" in name or "LDL" in name for code in (staging, rotating)
                                    for stretch in stretches(code, "kernel") for name in stretch)


def test_without_a_driver_the_library_loads_and_says_so(nvcc, tmp_path):
    lines, sources = [], ("library.cu", "launch.cu", "gather.cu")
    recipe = CudaRecipe(nvcc, 90, sources=sources)
    path = library.build_library(recipe, lambda line, share: lines.append(line), build_root=tmp_path)
    assert lines[-1].endswith("link") and len(lines) == len(sources) + 1
    if library.shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    caches, page = torch.zeros(2, 1, 1, 8, 4), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(KernelError, match=r"gather_pages: the GPU driver is missing .*\(error 35\)"):
        CudaKernels(Library(path, HEADERS), device="cpu").gather_pages(*caches, page, 8, 4)
