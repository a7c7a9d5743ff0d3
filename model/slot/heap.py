"""What a loaded model is for Python's memory: it stays for long, and then all of it must go."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from model.language_model import LanguageModel
from model.machine import return_freed_memory

log = logging.getLogger(__name__)


@contextmanager
def nothing_is_garbage() -> Iterator[None]:
    """What is loaded within stays for long: never look for garbage in it, which takes 0.2 s each time."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def close(model: LanguageModel) -> None:
    """Whatever its close() raises: it is let go all the same."""
    try:
        model.close()
    except BaseException:
        log.exception("a model could not be closed")


def give_back() -> None:
    """Return what a model took, its circles of references included, once nothing refers to it."""
    gc.unfreeze()
    gc.collect()
    return_freed_memory()
