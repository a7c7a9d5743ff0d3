"""Perplexity of models side by side on one text, through Parlor's own engine.

    python -m tools.perplexity ORIGINAL --text starter/heldout.txt --calibration FILE
        the float model, and what rounding and GPTQ make of it (quantized into a temporary folder)
    python -m tools.perplexity MODEL MODEL ... --text FILE
        these folders; the first one is what the others are compared with
    python -m tools.perplexity MODEL --text FILE --cache fp16,q8,q4
        one folder with the context kept in each of these ways

What is scored: a document (each begins where the tokenizer's BOS is written in the text; otherwise the whole
file is one) is read from position 0, and every token but the first is scored with all tokens before it as
context. A document longer than --seq-len is read in windows of that many tokens, each beginning half a window
after the one before; a token is scored once, in the first window that has it. Perplexity is
exp(mean negative log-likelihood per token) over all documents.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model import ChatModel, load_model
from model.kernels.cache_kinds import CACHE_KINDS
from model.machine import physical_cores
from model.options import path_option
from model.quantize import QuantizeOptions, quantize_folder
from model.quantize.calibration import tokenize_documents
from model.quantize.gptq import GridOptions


@dataclass(frozen=True)
class Score:
    """One model's result; both tensors have one value for each scored token, in the order of the text."""

    label: str
    quantization: str
    weight_bytes: int
    losses: Tensor      # float64, negative log-likelihoods
    top_tokens: Tensor  # int64, the likeliest token there
    seconds: float

    @property
    def perplexity(self) -> float:
        return math.exp(float(self.losses.mean()))

    def compared_with(self, first: Score) -> dict[str, float]:
        """Change of perplexity with its standard error, and how often the likeliest token is the same."""
        difference = self.losses - first.losses
        ratio = math.exp(float(difference.mean()))
        error = float(difference.std()) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
        return {"change_percent": 100 * (ratio - 1), "standard_error_percent": 100 * ratio * error,
                "same_top_token_percent": 100 * float((self.top_tokens == first.top_tokens).double().mean())}


def windows(length: int, seq_len: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first scored token) of each window over a document of `length` tokens."""
    begin, scored = 0, 1
    while scored < length:
        end = min(begin + seq_len, length)
        yield begin, end, scored
        begin, scored = begin + seq_len // 2, end


def score(llm: ChatModel, label: str, documents: list[list[int]], seq_len: int) -> Score:
    """Score every token of the documents but the first of each."""
    started = time.monotonic()
    losses, top_tokens = [], []
    for number, document in enumerate(documents):
        for begin, end, scored in windows(len(document), seq_len):
            token_ids = document[begin:end]
            logits = llm.logits(token_ids)[scored - begin - 1:-1].double()
            losses.append(F.cross_entropy(logits, torch.tensor(token_ids[scored - begin:]), reduction="none"))
            top_tokens.append(logits.argmax(-1))
        if sys.stderr.isatty() or number % 100 == 99:
            print(f"\r{label}: {number + 1}/{len(documents)} documents", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    info = llm.info()
    return Score(label, info["quantization"], info["weight_bytes"], torch.cat(losses), torch.cat(top_tokens),
                 time.monotonic() - started)


def documents_within(documents: list[list[int]], max_tokens: int) -> list[list[int]]:
    """The first documents that have `max_tokens` tokens together; the last one is cut to fit."""
    chosen, left = [], max_tokens
    for document in documents:
        if left < 2:
            break
        chosen.append(document[:left])
        left -= len(chosen[-1])
    return [document for document in chosen if len(document) > 1]


@contextmanager
def models_to_compare(arguments: argparse.Namespace) -> Iterator[list[tuple[str, Path]]]:
    """(label, folder) of each; one folder alone is quantized both ways, into a folder that lives as long."""
    if len(arguments.models) > 1 or len(arguments.cache) > 1:
        yield [(path.name, path) for path in arguments.models]
        return
    original = arguments.models[0]
    with tempfile.TemporaryDirectory(prefix="parlor-perplexity-") as scratch:
        compared = [(f"{original.name}, as it is", original)]
        for method, label in (("round", "rounded"), ("gptq", "GPTQ")):
            # Rounding is the plain one: no search for scales, so that it is what its name says.
            grid = GridOptions(bits=arguments.bits, group_size=arguments.group_size, search=method == "gptq")
            target = Path(scratch) / method
            quantize_folder(original, target, QuantizeOptions(
                grid=grid, method=method, calibration=arguments.calibration))
            compared.append((label, target))
        yield compared


def measure(arguments: argparse.Namespace) -> list[Score]:
    """Load one model after the other. Raises ModelLoadError or ValueError."""
    text = arguments.text.read_text(encoding="utf-8")
    scores: list[Score] = []
    token_ids: list[list[int]] | None = None
    with models_to_compare(arguments) as compared:
        for (name, folder), cache in itertools.product(compared, arguments.cache):
            label = f"{name}, {cache} cache" if len(arguments.cache) > 1 else name
            with load_model(folder, device=arguments.device, threads=arguments.threads,
                            exact=arguments.exact, cache=cache) as llm:
                documents = tokenize_documents(text, llm.tokenizer)
                if token_ids is not None and documents != token_ids:
                    raise ValueError(f"{name} has another tokenizer than {compared[0][0]}: "
                                     "their perplexities per token cannot be compared")
                token_ids = documents
                chosen = documents_within(documents, arguments.max_tokens)
                if not chosen:
                    raise ValueError(f"{arguments.text} has no tokens to score")
                scores.append(score(llm, label, chosen, min(arguments.seq_len, llm.info()["max_seq_len"])))
    return scores


def table(scores: list[Score]) -> str:
    """One line a model."""
    width = max(len(f"{s.label} ({s.quantization})") for s in scores)
    lines = [f"{'':{width}}  perplexity    change              same top token      MB"]
    for s in scores:
        compared = s.compared_with(scores[0])
        change = f"{compared['change_percent']:+.2f}% +- {compared['standard_error_percent']:.2f}%"
        same = f"{compared['same_top_token_percent']:.1f}%"
        if s is scores[0]:
            change = same = ""
        name = f"{s.label} ({s.quantization})"
        lines.append(f"{name:{width}}  {s.perplexity:10.4f}    {change:18}  {same:>14}"
                     f"  {s.weight_bytes / 1e6:6.1f}")
    return "\n".join(lines)


def report(scores: list[Score], arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    """What bench/perplexity.json holds."""
    return {
        "command": command,
        "what": __doc__.partition("What is scored: ")[2].replace("\n", " ").strip(),
        "text": arguments.text.as_posix(), "seq_len": arguments.seq_len, "exact": arguments.exact,
        "cache": arguments.cache,
        "scored_tokens": len(scores[0].losses),
        "results": [{"model": s.label, "quantization": s.quantization, "weight_bytes": s.weight_bytes,
                     "perplexity": round(s.perplexity, 4), "seconds": round(s.seconds, 1),
                     **({} if s is scores[0] else
                        {name: round(value, 3) for name, value in s.compared_with(scores[0]).items()})}
                    for s in scores],
        "machine": {"system": platform.platform(), "processor": processor_name(),
                    "threads": arguments.threads or physical_cores()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": time.strftime("%Y-%m-%d"),
    }


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cache_kinds(text: str) -> list[str]:
    kinds = text.split(",")
    if unknown := [kind for kind in kinds if kind not in CACHE_KINDS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(CACHE_KINDS)}")
    return kinds


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.perplexity", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    grid = GridOptions()
    parser.add_argument("models", type=path_option, nargs="+", metavar="MODEL",
                        help="one float folder, or several to compare")
    parser.add_argument("--text", type=path_option, required=True,
                        help="UTF-8 file that no model was trained or calibrated on")
    parser.add_argument("--calibration", type=path_option,
                        help="for quantizing a single MODEL, see model.quantize")
    parser.add_argument("--bits", type=int, default=grid.bits, help="likewise (default: %(default)s)")
    parser.add_argument("--group-size", type=int, default=grid.group_size,
                        help="likewise (default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=512,
                        help="longest window in tokens (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=1 << 40, help="score only the text's beginning")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache", type=cache_kinds, default=["fp16"], metavar="KIND,...",
                        help=f"how the context is kept: {', '.join(CACHE_KINDS)} (default: fp16)")
    parser.add_argument("--exact", action="store_true", help="float32 activations throughout")
    parser.add_argument("--output", type=path_option, help="JSON file to write, like bench/perplexity.json")
    arguments = parser.parse_args(argv)
    if arguments.seq_len < 2 or arguments.max_tokens < 2:
        parser.error("--seq-len and --max-tokens must be 2 at least")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    command = "python -m tools.perplexity " + shlex.join(sys.argv[1:] if argv is None else argv)
    try:
        scores = measure(arguments)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(scores[0].losses):,} tokens of {arguments.text} scored")
    print(table(scores))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report(scores, arguments, command), indent=2, ensure_ascii=False)
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
