"""Serving the app with waitress, and ending well: every stream gets its last event, every text is kept.

The settings and why: a stream holds a thread to its end, so threads are many and streams capped below them;
lookahead makes a closed tab visible; the low watermark keeps a reader that never reads cheap; a long
session goes out from memory, not by way of a temporary file.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from flask import Flask
from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from . import MAX_STREAMS
from .routes.parlor import parlor
from .server.connections import SWEEP_SECONDS, Server
from .server.guard import LARGEST_BODY

if os.name == "nt":
    resource = None
else:
    import resource

THREADS = MAX_STREAMS + 32
MAX_CONNECTIONS = 4 * THREADS  # Windows' select takes 512 sockets
MAX_HEADERS = 1 << 16
CLOSE_SECONDS = 1.3  # of the 2 within which the process has ended
LOOP_SECONDS = 1  # whole: waitress cuts 0.25 to 0 and spins. Windows sees Ctrl+C only between two waits
PROXY_HEADERS = {"x-forwarded-for", "x-forwarded-proto"}
LAST_SECONDS = 0.5  # for requests that are being answered
log = logging.getLogger("parlor.serving")
GOODBYE = "Parlor was stopped while this was being written."


class PortTaken(Exception):
    """Nothing can be served there; the message says why."""


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on host:port before anything slow is loaded. Port 0 takes a free one. Raises PortTaken."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise PortTaken(f"{host} is no address of this machine ({error.strerror or error}).") from None
    try:
        # Windows' SO_REUSEADDR lets two servers share a port; elsewhere it only skips a closed one's wait.
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PortTaken(f"Port {port} on {host} cannot be used ({error.strerror or error}). "
                        f"Is Parlor running there already? Otherwise choose another with --port.") from None
    return listener


def make_server(app: Flask, listener: socket.socket, proxy: str | None = None) -> Server:
    """What answers on `listener` once its run() is called. `proxy`: the address of one in front, which is
    believed what it says of a request: from where it comes, and whether by https."""
    guard = parlor(app).guard
    port = listener.getsockname()[1]
    most = most_connections()
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    trusted = {} if proxy is None else {"trusted_proxy": proxy, "trusted_proxy_headers": PROXY_HEADERS}
    return Server(
        app if proxy is None else _under_own_port(app, port), {}, True, listener, dispatcher, Adjustments(
            connection_limit=most + 100, backlog=1024, ident=None,  # ours is reached before
            channel_request_lookahead=1, outbuf_high_watermark=1 << 18, outbuf_overflow=1 << 24,
            max_request_body_size=LARGEST_BODY, max_request_header_size=MAX_HEADERS,
            cleanup_interval=SWEEP_SECONDS, asyncore_use_poll=hasattr(select, "poll"),
            asyncore_loop_timeout=LOOP_SECONDS, clear_untrusted_proxy_headers=True, **trusted),
        (listener.family, listener.type, listener.proto, listener.getsockname()), False,
        most=most,
        body_limit=lambda request: guard.body_limit(request.headers, port))


def _under_own_port(app: Flask, port: int) -> Callable[..., Iterable[bytes]]:
    """waitress takes the port of the proxy for the server's, after which login cookies would be named."""

    def answered(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return app({**environ, "SERVER_PORT": str(port)}, start_response)

    return answered


def most_connections() -> int:
    """As many as the system lets this process have open, half of which are left to files; macOS gives 256."""
    if resource is None:
        return MAX_CONNECTIONS
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft // 2)


def serve(app: Flask, listener: socket.socket, *, ready: Callable[[], None],
          proxy: str | None = None) -> None:
    """Answer requests until SIGTERM or Ctrl+C, then end every reply and stream. Main thread only. `proxy`:
    see make_server."""
    server = make_server(app, listener, proxy)
    ending = threading.Event()
    ended = threading.Event()

    def end() -> None:
        """Beside the main thread, which goes on sending what the streams still have to say."""
        try:
            parlor(app).close(GOODBYE, CLOSE_SECONDS)
        except BaseException:
            log.exception("not everything could be ended")
        last = threading.Timer(LAST_SECONDS, os._exit, (0,))  # every text is kept by now
        last.daemon = True
        last.start()
        ended.set()
        signal.raise_signal(signal.SIGINT) if os.name == "nt" else os.kill(os.getpid(), signal.SIGINT)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if ended.is_set():
            raise SystemExit(0)  # out of the loop of server.run()
        if not ending.is_set():
            ending.set()
            threading.Thread(target=end, name="ending").start()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    ready()
    server.run()
