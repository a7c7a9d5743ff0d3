"""Connections on top of waitress: bounded for each address, with deadlines, and refused in our own words.

waitress reads a request whole before anything of ours sees it. So this is where a sender that never finishes
is let go, where one that is not logged in may send no more than a login, where many connections from one
place make room for others, and where a request that is no HTTP gets an answer like every other. Runs in the
one thread that waits for sockets: nothing here may block. Knows no routes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import BadRequest, RequestEntityTooLarge

from .. import strict_json
from .guard import HEADERS
from .json_log import tell_request
from .password import place_of

HEADER_SECONDS = 10.0
BODY_SECONDS = 20.0  # and a second for each of these bytes: a phone far from its Wi-Fi sends faster
BODY_BYTES_PER_SECOND = 1 << 15
SWEEP_SECONDS = 1
BodyLimit = Callable[[HTTPRequestParser], int]

_REFUSALS = {
    400: ("bad_request", "This is not a request that HTTP knows."),
    413: ("request_entity_too_large", "The body is too large."),
    431: ("request_header_fields_too_large", "The headers are too large."),
    500: ("internal", "Something broke inside Parlor; its log says more."),
    501: ("not_implemented", "This way of sending a body is not taken here."),
}


class Parser(HTTPRequestParser):
    """One request; `body_limit` says how many bytes may follow its headers."""

    def __init__(self, body_limit: BodyLimit, adj: Adjustments) -> None:
        super().__init__(adj)
        self._body_limit = body_limit
        self._most: int | None = None
        self.began = time.monotonic()

    def received(self, data: bytes) -> int:
        try:
            consumed = super().received(data)
        except ValueError:  # an address or a length that Python's parsers give up on
            self.error, self.completed = BadRequest("unreadable"), True
            return len(data)
        if self.headers_finished and self.error is None and self.body_rcv is not None:
            if self._most is None:
                self._most = self._body_limit(self)
            if max(self.content_length, self.body_bytes_received) > self._most:
                self.error, self.completed = RequestEntityTooLarge(""), True
                self.expect_continue = False  # else the channel would ask for the body
        return consumed

    def deadline(self) -> float:
        """When the rest must have come, by the monotonic clock."""
        if not self.headers_finished:
            return self.began + HEADER_SECONDS
        size = max(self.content_length, self.body_bytes_received)
        return self.began + HEADER_SECONDS + BODY_SECONDS + size / BODY_BYTES_PER_SECOND


class Refusal(ErrorTask):
    """The answer to a request that waitress itself refuses."""

    def execute(self) -> None:
        status = self.request.error.code
        code, message = _REFUSALS.get(status, _REFUSALS[400])
        body = strict_json.dumps({"error": {"message": message, "code": code}})
        self.status = f"{status} {self.request.error.reason}"
        self.response_headers += [("Content-Type", "application/json"), ("Cache-Control", "no-store"),
                                  *HEADERS.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        method, path = (getattr(self.request, name, "") for name in ("command", "path"))  # as far as was read
        tell_request(method, path, status, self.request.began)
        self.write(body)


class Channel(HTTPChannel):
    """One connection."""

    error_task_class = Refusal

    def __init__(self, server: Server, *arguments: Any, **options: Any) -> None:
        self.parser_class = partial(Parser, server.body_limit)
        self.opened = time.monotonic()
        self.was_used = False
        super().__init__(server, *arguments, **options)

    def received(self, data: bytes) -> bool:
        self.was_used = True
        return super().received(data)

    @property
    def place(self) -> str:
        return place_of(self.addr[0])

    @property
    def is_answered(self) -> bool:
        """Whether somebody waits here for what is being made, or for what is on its way."""
        return bool(self.requests) or self.total_outbufs_len > 0

    def is_late(self, now: float) -> bool:
        """Whether a request that was begun should have come by now, or a first one have begun."""
        if self.is_answered:
            return False
        request = self.request
        if request is not None:
            return now > request.deadline()
        return not self.was_used and now > self.opened + HEADER_SECONDS


class Waiting(Protocol):
    """What room() looks at in a connection."""

    place: str
    is_answered: bool
    opened: float


class Server(TcpWSGIServer):
    """Listens on one socket.

    most        connections at once; half of them for one address
    body_limit  bytes that may follow these headers
    """

    channel_class = Channel

    def __init__(self, *arguments: Any, most: int, body_limit: BodyLimit, **options: Any) -> None:
        self.most, self.body_limit = most, body_limit
        super().__init__(*arguments, **options)

    def handle_accept(self) -> None:
        super().handle_accept()
        for channel in surplus(self.active_channels.values(), self.most):
            channel.handle_close()

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        moment = time.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.is_late(moment):
                channel.handle_close()


def surplus(channels: Iterable[Waiting], most: int) -> list[Waiting]:
    """What must be closed so that no more than `most` are open, and half of them from one place.

    The oldest that nobody gets an answer through; if there is none, the one that has just come.
    """
    channels = sorted(channels, key=lambda channel: channel.opened)
    if not channels:
        return []
    newest = channels[-1]
    same_place = [channel for channel in channels if channel.place == newest.place]
    crowded = same_place if len(same_place) > most // 2 else channels if len(channels) > most else []
    if not crowded:
        return []
    return [next((channel for channel in crowded[:-1] if not channel.is_answered), newest)]
