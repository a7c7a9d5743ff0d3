"""Chat with a model in the terminal: python -m tools.console -d PATH

Lines that begin with / are commands; Ctrl+C stops the reply that is being written, Ctrl+D leaves. Keeps the
conversation in memory only. Knows the model by `load_model` and its options alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from model import (
    PARAMETER_SPECS,
    ChatMessage,
    ChatModel,
    ModelLoadError,
    Reply,
    ReplyDone,
    ReplyFailed,
    SamplingParams,
    TextDelta,
    load_model,
)
from model.options import add_engine_options, engine_config, path_option

HELP = """/new              begin again
/system TEXT      what the model is told before the conversation; without TEXT, nothing
/set              show the sampling parameters
/set NAME VALUE   change one, as in: /set temperature 0.5   /set stop ["\\n\\n"]   /set seed null
/again            another reply to the last message
/help             this
/quit             leave; Ctrl+D does, too
Ctrl+C            stop the reply"""
_DIM, _NORMAL = "\033[2m", "\033[0m"
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Console:
    """One conversation in a terminal."""

    def __init__(self, llm: ChatModel, system: str = "", out: TextIO | None = None) -> None:
        self.llm, self.system, self.params = llm, system, SamplingParams()
        self.messages: list[ChatMessage] = []
        self._out = out or sys.stdout
        self._colors = self._out.isatty()
        self._commands: dict[str, Callable[[str], None]] = {
            "new": self._new, "system": self._set_system, "set": self._set, "again": self._again,
            "help": lambda _: self._say(HELP)}

    def handle(self, line: str) -> bool:
        """Do what a line says; False if it was /quit."""
        line = line.strip()
        if line.startswith("/"):
            name, _, rest = line[1:].partition(" ")
            if name == "quit":
                return False
            command = self._commands.get(name)
            command(rest.strip()) if command else self._say(f"No command /{name}; /help lists them.")
        elif line:
            self._reply([*self.messages, ChatMessage("user", line)])
        return True

    def _reply(self, messages: list[ChatMessage]) -> None:
        """Write the answer to `messages`; both are kept unless the model cannot take them."""
        system = [ChatMessage("system", self.system)] if self.system else []
        try:
            reply = self.llm.start(system + messages, self.params)
        except ValueError as error:
            return self._say(str(error))
        with stopped_by_ctrl_c(reply):
            text = "".join(map(self._show, reply.events()))
        self.messages = [*messages, ChatMessage("assistant", text)]
        return None

    def _show(self, event: Any) -> str:
        """Write what an event brings; returns the text that belongs to the reply."""
        if isinstance(event, TextDelta):
            thinking = event.channel == "think"
            shown = _CONTROL_CHARACTERS.sub("\ufffd", event.text)  # no escape sequences from a model
            self._write(f"{_DIM}{shown}{_NORMAL}" if thinking and self._colors else shown)
            return "" if thinking else event.text
        if isinstance(event, ReplyFailed):
            self._say(f"\n[{event.message}]")
        elif isinstance(event, ReplyDone):
            stats = event.stats
            summary = (f"[{event.finish_reason}: {stats.new_tokens} tokens, {stats.tokens_per_second:.1f}/s; "
                       f"prompt {stats.prompt_tokens} ({stats.cached_tokens} cached); seed {stats.seed}]")
            self._say(f"\n{_DIM}{summary}{_NORMAL}" if self._colors else f"\n{summary}")
        return ""

    def _new(self, _: str) -> None:
        self.messages = []
        self._say("A new conversation.")

    def _set_system(self, text: str) -> None:
        self.system = text
        self._say("The model is told this." if text else "The model is told nothing.")

    def _again(self, _: str) -> None:
        if self.messages:
            self._reply(self.messages[:-1])
        else:
            self._say("There is no message to answer yet.")

    def _set(self, words: str) -> None:
        name, _, value = words.partition(" ")
        if not name:
            for name in PARAMETER_SPECS:
                self._say(f"{name} = {json.dumps(getattr(self.params, name))}")
        elif name not in PARAMETER_SPECS:
            self._say(f"No parameter {name}; /set lists them.")
        else:
            try:
                self.params = dataclasses.replace(self.params, **{name: parse_value(name, value.strip())})
                self._say(f"{name} = {json.dumps(getattr(self.params, name))}")
            except ValueError as error:
                self._say(str(error))

    def _say(self, text: str) -> None:
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def parse_value(name: str, text: str) -> Any:
    """The value of a sampling parameter, written as JSON; for stop strings and texts plain text will do."""
    kind = PARAMETER_SPECS[name]["type"]
    try:
        value = json.loads(text)
    except ValueError:
        if kind not in ("strings", "text"):
            raise ValueError(f"{name} cannot be {text!r}; expected JSON, as in {name} = "
                             f"{json.dumps(PARAMETER_SPECS[name]['default'])}") from None
        value = text
    if kind == "text":
        return value if isinstance(value, str) else text
    if kind == "strings":
        return tuple(value) if isinstance(value, list) else (str(value),)
    if kind in ("tokens", "names"):
        return tuple(value) if isinstance(value, list) else (value,)
    if kind == "bias":
        return {int(token_id): bias for token_id, bias in dict(value).items()}
    return value


@contextmanager
def stopped_by_ctrl_c(reply: Reply) -> Iterator[None]:
    """Within, Ctrl+C ends the reply and not the program."""
    before = signal.signal(signal.SIGINT, lambda *_: reply.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def read_lines(prompt: str) -> Iterator[str]:
    """Lines that are typed, until Ctrl+D; Ctrl+C gives up a line."""
    while True:
        try:
            yield input(prompt)
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def arguments(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.console",
                                     description="Chat with a model in the terminal.")
    parser.add_argument("-d", "--model", type=path_option, default=Path("starter"), metavar="PATH",
                        help="a GGUF file or the model's folder (default: %(default)s)")
    parser.add_argument("--system", default="", help="what the model is told before the conversation")
    add_engine_options(parser)
    options = parser.parse_args(args)
    options.engine = engine_config(parser, options)
    return options


def main(args: Sequence[str] | None = None) -> int:
    options = arguments(args)
    try:
        llm = load_model(options.model, options.engine, progress=lambda what, _: print(what, file=sys.stderr))
    except (ModelLoadError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    with llm:
        console = Console(llm, options.system)
        print(f"{llm.info()['name']}. /help lists the commands; Ctrl+D leaves.")
        for line in read_lines("> "):
            if not console.handle(line):
                break
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
