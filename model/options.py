"""The options of the command line that make an EngineConfig, for app.py and the tools.

What they default to and what range they have stands in EngineConfig alone.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from model.config import DEVICES, EngineConfig
from model.kernels.cache_kinds import CACHE_KINDS
from model.model_path import adapter_name


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Their names are those of EngineConfig's fields; see engine_config()."""
    parser.add_argument("--device", choices=DEVICES, default=EngineConfig.device,
                        help="where the model runs; auto takes an NVIDIA GPU if it can be used "
                             "(default: %(default)s)")
    parser.add_argument("--gpu-split", type=_gib, metavar="GIB,GIB",
                        help="spread the layers over several GPUs: the GiB to use of each, such as 20,20; "
                             "default: the first GPU alone")
    parser.add_argument("--max-seq-len", type=_tokens, metavar="TOKENS",
                        help="context of the model, or auto: what it was made for, or what of that fits into "
                             "memory (default: auto)")
    parser.add_argument("--cache", choices=tuple(CACHE_KINDS),
                        help="how the context is kept in memory: q8 takes 53%% of fp16, q4 28%% "
                             "(default: fp16; fp32 with --exact)")
    parser.add_argument("--threads", type=_whole, help="CPU threads; default: one for each physical core")
    parser.add_argument("--quantize", type=int, choices=(4, 8), metavar="BITS",
                        help="round plain float weights to 4 or 8 bits while they are loaded; default: they "
                             "stay as they are")
    parser.add_argument("--exact", action="store_true",
                        help="float32 arithmetic throughout: slower, no rounding")
    parser.add_argument("--draft", type=path_option, metavar="FOLDER",
                        help="a smaller model with the same tokens that guesses ahead; replies stay the same")
    parser.add_argument("--lora", dest="adapters", type=_adapter, action="append", default=[],
                        metavar="NAME=PATH",
                        help="a LoRA adapter that bots may use (PEFT's folder or a GGUF file); may be given "
                             "several times; without NAME= it is called as its folder or file is")
    parser.add_argument("--no-speculation", dest="speculation", action="store_false",
                        help="never guess ahead (by default it looks up what was written before)")


def engine_config(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> EngineConfig:
    """What `arguments` ask for. What is out of range ends the program as the parser ends it."""
    chosen = {field.name: getattr(arguments, field.name) for field in fields(EngineConfig)
              if hasattr(arguments, field.name)}
    try:
        return EngineConfig(**chosen)
    except ValueError as error:
        parser.error(str(error))


def path_option(text: str) -> Path:
    """A path that may begin with ~, which no shell expands within --model=~/x or on Windows."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def _adapter(text: str) -> tuple[str, Path]:
    name, mark, path = text.partition("=")
    if not mark or "/" in name or "\\" in name:  # a path with = in it
        found = path_option(text)
        return adapter_name(found), found
    return name, path_option(path)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _tokens(text: str) -> int | None:
    return None if text == "auto" else _whole(text)


def _gib(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of GiB, one for each GPU, such as 20,20") \
            from None
