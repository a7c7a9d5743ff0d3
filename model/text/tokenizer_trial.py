"""Tries a model's tokenizer in a process with limits, before this program reads it.

A tokenizer's rules are somebody else's: a normalizer of a few kB can make gigabytes of a few letters, or take
for ever. In the process, that is an error like any other. (What a user's text may grow to is bounded by the
rules that json_backend.py takes at all.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.files import ModelLoadError
from model.text.limited_process import Gone, LimitedProcess, OverTime, ProcessLimits, serve
from model.text.settings import TextSettings
from model.text.tokenizer import Tokenizer

TRIAL_LIMITS = ProcessLimits(seconds=60.0, memory_bytes=3 << 30)
_TEXT = "".join(map(chr, range(0x20, 0x17F))) + " The quick brown fox; 1234.5 + x\n\t你好 \U0001f642"
_MOST_TOKENS = 64 * len(_TEXT)


def check_tokenizer(path: Path, limits: ProcessLimits = TRIAL_LIMITS,
                    worker: str = "model.text.tokenizer_trial") -> None:
    """Raises ModelLoadError if the tokenizer cannot be read, or takes too long or too much memory.

    worker  the module that tries it: this one reads folders
    """
    process = LimitedProcess(worker, limits)
    try:
        problem = process.ask(str(path.absolute()))
    except OverTime:
        problem = f"{path}: its tokenizer takes longer than {limits.seconds:g} seconds to read"
    except Gone:
        problem = (f"{path}: its tokenizer needs more than {limits.memory_bytes >> 20:,} MiB of memory, or "
                   "ends the process that reads it. Download it again.")
    finally:
        process.close()
    if problem:
        raise ModelLoadError(problem)


def problem_of(path: Path, load: Callable[[Path], Tokenizer]) -> str:
    """What is wrong with a tokenizer; "" if nothing is."""
    try:
        tokenizer = load(path)
        count = max(len(tokenizer.encode(_TEXT, control=control)) for control in (True, False))
    except ValueError as error:
        return str(error)
    except MemoryError:
        return f"{path}: its tokenizer needs more memory than tokenizers get"
    if count > _MOST_TOKENS:
        return f"{path}: its tokenizer makes {count:,} tokens of {len(_TEXT)} characters"
    return ""


def answer(folder: Any) -> str:
    """What is wrong with a folder's tokenizer."""
    return problem_of(Path(folder), lambda path: Tokenizer.load(path, TextSettings.from_folder(path)))


if __name__ == "__main__":
    serve(answer)
