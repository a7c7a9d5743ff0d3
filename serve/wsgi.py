"""A WSGI app as an async generator: the head of its answer, then each piece of the body as it is made.

Other bridges gather pieces or go on when nobody reads any more. Here the app is told, by the name that
waitress has for it; webui/api/ looks there between two tokens.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from werkzeug.test import create_environ, run_wsgi_app

IS_GONE = "waitress.client_disconnected"
_OF_THE_CONNECTION = frozenset({"connection", "content-length", "keep-alive", "te", "trailer",
                                "transfer-encoding", "upgrade"})


@dataclass(frozen=True)
class Call:
    """A request, read whole."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


Head = tuple[int, list[tuple[str, str]]]
"""(status, headers)"""


async def answer(app: Callable[..., Iterable[bytes]], call: Call,
                 threads: Executor) -> AsyncIterator[Head | bytes]:
    """The head, then the pieces. One of `threads` is taken until the last one. Whoever leaves the loop early
    ends what the app does. Raises what the app raises."""
    loop, gone = asyncio.get_running_loop(), threading.Event()
    made: asyncio.Queue[Head | bytes | BaseException | None] = asyncio.Queue()

    def put(piece: Head | bytes | BaseException | None) -> None:
        if not gone.is_set():
            loop.call_soon_threadsafe(made.put_nowait, piece)

    def work() -> None:
        try:
            body, status, headers = run_wsgi_app(app, _environ(call) | {IS_GONE: gone.is_set})
            try:
                put((int(status.split()[0]), headers.to_wsgi_list()))
                for piece in body:
                    put(piece)
            finally:
                if hasattr(body, "close"):
                    body.close()
            put(None)
        except BaseException as error:  # the reader waits for an end
            put(error)

    loop.run_in_executor(threads, work)
    try:
        while (piece := await made.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        gone.set()


def _environ(call: Call) -> dict[str, Any]:
    headers = [(name, value) for name, value in call.headers if name.lower() not in _OF_THE_CONNECTION]
    return create_environ(call.path, query_string=call.query, method=call.method, headers=headers,
                          data=call.body or None)
