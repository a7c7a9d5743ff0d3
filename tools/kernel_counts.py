"""Count what nvcc makes of the GPU's products, and what decoding a token would take by that: without a GPU.

  python -m tools.kernel_counts                                    for an H200 and an RTX 4090
  python -m tools.kernel_counts --model llama-3-8b --json FILE

Needs nvcc, and cuobjdump with nvdisasm: of CUDA's toolkit, or nvidia-cuda-cuobjdump and -nvdisasm by pip.
Counted are the instructions of the loop over a warp's steps. Times are predictions: the larger of reading a
weight at the bandwidth and of issuing its instructions, and a fixed part for a kernel's beginning and end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from model.families.spec import Attention
from model.formats.synthetic import synthetic_config
from model.kernels.build import library
from model.kernels.build.cuda import FLAGS, HEADERS, find_nvcc
from model.kernels.errors import KernelBuildError
from model.network.modules import layer_modules
from model.options import path_option

WARP_WEIGHTS = 2 * 16 * 64
"""Weights of two tiles of 16 outputs and 64 columns: a warp's step."""
_ALU = frozenset(["CS2R", "FLO", "FMNMX", "FSEL", "FSETP", "I2FP", "IABS", "IADD3", "IMNMX", "ISETP", "LEA",
                  "LOP3", "MOV", "PLOP3", "PRMT", "SEL", "SHF", "VIADD", "VIADDMNMX", "VIMNMX"])
"""Of the integer pipe, which takes an instruction every other cycle; IMAD goes to the floats'."""
_VARIANT = re.compile(r"(multiply|expert)_kernelI\w*?VariantILi(\d)ELi(\d)ELi(\d)ELb(\d)E")
_ZEROS = ("one zero point", "zero points of a byte", "zero points of float16")


@dataclass(frozen=True)
class Loop:
    """The innermost loop of a kernel that has products of the tensor cores."""

    kernel: str
    bits: int
    rows: int
    zeros: str
    shares_scale: bool
    instructions: int
    alu: int
    products: int
    loads: dict[str, int]

    def bytes_of_step(self, group_size: int) -> float:
        """Codes, scales and zero points that a warp reads."""
        of_group = 2 + _ZEROS.index(self.zeros)  # bytes of a scale, and of a zero point
        return WARP_WEIGHTS * (self.bits / 8 + of_group / group_size)

    def cycles(self) -> int:
        """Of a scheduler, which issues one instruction a cycle."""
        return max(self.instructions, 2 * self.alu)


@dataclass(frozen=True)
class Gpu:
    name: str
    multiprocessors: int
    gigahertz: float
    gigabytes_per_second: float
    """That is reached, not that of the data sheet."""
    memory_us: float
    """Latency of the memory."""
    latency_us: float = 0.13
    """Of the L2 cache."""


GPUS = (Gpu("H200", 132, 1.98, 4300.0, 0.25), Gpu("RTX 4090", 128, 2.52, 930.0, 0.3))
SCHEDULERS, WARPS, BLOCKS_AT_ONCE, KEPT_COLUMNS, ROUND_COLUMNS = 4, 16, 2, 4096, 2048
"""Of a multiprocessor; of a block, and blocks of a multiprocessor; columns of a row that a block keeps, and
reads in a round: as in cuda/multiply.cuh and linear.cuh."""


def find_disassembler() -> Path:
    """cuobjdump of the PATH, of /usr/local/cuda or of its package here; KernelBuildError if there is none."""
    candidates = [shutil.which("cuobjdump"), shutil.which("cuobjdump", path="/usr/local/cuda/bin")]
    if spec := importlib.util.find_spec("nvidia"):
        candidates += [str(path) for folder in spec.submodule_search_locations or ()
                       for path in Path(folder).glob("*/bin/cuobjdump")]
    for candidate in filter(None, candidates):
        if Path(candidate).with_name("nvdisasm").exists() or shutil.which("nvdisasm"):
            return Path(candidate)
    raise KernelBuildError("No cuobjdump with nvdisasm found; install CUDA's toolkit, or "
                           "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")


def machine_code(path: Path, architecture: int) -> str:
    """That of an object file or cubin for one compute capability, such as 90."""
    tool = find_disassembler()
    environment = {**os.environ, "PATH": f"{tool.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    tool.chmod(tool.stat().st_mode | 0o111)  # wheels lose it
    return subprocess.run([str(tool), "-sass", "-arch", f"sm_{architecture}", str(path)], env=environment,
                          stdout=subprocess.PIPE, text=True, check=True).stdout


def product_loops(code: str) -> Iterator[Loop]:
    """The loop over a warp's steps of each kernel that has a Variant, from what cuobjdump -sass prints."""
    for name, lines in _functions(code):
        variant = _VARIANT.search(name)
        if not variant:
            continue
        loop = _innermost(lines)
        names = [text.split()[0] for _, text in loop]
        kinds = Counter(of.split(".")[0] for of in names)
        kernel, bits, columns, zeros, shares = variant.groups()
        yield Loop(kernel, int(bits), 8 * int(columns), _ZEROS[int(zeros)], shares == "1", len(loop),
                   sum(count for kind, count in kinds.items() if kind in _ALU), kinds["HMMA"],
                   dict(Counter(of for of in names if of.startswith(("LDG", "LDS", "LDL", "STL")))))


def stretches(code: str, kernel: str) -> list[list[str]]:
    """The instructions' names in each stretch of a kernel between branches; `kernel`: of its name."""
    found = []
    for name, lines in _functions(code):
        if kernel in name:
            text = " ".join(instruction.split()[0] for _, instruction in lines)
            found += [stretch.split() for stretch in re.split(r"\b(?:BRA|BAR|EXIT)\b", text)]
    return found


def _functions(code: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """(name, [(address, instruction without its predicate)])"""
    for name, body in re.findall(r"Function : (\S+)\n(.*?)(?=\n\s*Function :|\Z)", code, re.DOTALL):
        yield name, [(int(address, 16), re.sub(r"^@!?U?P\w+\s+", "", text.strip()))
                     for address, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", body)]


def _innermost(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The shortest stretch from a jump's target to the jump that has products in it."""
    places = {address: index for index, (address, _) in enumerate(lines)}
    best: list[tuple[int, str]] = []
    for index, (address, text) in enumerate(lines):
        target = re.match(r"BRA\S* .*?0x([0-9a-f]+)", text)
        first = places.get(int(target[1], 16)) if target else None
        if first is None or lines[first][0] >= address:
            continue
        loop = lines[first:index + 1]
        if any(of.startswith("HMMA") for _, of in loop) and (not best or len(loop) < len(best)):
            best = loop
    return best


def count_products(architecture: int = 90) -> list[Loop]:
    """Compile cuda/linear.cu and count; about 10 s."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "linear.cubin"
        include = [f"-I{header.parent}" for header in HEADERS]
        command = [*find_nvcc().command, *FLAGS, *include, f"-arch=sm_{architecture}", "-cubin",
                   str(library.REPOSITORY / "cuda" / "linear.cu"), "-o", str(cubin)]
        subprocess.run(command, check=True)
        return list(product_loops(machine_code(cubin, architecture)))


def predict(loop: Loop, gpu: Gpu, n: int, k: int, group_size: int) -> dict[str, float]:
    """One product of one row: [n, k] weights; microseconds, and how much of the floor that is."""
    steps = n / 32 * k / 64
    bytes_read = steps * loop.bytes_of_step(group_size)
    floor = bytes_read / gpu.gigabytes_per_second / 1e3
    issue = steps * loop.cycles() / (gpu.multiprocessors * SCHEDULERS) / gpu.gigahertz / 1e3
    # Reading the row (again what is not kept), its sums, those of warps and splits.
    rounds = max(0, -(-(k - KEPT_COLUMNS) // ROUND_COLUMNS))
    fixed = gpu.latency_us * (1 + rounds + 2) + 1.0  # the last is assumed: barriers, and adding up
    blocks = min(n / 32, BLOCKS_AT_ONCE * gpu.multiprocessors)
    splits = max(1, gpu.multiprocessors // int(-(-n // 32)))
    of_block = WARPS * loop.bytes_of_step(group_size)
    return {"n": n, "k": k, "megabytes": bytes_read / 1e6, "blocks": blocks * splits,
            "kilobytes_in_flight": blocks * splits / gpu.multiprocessors * of_block / 1e3,
            "floor_us": floor, "issue_us": issue, "predicted_us": max(floor, issue) + fixed,
            "share_of_floor": floor / (max(floor, issue) + fixed)}


BLOCK_KEYS, MAX_SPLITS, NUMBERS_AT_ONCE, BLOCKS_OF_MULTIPROCESSOR = 128, 64, 16, 4
"""As in cuda/attention.cu."""
CONTEXTS = (1, 2048, 16384)


def predict_attention(attention: Attention, gpu: Gpu, keys: int) -> dict[str, float]:
    """Of one row in float16 with room for the longest context; microseconds. A block reads a batch of keys,
    then the next; what comes before and behind it are its length, its pages, its query, and adding up splits.
    """
    bytes_read = 4 * keys * attention.num_kv_heads * attention.head_dim
    floor = bytes_read / gpu.gigabytes_per_second / 1e3
    group = attention.num_heads // attention.num_kv_heads
    head_blocks = attention.num_kv_heads * -(-group // (1 if group == 1 else 4 if group <= 4 else 8))
    key_blocks = -(-keys // BLOCK_KEYS)
    of_split = -(-key_blocks // MAX_SPLITS)
    splits = -(-key_blocks // of_split)
    at_once = min(splits, max(4, -(-BLOCKS_OF_MULTIPROCESSOR * gpu.multiprocessors // head_blocks)))
    waves = max(1.0, head_blocks * at_once / gpu.multiprocessors / BLOCKS_OF_MULTIPROCESSOR)
    batches = (attention.head_dim + min(keys, BLOCK_KEYS)) / NUMBERS_AT_ONCE
    reading = waves * -(-splits // at_once) * of_split * batches * gpu.memory_us
    fixed = gpu.latency_us * (5 + 3 * (splits > 1)) + 1.0  # the last is assumed
    return {"keys": keys, "megabytes": bytes_read / 1e6, "blocks": head_blocks * at_once, "floor_us": floor,
            "latency_us": reading, "predicted_us": max(floor, reading) + fixed}


def report(model: str, group_size: int) -> dict[str, object]:
    loops = count_products()
    config = synthetic_config(model)
    one_row = [loop for loop in loops if (loop.bits, loop.rows, loop.zeros) == (4, 8, _ZEROS[0])]
    decoding = next(loop for loop in one_row if loop.shares_scale == (group_size % 64 == 0))
    layers = len(config.spec.layers)
    groups = layer_modules(config.spec, config.names, 0)  # all layers are alike
    tables = {}
    for gpu in GPUS:
        rows = [predict(decoding, gpu, group.n, group.k, group_size) for group in groups]
        total = layers * sum(row["predicted_us"] for row in rows)
        attention = config.spec.attentions[0]
        tables[gpu.name] = {"of_a_layer": rows, "all_layers_us": total,
                            "attention_of_a_layer": [predict_attention(attention, gpu, keys)
                                                     for keys in CONTEXTS],
                            "floor_us": layers * sum(row["floor_us"] for row in rows),
                            "tokens_per_second_of_these_products": 1e6 / total}
    return {"what": "instructions of a warp's step of 2,048 weights in machine code for sm_90; predictions, "
                    "not measurements: no output layer and no sampling in them",
            "command": f"python -m tools.kernel_counts --model {model} --group-size {group_size}",
            "loops": [asdict(loop) | {"bytes_of_step": loop.bytes_of_step(group_size)} for loop in loops],
            "model": model, "gpus": tables}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.kernel_counts", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="llama-2-7b", help="a shape of tools.benchmark --synthetic")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--json", type=path_option, metavar="FILE", help="write it there, too")
    options = parser.parse_args()
    try:
        result = report(options.model, options.group_size)
    except KernelBuildError as error:
        print(error, file=sys.stderr)
        return 1
    for loop in result["loops"]:
        scale = "a scale for 64 columns" if loop["shares_scale"] else "two scales"
        print(f"{loop['bits']} bits, {loop['rows']:2} rows, {loop['zeros']}, {scale}: "
              f"{loop['instructions']} instructions, {loop['alu']} ALU, {loop['products']} products")
    for name, table in result["gpus"].items():
        print(f"\n{name:10}{'n':>7} {'k':>6} {'MB':>6} {'blocks':>7} {'KB/SM':>6} {'floor us':>9} "
              f"{'issue us':>9} {'predicted':>10}")
        for row in table["of_a_layer"]:
            print(f"{row['n']:17} {row['k']:6} {row['megabytes']:6.1f} {row['blocks']:7.0f} "
                  f"{row['kilobytes_in_flight']:6.0f} {row['floor_us']:9.1f} {row['issue_us']:9.1f} "
                  f"{row['predicted_us']:10.1f}")
        print(f"all layers: {table['all_layers_us']:.0f} us of a floor of {table['floor_us']:.0f}, "
              f"{table['tokens_per_second_of_these_products']:.0f} tokens/s if there were nothing else")
        for row in table["attention_of_a_layer"]:
            print(f"attention to {row['keys']:6,} keys: {row['blocks']:4.0f} blocks, "
                  f"{row['predicted_us']:.1f} us of a floor of {row['floor_us']:.1f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
