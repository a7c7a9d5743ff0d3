"""Count what nvcc makes of the GPU's products, and what decoding a token would take by that: without a GPU.

  python -m tools.kernel_counts                                    for an H200 and an RTX 4090
  python -m tools.kernel_counts --model llama-3-8b --json FILE

Needs nvcc, and cuobjdump with nvdisasm: of CUDA's toolkit, or nvidia-cuda-cuobjdump and -nvdisasm by pip.
Counted are the instructions of the loop over a warp's steps, and of layers with a state those of a row, which
a scheduler of a prompt's multiprocessor has one warp for. Times are predictions: the larger of reading a
weight, at the bandwidth or as fast as what is on its way allows, and of issuing its instructions, and a fixed
part for a kernel's beginning and end. What is copied before the kernel in front has ended is not in them.
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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from model.families.spec import Attention, Spec
from model.formats.synthetic import synthetic_config
from model.kernels.build import library
from model.kernels.build.cuda import FLAGS, HEADERS, find_nvcc
from model.kernels.errors import KernelBuildError
from model.network.modules import Group, layer_modules
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
    loaded_us: float = 0.6
    """Latency of the memory when it gives all it can; assumed."""
    doubles: int = 64
    """Operations in float64 of a multiprocessor in a cycle."""
    shared_bytes: int = 227 << 10
    """That a block can have."""
    cache_gigabytes_per_second: float = 5500.0
    """Of the L2 cache; assumed."""
    float16_teraflops: float = 790.0
    """Of products summed in float32 by cuBLAS, on random numbers."""


GPUS = (Gpu("H200", 132, 1.98, 4300.0, 0.25),
        Gpu("RTX 4090", 128, 2.52, 930.0, 0.3, doubles=2, shared_bytes=99 << 10,
            float16_teraflops=150.0))
SCHEDULERS, WARPS, BLOCKS_AT_ONCE = 4, 8, 2
KEPT_COLUMNS, ROUND_COLUMNS, ROUNDS_AT_ONCE = 4096, 1024, 4
"""Of a multiprocessor; of a block, and blocks of a multiprocessor; columns of a row that a block keeps, and
reads in a round, and how many of these at a time: as in cuda/multiply.cuh and linear.cuh."""
STEPS_AHEAD = {4: 3, 8: 1}
"""Steps that a warp copies ahead, by the bits of a code: one less than Variant::kStages."""


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
        loop = _innermost(lines, ("HMMA",))
        names = [text.split()[0] for _, text in loop]
        kinds = Counter(of.split(".")[0] for of in names)
        kernel, bits, columns, zeros, shares = variant.groups()
        yield Loop(kernel, int(bits), 8 * int(columns), _ZEROS[int(zeros)], shares == "1", len(loop),
                   sum(count for kind, count in kinds.items() if kind in _ALU), kinds["HMMA"],
                   _loads(names))


@dataclass(frozen=True)
class RowLoop:
    """What a warp does for a row of a sequence, in a kernel of a layer with a state; with the copy of a state
    that is kept for guesses, which is passed over where there are none."""

    kernel: str
    depth: int
    """Of the state's columns."""
    by_row: bool
    """A decay for each row of the state."""
    instructions: int
    shuffles: int
    loads: dict[str, int]


_ROW_KERNEL = re.compile(r"(gated_delta|mamba2)_kernelILi(\d+)E(?:Lb(\d)E)?")


def row_loops(code: str) -> Iterator[RowLoop]:
    """Of each kernel of matrix states: the innermost loop that adds up over lanes and stores results."""
    for name, lines in _functions(code):
        if kernel := _ROW_KERNEL.search(name):
            names = [text.split()[0] for _, text in _innermost(lines, ("SHFL", "STG"))]
            yield RowLoop(kernel[1], int(kernel[2]), kernel[3] == "1", len(names),
                          sum(of.startswith("SHFL") for of in names), _loads(names))


def _loads(names: list[str]) -> dict[str, int]:
    return dict(Counter(of for of in names if of.startswith(("LDG", "LDS", "LDL", "STL"))))


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


def _innermost(lines: list[tuple[int, str]], has: tuple[str, ...]) -> list[tuple[int, str]]:
    """The shortest stretch from a jump's target to the jump that has all these instructions in it."""
    places = {address: index for index, (address, _) in enumerate(lines)}
    best: list[tuple[int, str]] = []
    for index, (address, text) in enumerate(lines):
        target = re.match(r"BRA\S* .*?0x([0-9a-f]+)", text)
        first = places.get(int(target[1], 16)) if target else None
        if first is None or lines[first][0] >= address:
            continue
        loop = lines[first:index + 1]
        has_all = all(any(of.startswith(wanted) for _, of in loop) for wanted in has)
        if has_all and (not best or len(loop) < len(best)):
            best = loop
    return best


def compiled(source: str, architecture: int = 90) -> str:
    """The machine code of a file of cuda/; of linear.cu that takes half a minute."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "compiled.cubin"
        include = [f"-I{header.parent}" for header in HEADERS]
        command = [*find_nvcc().command, *FLAGS, *include, f"-arch=sm_{architecture}", "-cubin",
                   str(library.REPOSITORY / "cuda" / source), "-o", str(cubin)]
        subprocess.run(command, check=True)
        return machine_code(cubin, architecture)


def predict(loop: Loop, gpu: Gpu, n: int, k: int, group_size: int) -> dict[str, float]:
    """One product of one row: [n, k] weights; microseconds, and how much of the floor that is."""
    steps = n / 32 * k / 64
    bytes_read = steps * loop.bytes_of_step(group_size)
    floor = bytes_read / gpu.gigabytes_per_second / 1e3
    pairs = -(-n // 32)
    splits = max(1, gpu.multiprocessors // pairs)
    turns = -(-pairs // max(1, BLOCKS_AT_ONCE * gpu.multiprocessors // splits))
    blocks = -(-pairs // turns)
    of_block = WARPS * STEPS_AHEAD[loop.bits] * loop.bytes_of_step(group_size)
    reading = sum(active / pairs * bytes_read / min(gpu.gigabytes_per_second * 1e3,
                                                    active * splits * of_block / gpu.loaded_us)
                  for active in (min(blocks, pairs - turn * blocks) for turn in range(turns)))
    issue = steps * loop.cycles() / (gpu.multiprocessors * SCHEDULERS) / gpu.gigahertz / 1e3
    # Reading the row (again what is not kept), its sums, those of warps and splits.
    rounds = max(0, -(-(k - KEPT_COLUMNS) // (ROUNDS_AT_ONCE * ROUND_COLUMNS)))
    fixed = gpu.latency_us * (1 + rounds + 2) + 1.0  # the last is assumed: barriers, and adding up
    predicted = max(reading, issue) + fixed
    return {"n": n, "k": k, "megabytes": bytes_read / 1e6, "blocks": blocks * splits,
            "kilobytes_in_flight": blocks * splits / gpu.multiprocessors * of_block / 1e3,
            "floor_us": floor, "reading_us": reading, "issue_us": issue, "predicted_us": predicted,
            "share_of_floor": floor / predicted}


STATIC_BYTES, ROW_PADDING, ROWS_OF_TWO_BLOCKS = 2048, 32, 16
"""As in cuda/launch.cuh and multiply.cuh: of more rows a multiprocessor has one block."""


def predict_rows(loop: Loop, gpu: Gpu, n: int, k: int, group_size: int) -> dict[str, float]:
    """One product of as many rows as the loop is for, which are float16 already; microseconds. A scheduler is
    taken to issue an instruction a cycle, whether it has four warps or, of a block alone, two."""
    pairs, turns_of_slices = -(-n // 32), -(-k // (64 * WARPS))
    splits = max(1, gpu.multiprocessors // pairs)  # of 8 turns and more, or this is not exact
    ring = WARPS * (STEPS_AHEAD[loop.bits] + 1) * loop.bytes_of_step(group_size)

    def fits(slices: int, at_once: int) -> bool:
        rows = loop.rows * 2 * (64 * slices * -(-turns_of_slices // splits) + ROW_PADDING)
        return rows + ring + (slices > 1) * loop.rows * 512 <= gpu.shared_bytes / at_once - STATIC_BYTES

    slices = WARPS if loop.rows == 8 else next((count for count in (8, 4, 2) if fits(count, 1)), 1)
    at_once = BLOCKS_AT_ONCE if loop.rows <= ROWS_OF_TWO_BLOCKS and fits(slices, BLOCKS_AT_ONCE) else 1
    of_columns = splits * WARPS // slices
    turns = -(-pairs * slices // WARPS // max(1, at_once * gpu.multiprocessors // of_columns))
    bytes_read = pairs * 32 * k / WARP_WEIGHTS * loop.bytes_of_step(group_size)
    floor = bytes_read / gpu.gigabytes_per_second / 1e3
    issue = turns * at_once * k / 64 / splits * loop.cycles() / SCHEDULERS / gpu.gigahertz / 1e3
    left = 8 * n * loop.rows * of_columns if of_columns > 1 else 0
    adding = left / gpu.cache_gigabytes_per_second / 1e3
    return {"n": n, "k": k, "slices_of_block": slices, "floor_us": floor, "issue_us": issue,
            "adding_up_us": adding, "predicted_us": max(floor, issue) + adding + 3 * gpu.latency_us + 1.0}


BLOCK_KEYS, MAX_SPLITS, NUMBERS_AT_ONCE, BLOCKS_OF_MULTIPROCESSOR = 128, 64, 16, 4
GROUP_BLOCKS = 3
"""As in cuda/attention*."""
CONTEXTS = (1, 2048, 16384)


def predict_attention(attention: Attention, gpu: Gpu, keys: int) -> dict[str, float]:
    """Of one row in float16 with room for the longest context; microseconds. A block reads what of 128 keys
    and values is on its way at once, then the next; what comes before and behind it are its length, its
    pages, its query, and adding up splits. Of heads of 64 or 128 it reads 16 bytes a lane: for one query and
    for more than four keys and values at once, otherwise in four parts.
    """
    bytes_read = 4 * keys * attention.num_kv_heads * attention.head_dim
    floor = bytes_read / gpu.gigabytes_per_second / 1e3
    group = attention.num_heads // attention.num_kv_heads
    head_blocks = attention.num_kv_heads * -(-group // (1 if group == 1 else 4 if group <= 4 else 8))
    key_blocks = -(-keys // BLOCK_KEYS)
    of_split = -(-key_blocks // MAX_SPLITS)
    splits = -(-key_blocks // of_split)
    at_once = min(splits, max(4, -(-BLOCKS_OF_MULTIPROCESSOR * gpu.multiprocessors // head_blocks)))
    by_pages = attention.head_dim in (64, 128)
    blocks_at_once = BLOCKS_OF_MULTIPROCESSOR
    if by_pages and group > 4:  # keys and values, queries and weights in shared memory
        of_group = 4 * BLOCK_KEYS * attention.head_dim + 32 * (attention.head_dim + BLOCK_KEYS)
        blocks_at_once = max(1, min(GROUP_BLOCKS, gpu.shared_bytes // of_group))
    if by_pages:
        batches = 4 if 1 < group <= 4 else 1
        of_block = 4 * attention.head_dim * BLOCK_KEYS / batches
    else:
        batches = (attention.head_dim + min(keys, BLOCK_KEYS)) / NUMBERS_AT_ONCE
        of_block = 2 * BLOCK_KEYS * NUMBERS_AT_ONCE
    waves = max(1.0, head_blocks * at_once / gpu.multiprocessors / blocks_at_once)
    on_its_way = min(head_blocks * at_once, blocks_at_once * gpu.multiprocessors) * of_block
    reading = max(waves * -(-splits // at_once) * of_split * batches * gpu.memory_us,
                  bytes_read / on_its_way * gpu.loaded_us if keys > 1 else 0.0)
    fixed = gpu.latency_us * (5 + 3 * (splits > 1)) + 1.0  # the last is assumed
    return {"keys": keys, "megabytes": bytes_read / 1e6, "blocks": head_blocks * at_once, "floor_us": floor,
            "latency_us": reading, "predicted_us": max(floor, reading) + fixed}


SAMPLING_THREADS, SAMPLING_PASSES, SAMPLING_DOUBLES, L2_BYTES = 512, 5, 4, 64
"""As in cuda/sampling*: threads, each with 8 numbers on their way; passes over the vocabulary with top-p and
min-p (read, weigh, gather, pick, and a part again), and operations in float64 for a token that is light.
Bytes that a multiprocessor gets out of the L2 cache in a cycle."""
GUIDANCE_KERNELS, GUIDANCE_PASSES = 9, 6
"""torch's for a token that is guided, and passes over the vocabulary that one multiprocessor does: three for
each of two softmaxes. That they are like sampling's is assumed; the host's time for them is not there."""


def predict_rest(vocab_size: int, hidden_size: int, gpu: Gpu) -> dict[str, float]:
    """What is not a layer's product or attention; microseconds: looking up how queries and keys are rotated
    (a layer; the product does the rest), the output layer in float16, sampling one row, which one
    multiprocessor does, and guiding it, where it is guided."""
    head = 2 * vocab_size * hidden_size / gpu.gigabytes_per_second / 1e3
    batches = -(-vocab_size // (8 * SAMPLING_THREADS))
    of_pass = batches * gpu.latency_us + 8 * vocab_size / L2_BYTES / gpu.gigahertz / 1e3
    doubles = SAMPLING_DOUBLES * vocab_size / gpu.doubles / gpu.gigahertz / 1e3
    return {"rotation_of_a_layer_us": gpu.latency_us,
            "output_layer_us": head + 3 * gpu.latency_us + 1.0,
            "guidance_us": GUIDANCE_KERNELS * (4 * gpu.latency_us + 1.0) + GUIDANCE_PASSES * of_pass,
            "sampling_us": SAMPLING_PASSES * of_pass + doubles + 20 * gpu.latency_us}


PROMPT_ROWS = 2048
PROMPT_KERNELS = 10
"""Of a layer, with four products and torch's attention; each is taken to begin and end in a microsecond."""
ATTENTION_SHARE = 0.5
"""Of the products' rate that torch's attention reaches; assumed."""


def predict_prompt(spec: Spec, groups: Sequence[Group], loop: Loop, gpu: Gpu, rows: int,
                   group_size: int) -> dict[str, float]:
    """A prompt's first chunk in layers that go through float16, see cuda/prompts.cu; microseconds of a layer,
    and tokens a second of all layers with the weights kept in float16 and without."""
    attention, mlp = spec.attentions[0], spec.layers[0].mlp
    numbers = sum(group.n * group.k for group in groups)
    products = 2 * rows * numbers / gpu.float16_teraflops / 1e6
    attended = 2 * rows * (rows + 1) * attention.query_size / (ATTENTION_SHARE * gpu.float16_teraflops) / 1e6
    bytes_between = rows * (2 * 12 * spec.hidden_size + 6 * mlp.intermediate_size + 4 * attention.query_size
                            + 4 * attention.query_size + 2 * 6 * attention.key_size)
    between = bytes_between / gpu.gigabytes_per_second / 1e3
    # The weight is read, and written and read as float16.
    of_weight = loop.bytes_of_step(group_size) / WARP_WEIGHTS + 4
    dequantizing = numbers * of_weight / gpu.gigabytes_per_second / 1e3
    total = len(spec.layers) * (products + attended + between + PROMPT_KERNELS)
    return {"rows": rows, "products_us": products, "attention_us": attended, "between_us": between,
            "megabytes_between": bytes_between / 1e6, "dequantizing_us": dequantizing,
            "all_layers_us": total, "tokens_per_second": rows / total * 1e6,
            "tokens_per_second_without_copies": rows / (total + len(spec.layers) * dequantizing) * 1e6,
            "share_of_products": len(spec.layers) * products / total}


def report(model: str, group_size: int) -> dict[str, object]:
    loops = list(product_loops(compiled("linear.cu")))
    config = synthetic_config(model)
    one_row = [loop for loop in loops if (loop.bits, loop.rows, loop.zeros) == (4, 8, _ZEROS[0])]
    decoding = next(loop for loop in one_row if loop.shares_scale == (group_size % 64 == 0))
    by_rows = {loop.rows: loop for loop in loops if (loop.bits, loop.zeros, loop.shares_scale) ==
               (4, _ZEROS[0], decoding.shares_scale)}
    layers = len(config.spec.layers)
    groups = layer_modules(config.spec, config.names, 0)  # all layers are alike
    tables = {}
    for gpu in GPUS:
        rows = [predict(decoding, gpu, group.n, group.k, group_size) for group in groups]
        total = layers * sum(row["predicted_us"] for row in rows)
        attention = config.spec.attentions[0]
        rest = predict_rest(config.spec.vocab_size, config.spec.hidden_size, gpu)
        attended = [predict_attention(attention, gpu, keys) for keys in CONTEXTS]
        tokens = {one["keys"]: total + layers * (one["predicted_us"] + rest["rotation_of_a_layer_us"])
                  + rest["output_layer_us"] + rest["sampling_us"] for one in attended}
        many = {count: [predict_rows(loop, gpu, group.n, group.k, group_size) for group in groups]
                for count, loop in sorted(by_rows.items())}
        tables[gpu.name] = {"of_a_layer": rows, "all_layers_us": total,
                            "of_a_layer_by_rows": many,
                            "all_layers_us_by_rows": {
                                count: layers * sum(one["predicted_us"] for one in found)
                                for count, found in many.items()},
                            "attention_of_a_layer": attended, "rest": rest,
                            "prompt": predict_prompt(config.spec, groups, decoding, gpu, PROMPT_ROWS,
                                                     group_size),
                            "token_us_by_keys": tokens,
                            "floor_us": layers * sum(row["floor_us"] for row in rows),
                            "tokens_per_second_of_these_products": 1e6 / total}
    return {"what": "instructions of a warp's step of 2,048 weights in machine code for sm_90; predictions, "
                    "not measurements; nothing of the host is in them",
            "command": f"python -m tools.kernel_counts --model {model} --group-size {group_size}",
            "states": [asdict(loop) | {"row_us": {gpu.name: loop.instructions / gpu.gigahertz / 1e3
                                                  for gpu in GPUS}}
                       for loop in row_loops(compiled("state.cu"))],
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
    for loop in result["states"]:
        by_row = ", a decay for each row" if loop["by_row"] else ""
        print(f"{loop['kernel']} of {loop['depth']}{by_row}: {loop['instructions']} instructions a row")
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
        print("all layers: " + ", ".join(f"{us:.0f} us for {rows} rows"
                                         for rows, us in table["all_layers_us_by_rows"].items()))
        print(", ".join(f"{name} {us:.1f}" for name, us in table["rest"].items()))
        prompt = table["prompt"]
        print(f"a prompt of {prompt['rows']:,}: {prompt['all_layers_us'] / 1e3:.1f} ms, "
              f"{prompt['tokens_per_second']:,.0f} tokens/s ({prompt['share_of_products']:.0%} products), "
              f"without float16 copies {prompt['tokens_per_second_without_copies']:,.0f}; of a layer "
              f"{prompt['products_us']:.0f} us products, {prompt['attention_us']:.0f} attention, "
              f"{prompt['between_us']:.0f} between, {prompt['dequantizing_us']:.0f} dequantizing")
        print("a token: " + ", ".join(f"{us:.0f} us ({1e6 / us:.0f}/s) behind {keys:,} keys"
                                      for keys, us in table["token_us_by_keys"].items()))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
