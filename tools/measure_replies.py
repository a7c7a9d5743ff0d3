"""How soon a reply begins again in a long session, and what guessing ahead brings.

    python -m tools.measure_replies --synthetic tinyllama-1.1b --prompt 4000
    python -m tools.measure_replies -d starter --text starter/heldout.txt --prompt 1500 [--draft FOLDER]

The first reply reads the prompt; the same request again finds it in the cache: what its first token takes
beyond one step of decoding is the start. Guessing is measured in pairs, without and with, the same request
each time, who comes first in turn; both must give the same tokens. A pair before them is not counted: in it
the engine learns what steps cost. Random weights fall into a loop in greedy decoding, which is guessed
easily: that is the most guessing can bring; what it brings with a real model depends on the text.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model.config import EngineConfig
from model.engine.engine import Engine
from model.engine.loading import load_engine, synthetic_engine
from model.engine.request import FailedEvent, RequestStats, SamplingParams, TokenEvent
from model.model_config import ModelConfig
from model.options import path_option
from model.text.settings import TextSettings
from model.text.tokenizer import Tokenizer
from tools.check_logits import machine


def reply(engine: Engine, prompt: list[int], **params: Any) -> tuple[list[int], RequestStats]:
    made = []
    for event in engine.submit(prompt, SamplingParams(seed=1, **params), frozenset()).events():
        if isinstance(event, FailedEvent):
            raise RuntimeError(event.message)
        if isinstance(event, TokenEvent):
            made.append(event.token_id)
    return made, event.stats


@contextmanager
def without_guessing(engine: Engine) -> Iterator[None]:
    speculator, engine._speculator = engine._speculator, None
    try:
        yield
    finally:
        engine._speculator = speculator


def measure_start(engine: Engine, prompt: list[int], repeats: int) -> dict[str, Any]:
    """Milliseconds of each repetition after the first."""
    starts, steps = [], []
    with without_guessing(engine):
        reply(engine, prompt, max_new_tokens=1)
        for _ in range(repeats):
            _, stats = reply(engine, prompt, max_new_tokens=12, temperature=0.0)
            steps.append(1e3 / stats.tokens_per_second)
            starts.append(1e3 * stats.seconds_to_first_token - steps[-1])
    return {"what": "start of a reply again", "prompt": len(prompt), "cached": stats.cached_tokens,
            "start_ms": starts, "start_ms_median": statistics.median(starts),
            "decode_step_ms_median": statistics.median(steps)}


def measure_guessing(engine: Engine, name: str, prompt: list[int], tokens: int, pairs: int,
                     temperature: float) -> dict[str, Any]:
    """Tokens a second without and with guessing, in turn."""
    rates: list[dict[str, float]] = []
    for pair in range(pairs + 1):
        made = {}
        for how in ("without", "with") if pair % 2 else ("with", "without"):
            with without_guessing(engine) if how == "without" else nullcontext():
                made[how] = reply(engine, prompt, max_new_tokens=tokens, temperature=temperature)
        if made["with"][0] != made["without"][0]:
            raise RuntimeError("guessing changed the reply")
        if pair:
            rates.append({how: stats.tokens_per_second for how, (_, stats) in made.items()})
    ratios = [rate["with"] / rate["without"] for rate in rates]
    stats = made["with"][1]
    return {"what": f"guessing, {name}", "temperature": temperature, "tokens_per_second": rates,
            "ratio_min_median_max": [min(ratios), statistics.median(ratios), max(ratios)],
            "drafted": stats.drafted_tokens, "accepted": stats.accepted_tokens, "new": stats.new_tokens}


def add_report(path: Path, report: dict[str, Any]) -> None:
    """Write it beside those of other commands that the file holds; an older one of the same command goes."""
    reports = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    reports = [other for other in reports if other["command"] != report["command"]] + [report]
    path.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.measure_replies",
                                     description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--synthetic", metavar="SHAPE")
    what.add_argument("-d", "--model", type=path_option, metavar="FOLDER")
    parser.add_argument("--text", type=path_option,
                        help="what the prompts are made of (-d); else random tokens")
    parser.add_argument("--prompt", type=int, default=4000, help="tokens of the long session (default 4000)")
    parser.add_argument("--draft", type=path_option, metavar="FOLDER", help="a smaller model that guesses")
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=path_option, metavar="FILE", help="add the result to this file")
    options = parser.parse_args(arguments)
    config = EngineConfig(threads=options.threads, max_seq_len=options.prompt + options.new_tokens + 64,
                          draft=options.draft)
    if options.synthetic:
        engine = synthetic_engine(options.synthetic, config)
    else:
        engine = load_engine(options.model, config)
    rng = random.Random(0)
    text = [rng.randrange(3, engine.model_config.spec.vocab_size) for _ in range(options.prompt)]
    if options.text:
        settings = TextSettings.from_folder(options.model, ModelConfig.from_folder(options.model))
        text = Tokenizer.load(options.model, settings).encode(options.text.read_text(encoding="utf-8"))
    some = text[:options.prompt // 4]
    results = []
    for temperature in (0.0, 0.8):
        for name, prompt in (("a text that repeats itself", some + some[:len(some) // 2]), ("a text", some)):
            results.append(measure_guessing(engine, name, prompt, options.new_tokens, options.pairs,
                                            temperature))
            print(results[-1], flush=True)
    results.append(measure_start(engine, text[:options.prompt], 5))
    print(results[-1])
    report = {"command": " ".join(["python -m tools.measure_replies", *(arguments or sys.argv[1:])]),
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "model": engine.describe(), "results": results}
    engine.close()
    if options.json:
        add_report(options.json, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
