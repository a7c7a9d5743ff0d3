"""Measure the engine, or its linear kernels alone, against the limits of this machine.

  python -m tools.benchmark --synthetic tinyllama-1.1b     the engine on random 4-bit weights of a true shape
  python -m tools.benchmark -d starter                     the engine on a model's folder or GGUF file
  python -m tools.benchmark --kernels                      linear layers of the TinyLlama-1.1B shapes

Prints a table; --json also writes it, with machine and command, and --plot draws it. --compare runs a peer's
command after every round of ours and prints ratios taken round by round, e.g.

  --compare "llama-bench -m X.gguf -t 2 -p 128,512,2048 -n 32 -d 0 -r 1 -fa 0,1 -o jsonl"
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import Any

from model.config import EngineConfig
from model.engine.loading import load_engine, synthetic_engine
from model.files import ModelLoadError
from model.formats.checkpoint import open_model
from model.formats.synthetic import SHAPES, synthetic_config
from model.kernels import load_kernels
from model.kernels.errors import KernelBuildError
from model.machine import physical_cores
from model.model_config import ModelConfig
from model.options import path_option
from tools.benchmark.cases import Case, make_cases
from tools.benchmark.crossover import print_crossovers
from tools.benchmark.engine import PeakMemory, measure_rounds, summary, whole_runs
from tools.benchmark.limits import Limits, ModelWork, report_of
from tools.benchmark.linear_layers import measure_layers
from tools.benchmark.peer import PeerError
from tools.benchmark.report import PlotError, check_plot, engine_table, layers_table, plot

Report = dict[str, Any]


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark", description="Measure speed against the machine's limits.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-d", "--model", type=path_option, metavar="PATH",
                      help="the engine on a model: a folder or a GGUF file")
    what.add_argument("--synthetic", metavar="SHAPE",
                      help=f"the engine on random 4-bit weights: {', '.join(SHAPES)}")
    what.add_argument("--crossover", action="store_true",
                      help="on a GPU: from how many rows on weights are better dequantized")
    what.add_argument("--kernels", action="store_true", help="the linear kernels alone")
    parser.add_argument("--head-bits", type=int, choices=(4, 16), default=16,
                        help="--synthetic: bits of the output layer; most GPTQ checkpoints have 16 (default)")
    parser.add_argument("--cache", default="fp16", help="how keys and values are kept (default fp16)")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--prompts", type=numbers, default=[128, 512, 2048], metavar="N,N",
                        help="tokens of prompts (default 128,512,2048)")
    parser.add_argument("--contexts", type=numbers, default=[0, 2048, 8192], metavar="N,N",
                        help="tokens before decoding (default 0,2048,8192)")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8], metavar="N,N",
                        help="requests decoded together, without a context (default 1,2,4,8)")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens to decode (default 32)")
    parser.add_argument("--rows", type=numbers, default=[1, 4, 8, 512], metavar="N,N",
                        help="--kernels: rows of activations (default 1,4,8,512)")
    parser.add_argument("--group-size", type=int, default=64, help="--kernels: columns that share a scale")
    parser.add_argument("--compare", metavar="COMMAND",
                        help="a peer to run in turn; llama-bench -o jsonl and llama-batched-bench "
                             "--output-format jsonl are read by case, of others the seconds count")
    parser.add_argument("--json", type=path_option, metavar="FILE", help="write the results here, too")
    parser.add_argument("--plot", type=path_option, metavar="FILE", help="draw them as a PNG")
    return parser.parse_args(arguments)


def fitting(cases: list[Case], config: ModelConfig) -> list[Case]:
    """The cases that the model's context holds. Raises ModelLoadError if none does."""
    fit = [case for case in cases if case.length <= config.spec.max_positions]
    for case in cases:
        if case not in fit:
            print(f"left out: {case}, since {config.name} was made for {config.spec.max_positions:,} tokens",
                  file=sys.stderr)
    if not fit:
        raise ModelLoadError(f"no case is left for the {config.spec.max_positions:,} tokens of "
                             f"{config.name}; use smaller --prompts, --contexts or --batches")
    return fit


def measure_engine(options: argparse.Namespace, limits: Limits) -> Report:
    """Load the model with just the context that the cases need, and run them."""
    config = (synthetic_config(options.synthetic) if options.synthetic
              else open_model(options.model)[0])
    cases = fitting(make_cases(options.prompts, options.contexts, options.batches, options.new_tokens),
                    config)
    room = min(config.spec.max_positions, max(32, *(case.cache_tokens for case in cases)))
    # Without guesses: random tokens would be guessed too well or never, and a step must be one token.
    engine_config = EngineConfig(device="cpu", threads=options.threads, cache=options.cache,
                                 max_seq_len=room, speculation=False)
    memory = PeakMemory()
    engine = (synthetic_engine(options.synthetic, engine_config, head_bits=options.head_bits)
              if options.synthetic else load_engine(options.model, engine_config))
    try:
        rounds = measure_rounds(engine, limits, cases, options.repeats, options.compare)
        work, info, peak = ModelWork.of(engine), engine.describe(), memory.bytes()
    finally:
        engine.close()
    weights = info["weight_bytes"]
    return {"model": info, "results": [summary(case, rounds, work) for case in cases],
            "memory": {"peak_bytes": peak, "weight_bytes": weights,
                       "beyond_weights": (peak - weights) / weights}, **whole_runs(rounds)}


def measure(options: argparse.Namespace, arguments: list[str]) -> Report:
    kernels = load_kernels(threads=options.threads or physical_cores(),
                           progress=lambda line, share: print(line, file=sys.stderr))
    limits = Limits(kernels)
    report = report_of("tools.benchmark", arguments, kernels)
    if options.kernels:
        return report | {"results": measure_layers(kernels, limits, options.rows, options.group_size,
                                                   options.repeats)}
    return report | measure_engine(options, limits)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse_arguments(arguments)
    if options.crossover:
        return print_crossovers(options.json)
    try:
        if options.plot:
            check_plot()
        report = measure(options, arguments)
    except (ModelLoadError, KernelBuildError, PeerError, PlotError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(layers_table(report["results"]) if options.kernels else engine_table(report["results"], report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.plot and not options.kernels:
        name, where = report["model"]["name"], report["machine"]
        title = f"{name}, {where['threads']} threads of {where['cpu']} ({where['isa']})"
        plot(report["results"], title, options.plot)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C: whole rounds count
    raise SystemExit(main())
