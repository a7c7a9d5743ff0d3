"""What a request to a model with states reads anew: asking again, the next turn, another end. Writes JSON.

python -m tools.measure_snapshots --out bench/snapshots.json

A model of random bfloat16 weights in the shape of LFM2-350M answers a prompt of 2,000 tokens; then it is
asked again, goes on, and is asked something else after the first 1,500. CPU seconds are those of all threads.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model.options import path_option
from tools.check_logits import machine

PROMPT, SHARED, REPLY, NEW = 2000, 1500, 32, 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.measure_snapshots",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=path_option, metavar="FILE", help="write the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        rows = measure(Path(folder))
    report = {"command": "python -m tools.measure_snapshots --out bench/snapshots.json",
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "model": "random bfloat16 weights in the shape of LFM2-350M", "requests": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def write_model(folder: Path) -> None:
    import torch
    import transformers

    kinds = ["full_attention" if index in (2, 5, 8, 10, 12, 14) else "conv" for index in range(16)]
    config = transformers.Lfm2Config(
        vocab_size=65536, hidden_size=1024, intermediate_size=4608, num_hidden_layers=16,
        num_attention_heads=16, num_key_value_heads=8, block_auto_adjust_ff_dim=False, layer_types=kinds,
        max_position_embeddings=8192, tie_word_embeddings=True)
    torch.manual_seed(1)
    transformers.Lfm2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def measure(folder: Path) -> list[dict[str, Any]]:
    from model.config import EngineConfig
    from model.engine.loading import load_engine
    from model.engine.request import FinishedEvent, SamplingParams, TokenEvent

    rng = random.Random(1)
    engine = load_engine(folder, EngineConfig(max_seq_len=8192, threads=1, speculation=False))
    rows: list[dict[str, Any]] = []

    def ask(what: str, token_ids: list[int]) -> list[int]:
        started = time.process_time()
        request = engine.submit(token_ids, SamplingParams(max_new_tokens=REPLY, seed=1), frozenset())
        reply: list[int] = []
        first = 0.0
        for event in request.events():
            if isinstance(event, TokenEvent):
                first = first or time.process_time() - started
                reply.append(event.token_id)
            elif isinstance(event, FinishedEvent):
                rows.append({"request": what, "prompt_tokens": len(token_ids),
                             "read": len(token_ids) - event.stats.cached_tokens,
                             "cpu_seconds_to_first_token": round(first, 3)})
                print(json.dumps(rows[-1]))
        return reply

    def tokens(count: int) -> list[int]:
        return [rng.randrange(65536) for _ in range(count)]

    try:
        ask("warm up", tokens(100))
        prompt = tokens(PROMPT)
        reply = ask("a prompt for the first time", prompt)
        ask("the same again", prompt)
        ask("the next turn", [*prompt, *reply, *tokens(NEW)])
        ask("another end, for the first time", [*prompt[:SHARED], *tokens(NEW)])
        ask("another end once more", [*prompt[:SHARED], *tokens(NEW)])
    finally:
        engine.close()
    return rows[1:]


if __name__ == "__main__":
    main()
