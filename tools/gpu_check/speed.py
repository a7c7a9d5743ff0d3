"""A synthetic model's speed and memory on a GPU, beside the limits that are measured in the same run.

    python -m tools.gpu_check.speed --shape llama-2-7b --out llama-2-7b.json

A share is what was reached of the least time that bytes (at the bandwidth of a copy) and operations (at the
rate of an 8192 x 8192 x 8192 float16 product of random numbers) take. Linear layers are measured beside
torch's _weight_int4pack_mm on the same shapes, several weights in turn, so that no cache holds them.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch

from model.config import EngineConfig
from model.devices import open_places
from model.engine.loading import synthetic_engine
from model.formats.synthetic import GROUP_SIZE, SHAPES, synthetic_config
from model.kernels import load_kernels
from model.kernels.crossover import milliseconds
from model.model_config import ModelConfig
from model.network.modules import layer_modules
from model.options import path_option
from tools.benchmark.cases import Case, Runner
from tools.benchmark.limits import ModelWork, Rates, Work
from tools.gpu_check.kernels import graphed, measure_kernels, random_weight

CASES = (Case(prompt=2048), Case(steps=128), Case(context=2048, steps=128), Case(batch=8, steps=64),
         Case(batch=32, steps=32))
DECODING = (Case(steps=128), Case(context=2048, steps=128))
ROWS = (1, 4, 8, 16, 32, 64)
KINDS = (("one zero point", 128), ("byte zero points", GROUP_SIZE), ("act-order", GROUP_SIZE))
"""Of weights beside those that models are made of here, and their group sizes."""
REPEATS = 3
_COPY_BYTES = 1 << 30
_PRODUCT = 8192
_WEIGHT_BYTES = 256 << 20  # of weights in turn: several times what a cache holds


def rates() -> Rates:
    """Bandwidth counts bytes read and bytes written."""
    source, target = (torch.randint(255, (_COPY_BYTES,), dtype=torch.uint8, device="cuda") for _ in range(2))
    copied = 2 * _COPY_BYTES / milliseconds(lambda: target.copy_(source)) / 1e6
    a, b = (torch.randn(_PRODUCT, _PRODUCT, device="cuda", dtype=torch.float16) for _ in range(2))
    out = torch.empty_like(a)
    product = 2 * _PRODUCT ** 3 / milliseconds(lambda: torch.mm(a, b, out=out)) / 1e9
    return Rates(copied, product)


def measure_engine(shape: str, limits: Rates, cases: tuple[Case, ...], config: EngineConfig,
                   kernels_wait: bool, note: Callable[[dict[str, Any]], None]) -> None:
    """`note` hears what is known after every case. kernels_wait: none starts before the one in front ends."""
    length = max(case.length for case in cases)
    before = torch.cuda.mem_get_info()[0]
    places = open_places(config)
    for place in places:
        place.ops.is_dependent = not kernels_wait
    engine = synthetic_engine(shape, config, places=places)
    try:
        info, found = engine.describe(), []
        plan = {"weights": engine.plan.weight_bytes, "cache": engine.plan.cache_bytes,
                "scratch": engine.plan.scratch_bytes}
        memory = {"loaded_bytes": before - torch.cuda.mem_get_info()[0], "planned": plan,
                  "one_context_bytes": _one_context(info, length)}
        model, runner = ModelWork.of(engine), Runner(engine)
        for case in cases:
            runner.prepare(case)
            speed = statistics.median(runner.run(case).tokens_per_second for _ in range(REPEATS))
            work = model.prompt(case.prompt) if case.prompt else \
                model.decoding(max(case.context, 1), case.batch, case.steps)
            limit = (case.prompt or case.batch * case.steps) / limits.least_seconds(work)
            found.append({"what": str(case), "prompt": case.prompt, "context": case.context,
                          "batch": case.batch, "tokens_per_second": speed, "limit": limit,
                          "share": speed / limit, "bound": limits.bound(work)})
            print(f"{case!s:28}{speed:12,.1f} tokens/s, {speed / limit:.0%} of the limit", flush=True)
            memory["peak_bytes"] = before - torch.cuda.mem_get_info()[0]
            note({"model": info, "cases": found, "memory": memory})
    finally:
        engine.close()


def _one_context(info: dict[str, Any], length: int) -> int:
    """Weights and the cache of one conversation of full length."""
    return int(info["weight_bytes"] + info["cache_bytes"] / info["cache_tokens"] * length)


def measure_linear(config: ModelConfig, limits: Rates) -> list[dict[str, Any]]:
    """Microseconds of each linear layer of the shape, by rows: ours, and torch's int4 kernel."""
    kernels, results = load_kernels("cuda"), []
    for group in layer_modules(config.spec, config.names, 0):
        n, k = group.n, group.k
        count = max(1, _WEIGHT_BYTES // (n * k // 2))
        ours = [random_weight(kernels, n, k, GROUP_SIZE) for _ in range(count)]
        theirs, problem = _int4pack(n, k, count)
        for rows in ROWS:
            row = _measured(kernels, ours, rows, limits, f"groups of {GROUP_SIZE}")
            try:
                x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
                row["int4pack_microseconds"] = _microseconds_of(theirs, x)
            except (RuntimeError, IndexError) as error:  # none of them could be made, or not captured
                row["int4pack_problem"] = problem or str(error).splitlines()[0][:160]
            results.append(row)
        for kind, size in KINDS:
            others = [random_weight(kernels, n, k, size, kind) for _ in range(count)]
            results.append(_measured(kernels, others, 1, limits, f"{kind}, groups of {size}"))
    return results


def _measured(kernels: Any, weights: list[Any], rows: int, limits: Rates, kind: str) -> dict[str, Any]:
    n, k = weights[0].n, weights[0].k
    x, out = torch.randn(rows, k, device="cuda"), torch.empty(rows, n, device="cuda")

    def run() -> None:
        for weight in weights:
            kernels.linear(x, weight, out)

    work = Work(weights[0].nbytes + 4 * rows * (n + k), 2 * rows * n * k)
    floor = limits.least_seconds(work) * 1e6
    taken = milliseconds(graphed(run)) * 1000 / len(weights)
    return {"n": n, "k": k, "rows": rows, "kind": kind, "microseconds": taken, "floor": floor,
            "share": floor / taken}


def _microseconds_of(products: list[Callable[[torch.Tensor], Any]], x: torch.Tensor) -> float:
    products[0](x)
    return milliseconds(graphed(lambda: [product(x) for product in products])) * 1000 / len(products)


def _int4pack(n: int, k: int, count: int) -> tuple[list[Callable[[torch.Tensor], Any]], str]:
    """torch's int4 product with `count` weights of this shape, or why there is none."""
    made = []
    try:
        for _ in range(count):
            codes = torch.randint(0, 255, (n, k // 2), dtype=torch.uint8, device="cuda")
            packed = torch.ops.aten._convert_weight_to_int4pack(codes, 8)
            scales = torch.rand(k // GROUP_SIZE, n, 2, dtype=torch.bfloat16, device="cuda")
            made.append(lambda x, packed=packed, scales=scales: torch.ops.aten._weight_int4pack_mm(
                x, packed, GROUP_SIZE, scales))
        made[0](torch.zeros(1, k, dtype=torch.bfloat16, device="cuda"))
    except (RuntimeError, NotImplementedError) as error:
        return [], str(error).splitlines()[0][:160]
    return made, ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check.speed")
    parser.add_argument("--shape", choices=tuple(SHAPES), required=True)
    parser.add_argument("--cache", default="fp16")
    parser.add_argument("--kernels", action="store_true", help="the kernels one by one, too")
    parser.add_argument("--decoding", action="store_true", help="one request alone, no prompts")
    parser.add_argument("--kernels-wait", action="store_true", help="none starts before the last has ended")
    parser.add_argument("--longest", action="store_true", help="with room for the longest context")
    parser.add_argument("--out", type=path_option, required=True)
    options = parser.parse_args(arguments)
    limits = rates()
    report = {"shape": options.shape, "read_gb_s": limits.read_gb_s, "products_top_s": limits.products_top_s}

    def note(more: dict[str, Any]) -> None:  # at once, since time may be up
        report.update(more)
        unfinished = options.out.with_name(f"{options.out.name}.tmp")
        unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(options.out)

    cases = DECODING if options.decoding else CASES
    length = None if options.longest else max(case.length for case in cases)
    config = EngineConfig(device="cuda", cache=options.cache, max_seq_len=length, speculation=False)
    measure_engine(options.shape, limits, cases, config, options.kernels_wait, note)
    if options.kernels:
        config = synthetic_config(options.shape)
        note({"kernels": measure_kernels(config.spec, limits)})
        note({"linear": measure_linear(config, limits)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
