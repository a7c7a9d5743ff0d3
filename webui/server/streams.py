"""Open event streams: how many there may be, and an end for those whose reader has stopped reading.

A stream holds a thread of the web server for its whole life, so their number is capped below the number of
threads, and a write that stays blocked is cut by a watchman. Knows nothing of what is sent.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import TooMany

BLOCKED_SECONDS = 30.0
WATCH_SECONDS = 2.0
log = logging.getLogger("parlor.streams")


class Stream:
    """One open stream. `cut` ends its connection from outside."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self.cut = cut
        self.blocked_since: float | None = None

    def guarded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass `chunks` on, and note since when the server waits for the reader to take one."""
        for chunk in chunks:
            self.blocked_since = time.monotonic()
            yield chunk
            self.blocked_since = None


class StreamedBody:
    """The chunks of one stream as a response's body. After the last one, or by close() if it never came to
    that, the stream is released and `ended` called, once."""

    def __init__(self, streams: Streams, stream: Stream, chunks: Iterator[bytes],
                 ended: Callable[[], None] = lambda: None) -> None:
        self._streams, self._stream, self._chunks, self._ended = streams, stream, chunks, ended

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream.guarded(self._chunks)
        finally:
            self.close()

    def close(self) -> None:
        self._streams.release(self._stream)
        ended, self._ended = self._ended, lambda: None
        ended()


class Streams:
    """All of them. The watchman's thread lives while there are streams."""

    def __init__(self, most: int, blocked_seconds: float = BLOCKED_SECONDS) -> None:
        self.most = most
        self.closing = threading.Event()
        self._blocked_seconds = blocked_seconds
        self._open: set[Stream] = set()
        self._lock = threading.Lock()
        self._watching = False

    def __len__(self) -> int:
        return len(self._open)

    def open(self, cut: Callable[[], None]) -> Stream:
        """Raises TooMany at the cap."""
        with self._lock:
            if len(self._open) >= self.most:
                raise TooMany("Too many replies are being read at once.", retry_after=2)
            stream = Stream(cut)
            self._open.add(stream)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="stream-watch", daemon=True).start()
        return stream

    @contextmanager
    def waiting(self, environ: dict[str, Any]) -> Iterator[Callable[[], bool]]:
        """While this request waits for something else than what it sends, which holds a thread of the server
        as a stream does: tells whether nobody waits for it any more. Raises TooMany."""
        is_gone = gone_test(environ)
        stream = self.open(lambda: cut_connection(environ))
        try:
            yield lambda: is_gone() or self.closing.is_set()
        finally:
            self.release(stream)

    def release(self, stream: Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def cut_blocked(self, seconds: float) -> int:
        """Cut the streams whose last write has been blocked for longer than `seconds`."""
        now = time.monotonic()
        with self._lock:
            blocked = [stream for stream in self._open
                       if stream.blocked_since is not None and now - stream.blocked_since > seconds]
        for stream in blocked:
            try:
                stream.cut()
            except Exception:  # the next one still has to be cut
                log.exception("a blocked stream could not be cut")
        return len(blocked)

    def close(self, seconds: float) -> None:
        """Let every stream end by itself, then cut those that cannot."""
        self.closing.set()
        deadline = time.monotonic() + seconds
        while self._open and time.monotonic() < deadline:
            self.cut_blocked(seconds / 2)
            time.sleep(0.01)

    def _watch(self) -> None:
        while not self.closing.wait(min(WATCH_SECONDS, self._blocked_seconds / 2)):
            self.cut_blocked(self._blocked_seconds)
            with self._lock:
                if not self._open:
                    self._watching = False
                    return


def gone_test(environ: dict[str, Any]) -> Callable[[], bool]:
    """Tells whether the connection of this request is closed."""
    return environ.get("waitress.client_disconnected") or (lambda: False)


def cut_connection(environ: dict[str, Any]) -> None:
    """End the connection of a reader that does not read: waitress wakes the blocked write with an error."""
    is_gone = environ.get("waitress.client_disconnected")
    channel = getattr(is_gone, "__self__", None)
    if channel is not None and channel.socket is not None:
        channel.socket.shutdown(socket.SHUT_RDWR)
