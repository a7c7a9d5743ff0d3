"""Answers in JSON cross a network compressed; static files are kept compressed, see static_files.py."""

from __future__ import annotations

import gzip

from flask import Request, Response

from .other_devices import is_loopback

LEAST_BYTES = 1 << 10   # what is shorter goes in one packet anyway
MOST_BYTES_AT_HOME = 1 << 16  # to this machine itself nothing is slower than compressing
_LEVEL = 4


def compress(request: Request, response: Response) -> Response:
    """The answer, compressed if that helps whoever asks and they can read it. Streams stay as they are: an
    event has to arrive when it happens."""
    if response.mimetype != "application/json" or response.is_streamed or response.content_encoding:
        return response
    content = response.get_data()
    if len(content) < LEAST_BYTES:
        return response
    response.vary.add("Accept-Encoding")
    helps = len(content) <= MOST_BYTES_AT_HOME or not is_loopback(request.remote_addr or "")
    if helps and request.accept_encodings["gzip"] > 0:
        response.set_data(gzip.compress(content, _LEVEL, mtime=0))
        response.content_encoding = "gzip"
    return response
