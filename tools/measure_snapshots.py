"""What a request to a model with states reads anew, beside llama.cpp's server in turn. Writes JSON.

python -m tools.random_gguf lfm2.gguf --shape lfm2-350m --type Q8_0
llama-server -m lfm2.gguf -t 2 --port 8081
python -m tools.measure_snapshots lfm2.gguf --compare http://127.0.0.1:8081 --out bench/snapshots.json

Two bots of a room with 300 tokens of their own in front of what was said: asked for the first time, again,
after another end of the conversation, in turns. Each engine goes on with its own replies.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import urllib.request
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model.options import path_option
from tools.check_logits import machine

PERSONA, SAID, SHARED, REPLY, NEW = 300, 1700, 1200, 32, 60
Ask = Callable[[list[int]], tuple[list[int], int, float]]
"""Of a prompt's token ids: the reply's, how many of the prompt's were read, seconds to the first token."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.measure_snapshots",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("model", type=path_option, metavar="FILE.gguf")
    parser.add_argument("--compare", metavar="URL", help="llama.cpp's server with the same file")
    parser.add_argument("--out", type=path_option, metavar="FILE", help="write the result as JSON")
    arguments = parser.parse_args()
    rows = measure(arguments.model, arguments.compare)
    command = f"python -m tools.measure_snapshots {arguments.model.name}"
    if arguments.compare:
        command += f" --compare {arguments.compare}"
    report = {"command": command, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
              "machine": machine(), "model": arguments.model.name, "requests": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure(model: Path, peer: str | None) -> list[dict[str, Any]]:
    """One row a request, with what each engine read and how long it took to the first token."""
    from model.config import EngineConfig
    from model.engine.loading import load_engine

    engine = load_engine(model, EngineConfig(max_seq_len=8192, speculation=False))
    engines = {"parlor": asking_ours(engine)} | ({"llama.cpp": asking_llama(peer)} if peer else {})
    rooms = {name: Room(ask, engine.model_config.spec.vocab_size) for name, ask in engines.items()}
    rows = []
    try:
        for number in range(len(TURNS)):
            row: dict[str, Any] = {"request": TURNS[number][0]}
            for name, room in rooms.items():
                row["prompt_tokens"], read, seconds = TURNS[number][1](room)
                row[name] = {"read": read, "seconds_to_first_token": round(seconds, 3)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    finally:
        engine.close()
    return rows[1:]


class Room:
    """A conversation of two bots with one engine: the same token ids for each engine, but for the replies."""

    def __init__(self, ask: Ask, vocabulary: int) -> None:
        self._ask, self._random, self._vocabulary = ask, random.Random(1), vocabulary
        self._personas = [self.tokens(PERSONA), self.tokens(PERSONA)]
        self._said = self.tokens(SAID)

    def tokens(self, count: int) -> list[int]:
        return [self._random.randrange(100, self._vocabulary) for _ in range(count)]

    def warm_up(self) -> tuple[int, int, float]:
        return self._speak(0, self.tokens(100))[1:]

    def again(self, bot: int) -> tuple[int, int, float]:
        """What `bot` says next; it is thrown out."""
        return self._speak(bot, self._said)[1:]

    def turn(self, bot: int) -> tuple[int, int, float]:
        """A new message, and what `bot` says to it; both stay."""
        said = [*self._said, *self.tokens(NEW)]
        reply, *numbers = self._speak(bot, said)
        self._said = [*said, *reply]
        return tuple(numbers)

    def other_end(self, bot: int) -> tuple[int, int, float]:
        """An earlier message is edited; what `bot` says then is thrown out."""
        return self._speak(bot, [*self._said[:SHARED], *self.tokens(NEW)])[1:]

    def _speak(self, bot: int, said: list[int]) -> tuple[list[int], int, int, float]:
        prompt = [*self._personas[bot], *said]
        reply, read, seconds = self._ask(prompt)
        return reply, len(prompt), read, seconds


TURNS: tuple[tuple[str, Callable[[Room], tuple[int, int, float]]], ...] = (
    ("warm up", Room.warm_up),
    ("a bot for the first time", lambda room: room.again(0)),
    ("the same again", lambda room: room.again(0)),
    ("the next turn", lambda room: room.turn(0)),
    ("another bot, for the first time", lambda room: room.turn(1)),
    ("the first bot, after the other", lambda room: room.turn(0)),
    ("the other bot, after the first", lambda room: room.turn(1)),
    ("another end, for the first time", lambda room: room.other_end(0)),
    ("another end once more", lambda room: room.other_end(0)),
    ("back to the first end", lambda room: room.again(0)),
)


def asking_ours(engine: Any) -> Ask:
    from model.engine.request import FinishedEvent, SamplingParams, TokenEvent

    def ask(prompt: list[int]) -> tuple[list[int], int, float]:
        started, first = time.perf_counter(), 0.0
        request = engine.submit(prompt, SamplingParams(max_new_tokens=REPLY, temperature=0.0), frozenset())
        reply: list[int] = []
        for event in request.events():
            if isinstance(event, TokenEvent):
                first = first or time.perf_counter() - started
                reply.append(event.token_id)
            elif isinstance(event, FinishedEvent):
                return reply, len(prompt) - event.stats.cached_tokens, first
        raise RuntimeError("the engine ended without saying so")

    return ask


def asking_llama(address: str) -> Ask:
    """By /completion, which takes token ids and tells how many it read."""
    def ask(prompt: list[int]) -> tuple[list[int], int, float]:
        body = {"prompt": prompt, "n_predict": REPLY, "temperature": 0.0, "ignore_eos": True,
                "cache_prompt": True, "return_tokens": True, "stream": True}
        request = urllib.request.Request(f"{address}/completion", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        started, first = time.perf_counter(), 0.0
        reply: list[int] = []
        with urllib.request.urlopen(request) as answer:
            for line in answer:
                if not line.startswith(b"data: "):
                    continue
                told = json.loads(line[6:])
                first = first or time.perf_counter() - started
                reply += told.get("tokens", [])
                if told.get("stop"):
                    return reply, told["timings"]["prompt_n"], first
        raise RuntimeError("llama.cpp's server ended without saying so")

    return ask


if __name__ == "__main__":
    main()
