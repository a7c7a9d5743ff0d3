"""A limit of time for one case of a long run, which the rest of the process never feels."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case_limit(seconds: float) -> Iterator[None]:
    """End the whole process with the stacks of all threads if the block takes longer than `seconds`.

    A block that raises is over, too: an armed limit would end the process in the middle of something else.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
