"""The options of the command line that name other engines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from model.remote.address import BadAddress, EngineAddress, parse_engine, parse_header


def add_remote_options(parser: argparse.ArgumentParser) -> None:
    """See engines_of()."""
    parser.add_argument("--engine", action="append", default=[], metavar="[NAME=]URL",
                        help="another engine whose models the page offers, by OpenAI's protocol, such as "
                             "http://box:8000/v1; without -d the first of them is begun with; may be given "
                             "several times")
    parser.add_argument("--engine-key", action="append", default=[], metavar="[NAME=]FILE",
                        help="the key that an engine wants: FILE's first line; NAME where there are several")
    parser.add_argument("--engine-header", action="append", default=[], metavar="[NAME=]HEADER: VALUE",
                        help="a further header for an engine; may be given several times")


def engines_of(arguments: argparse.Namespace) -> list[EngineAddress]:
    """Those that were named. A key or header is for the engine of its name; without one, for the only engine
    there is. Raises BadAddress, OSError."""
    named = [parse_engine(text) for text in arguments.engine]
    if len({address.id for address in named}) < len(named):
        raise BadAddress("--engine names an address twice.")
    keys: dict[str, str] = {}
    headers: dict[str, dict[str, str]] = {}
    for text in arguments.engine_key:
        owner, file = _owner("--engine-key", text, named)
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").split("\n")
        if not lines[0].strip():
            raise BadAddress(f"--engine-key {file} holds no key in its first line.")
        keys[owner] = lines[0]
    for text in arguments.engine_header:
        owner, line = _owner("--engine-header", text, named)
        headers.setdefault(owner, {}).update([parse_header(line)])
    return [EngineAddress(one.url, one.name, keys.get(one.id, ""), headers.get(one.id, {})) for one in named]


def _owner(option: str, text: str, named: Sequence[EngineAddress]) -> tuple[str, str]:
    """(id of the engine, the rest of the text)"""
    name, equals, rest = text.partition("=")
    owners = [one for one in named if equals and one.name == name]
    if len(owners) == 1:
        return owners[0].id, rest
    if len(named) != 1:
        raise BadAddress(f"{option} is for one engine: begin it with the NAME= of one that --engine NAME=URL "
                         "names.")
    return named[0].id, text
