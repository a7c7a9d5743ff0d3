"""Replies on their way to a program: read together, ended when nobody reads them any more.

A program that closes its connection is noticed within GLANCE_SECONDS whatever is going on, so that the engine
drops its request at the next step. Knows no protocol.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Response, request

from model import (
    CallDelta,
    PromptProgress,
    ReplyDone,
    ReplyFailed,
    RequestStats,
    RunningReply,
    ScoredToken,
    TextDelta,
)

from ..errors import EngineFailed, ReaderGone
from ..ids import new_id
from ..routes.parlor import api
from ..server.streams import Stream, StreamedBody, cut_connection, gone_test
from .asking import Begun, NoEngine

HEARTBEAT_SECONDS = 5.0
GLANCE_SECONDS = 0.05
STOPPED = "Parlor was stopped while this was being written."


Told = tuple[int, TextDelta | CallDelta | ReplyDone, list[ScoredToken]]
"""Which reply, what has come of it, the tokens of its text."""


@dataclass
class WrittenCall:
    """A call of a tool; `arguments` is JSON when all has come."""

    name: str
    arguments: str = ""
    id: str = field(default_factory=lambda: f"call_{new_id()}{new_id()[:8]}")

    def parsed(self) -> dict[str, Any]:
        """The arguments; what was cut off in their middle is none."""
        try:
            found = json.loads(self.arguments)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass
class Written:
    """All of one reply."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[WrittenCall] = field(default_factory=list)
    tokens: list[ScoredToken] = field(default_factory=list)  # those of the text
    reason: str = ""
    stop: str = ""  # the string that stopped it
    stats: RequestStats | None = None
    thought_tokens: int = 0

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def thinking(self) -> str:
        return "".join(self.thoughts)


class Answer:
    """The replies to one request. One thread reads."""

    def __init__(self, begun: Begun, is_gone: Callable[[], bool], closing: threading.Event) -> None:
        replies = begun.replies
        self.written = [Written() for _ in replies]
        self._begun = begun
        self._is_gone, self._closing = is_gone, closing
        self._events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._pending: list[list[ScoredToken]] = [[] for _ in replies]  # tokens whose text has not come yet
        for index, reply in enumerate(replies):
            threading.Thread(target=self._pump, args=(index, reply), name="api-reply", daemon=True).start()

    def events(self) -> Iterator[Told | None]:
        """(which reply, what has come of it, the tokens of its text), until all are done; None if nothing has
        come for HEARTBEAT_SECONDS.

        Raises ReaderGone, and EngineFailed if a reply cannot go on; what is still being written ends then.
        """
        left, quiet_since = len(self.written), time.monotonic()
        try:
            while left:
                try:
                    index, event = self._events.get(timeout=GLANCE_SECONDS)
                except queue.Empty:
                    index, event = 0, None
                if self._is_gone():
                    raise ReaderGone("Nobody reads this.")
                if self._closing.is_set():
                    raise NoEngine(STOPPED)
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, ReplyFailed):
                    raise EngineFailed(event.message)
                told = None if event is None else self._take(index, event)
                if isinstance(event, ReplyDone):
                    left -= 1
                if told or time.monotonic() - quiet_since > HEARTBEAT_SECONDS:
                    quiet_since = time.monotonic()
                    yield told
        finally:
            self._begun.cancel()

    def read_all(self) -> list[Written]:
        """Every reply, when all are done. Raises as `events` does."""
        for _ in self.events():
            pass
        return self.written

    def _take(self, index: int, event: Any) -> Told | None:
        written, tokens = self.written[index], []
        if isinstance(event, PromptProgress):
            return None
        if isinstance(event, ScoredToken):
            self._pending[index].append(event)
            return None
        if isinstance(event, TextDelta):
            tokens, self._pending[index] = self._pending[index], []
            if event.channel == "think":
                written.thoughts.append(event.text)
                written.thought_tokens, tokens = event.num_tokens_so_far, []
            else:
                if not written.texts:
                    tokens = _tokens_of(event.text, tokens)
                written.texts.append(event.text)
            written.tokens += tokens
        if isinstance(event, CallDelta):
            self._pending[index] = []
            if event.name:
                written.calls.append(WrittenCall(event.name))
            written.calls[-1].arguments += event.arguments
        if isinstance(event, ReplyDone):
            written.reason, written.stats, written.stop = event.finish_reason, event.stats, event.stop
        return index, event, tokens

    def _pump(self, index: int, reply: RunningReply) -> None:
        try:
            for event in reply.events():
                self._events.put((index, event))
        except BaseException as error:  # a panic in a tokenizer's library is no Exception
            self._events.put((index, error))


def answered(begun: Begun) -> list[Written]:
    """All replies, for a request that is answered when all is written. It holds a thread of the server
    meanwhile, as streams do, and counts as one. Raises as Answer.events does."""
    with _opened(begun) as stream:
        try:
            return Answer(begun, gone_test(request.environ), api().streams.closing).read_all()
        finally:
            api().streams.release(stream)
            begun.end()


def streamed(begun: Begun, write: Callable[[Answer], Iterator[bytes]], mimetype: str) -> Response:
    """The response that `write` makes of the answer, piece by piece; it is told what goes wrong meanwhile."""
    with _opened(begun) as stream:
        answer = Answer(begun, gone_test(request.environ), api().streams.closing)
        body = StreamedBody(api().streams, stream, _unless_gone(write(answer)), begun.end)
    response = Response(body, mimetype=mimetype)
    response.headers["X-Accel-Buffering"] = "no"
    return response


@contextmanager
def _opened(begun: Begun) -> Iterator[Stream]:
    """A stream; where there is none, or something else goes wrong, nothing goes on being written."""
    environ = request.environ
    try:
        yield api().streams.open(lambda: cut_connection(environ))
    except BaseException:
        begun.end()
        raise


def _unless_gone(pieces: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except ReaderGone:
        return


def shown_token(token: ScoredToken) -> dict[str, Any]:
    """As OpenAI's chat and Ollama's protocol have it; `top_logprobs` is there even where it is empty."""
    return _plain(token) | {"top_logprobs": list(map(_plain, token.top))}


def _plain(token: ScoredToken) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.data)}


def _tokens_of(text: str, tokens: list[ScoredToken]) -> list[ScoredToken]:
    """The last of `tokens`, those that make up `text`: marks and white space before it are not shown."""
    size, first = len(text.encode()), len(tokens)
    while first and size > 0:
        first -= 1
        size -= len(tokens[first].data)
    return tokens[first:]
