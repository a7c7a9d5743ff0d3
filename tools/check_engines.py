"""Other engines behind Parlor: what each of them can do, and whether a reply, a stop and a wrong name work.

    python -m tools.check_engines NAME=URL [NAME=URL ...] [--key FILE] [--json FILE]
    python -m tools.check_engines --gguf FILE.gguf

The engines are started by whoever runs this; all models of each are asked, or `--model` alone. --gguf writes
the small model that ships as a file that llama.cpp's server runs, and ends.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model import ChatMessage, ReplyDone, SamplingParams, TextDelta, parse_engine
from model.options import path_option
from model.remote.engines import Engines
from model.remote.problems import EngineProblem
from model.remote.remote_model import RemoteModel

HERE = Path(__file__).resolve().parents[1]
MESSAGES = [ChatMessage("system", "You are Marlow, who likes short answers."),
            ChatMessage("user", "Hello, who are you?")]
PARAMS = SamplingParams(max_new_tokens=24, seed=1, temperature=0.0)


def no_progress(what: str, share: float) -> None:
    pass


def replies(model: RemoteModel) -> str:
    """A reply, with counts of tokens."""
    text, done = _read(model, MESSAGES)
    if not text or not isinstance(done, ReplyDone):
        raise AssertionError(f"{text!r} {done}")
    return f"{done.finish_reason}, {done.stats.prompt_tokens} + {done.stats.new_tokens} tokens"


def repeats(model: RemoteModel) -> str:
    """The same seed, twice."""
    first, second = (_read(model, MESSAGES)[0] for _ in range(2))
    return "the same text" if first == second else "another text"


def stops(model: RemoteModel) -> str:
    """How soon the reply ends after a stop at its first word."""
    reply = model.start(MESSAGES, SamplingParams(max_new_tokens=400, seed=1))
    events = reply.events()
    next(events)
    begun = time.monotonic()
    reply.cancel()
    last = list(events)[-1]
    if not isinstance(last, ReplyDone):
        raise AssertionError(f"{last}")
    return f"{last.finish_reason} after {time.monotonic() - begun:.3f} s"


def goes_on(model: RemoteModel) -> str:
    """A message that is begun."""
    return repr(_read(model, MESSAGES, "My name is")[0][:40])


def ranks(model: RemoteModel) -> str:
    """Who speaks next."""
    scores = model.rank_speakers([("Ann", "Otto, are you there?")], ["Otto", "Lin"])
    return ", ".join(f"{score:.2f}" for score in scores)


CHECKS: dict[str, Callable[[RemoteModel], str]] = {
    "reply": replies, "same seed": repeats, "stop": stops, "continue": goes_on, "rank": ranks}


def check(model: RemoteModel) -> dict[str, Any]:
    """What it says it can, and what came of each check: an outcome, or the sentence."""
    found: dict[str, Any] = {"context": model.info()["max_seq_len"], "cannot": model.info()["cannot"]}
    for name, function in CHECKS.items():
        try:
            found[name] = function(model)
        except (ValueError, AssertionError) as error:
            found[name] = f"no: {error}"
    return found


def _read(model: RemoteModel, messages: list[ChatMessage], begun: str = "") -> tuple[str, Any]:
    events = list(model.start(messages, PARAMS, reply_prefix=begun).events())
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.check_engines",
                                     description=__doc__.partition("\n")[0])
    parser.add_argument("engines", nargs="*", metavar="NAME=URL")
    parser.add_argument("--key", type=path_option, metavar="FILE", help="shown to each of them")
    parser.add_argument("--model", help="only this one")
    parser.add_argument("--gguf", type=path_option, metavar="FILE")
    parser.add_argument("--json", type=path_option, metavar="FILE")
    options = parser.parse_args()
    if options.gguf:
        from tools.starter_gguf import write_starter
        write_starter(HERE / "starter", options.gguf)
    key = options.key.read_text(encoding="utf-8").split("\n")[0] if options.key else ""
    engines = Engines(parse_engine(text, key) for text in options.engines)
    report: dict[str, Any] = {}
    for state in engines.look():
        print(f"{state.address.name} at {state.address.host}: {state.problem or 'answers'}")
        for offer in engines.offers(state):
            if options.model not in (None, offer.model):
                continue
            try:
                found = check(engines.open(offer, no_progress))
            except EngineProblem as error:
                found = {"problem": str(error)}
            report[offer.name] = found
            for name, outcome in found.items():
                print(f"    {name:<12}{outcome}")
    engines.close()
    if options.json:
        text = json.dumps({"command": "python -m tools.check_engines", "machine": platform.processor() or
                           platform.machine(), "engines": report}, indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(not report and bool(options.engines))


if __name__ == "__main__":
    sys.exit(main())
