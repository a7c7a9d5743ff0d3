"""The thread in which all talk with other engines happens: an event loop, any part of which can be ended.

Closing a connection from another thread does not wake who reads from it; cancelling a task does, whether it
connects, waits or reads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
_GLANCE_SECONDS = 0.05


class Background:
    """Thread-safe; the thread begins with the first task."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, task: Coroutine[Any, Any, Result], look: Callable[[], None] = lambda: None) -> Result:
        """What `task` comes to, or raises. Whoever calls waits, and calls `look` meanwhile; what that raises
        ends the task."""
        future = asyncio.run_coroutine_threadsafe(task, self._begun())
        try:
            while True:
                done, _ = concurrent.futures.wait([future], _GLANCE_SECONDS)
                if done:
                    return future.result()
                look()
        finally:
            future.cancel()

    def begin(self, task: Coroutine[Any, Any, None], ended: Callable[[bool], None]) -> Callable[[], None]:
        """Let `task`, which handles its own errors, go on beside; what is returned cancels it, from any
        thread. `ended` is called once, in the loop's thread, with whether it was cancelled."""
        loop = self._begun()
        running: list[asyncio.Task[None]] = []

        def start() -> None:
            running.append(loop.create_task(task))
            running[0].add_done_callback(lambda done: ended(done.cancelled() or done.exception() is not None))

        def cancel() -> None:
            if running:
                running[0].cancel()

        loop.call_soon_threadsafe(start)
        return lambda: self._call(cancel)

    def close(self) -> None:
        """End every task and the thread. Safe to call twice."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _call(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def _begun(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_live, args=(self._loop,), name="engines", daemon=True).start()
            return self._loop


def _live(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
