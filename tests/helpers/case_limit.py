"""A limit of time for one case of a long run, which costs a case next to nothing."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

WAITING = 15  # times as long a case may take where it waits: for a thread, or for a busy machine's processor


@contextmanager
def case_limit(seconds: float) -> Iterator[None]:
    """End the whole process with the stacks of all threads if the block takes more than `seconds` of the
    processor, in all threads together, or WAITING times as many of the clock.

    A block that raises is over, too: an armed limit would end the process in the middle of something else.
    """
    if not hasattr(signal, "setitimer"):  # Windows
        faulthandler.dump_traceback_later(seconds * WAITING, exit=True)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
        return
    _end_at_alarms()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * WAITING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


@cache
def _end_at_alarms() -> None:
    """Show the stacks, then do what these signals do of themselves: end the process. Written in C, so that
    code which never comes back to Python is ended, too."""
    for number in (signal.SIGPROF, signal.SIGALRM):
        faulthandler.register(number, all_threads=True, chain=True)
